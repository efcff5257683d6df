import keras
from keras import ops, tree

from keras_ext.keras_internals import layers_inside, made_trainable
from keras_ext.ops.settings import whole
from keras_ext.training.chunk_loop import encode_chunks


class ChunkedEncoder(keras.layers.Layer):
    """Encodes views chunk by chunk: what stands below the loss in `CachedContrastiveModel`.

    Args:
        encoder: a built `keras.Model` from rows to vectors (rows, d), or a list, one for each view.
        chunk_size: int of at least 1, rows of a view in a chunk.

    Call arguments:
        views: list of m structures of tensors with a leading axis of b examples.
        training: bool.

    Returns:
        (b, m, d), in the dtype of the encoder.
    """

    def __init__(self, encoder, chunk_size, **kwargs):
        # Variables are read here as they are stored. The encoder casts them, in every chunk.
        super().__init__(dtype="float32", autocast=False, **kwargs)
        encoders = encoder if isinstance(encoder, (list, tuple)) else [encoder]
        if not encoders or not all(isinstance(x, keras.Model) and x.built for x in encoders):
            raise ValueError(
                "Expected a keras.Model that has its weights, or a list of them, one for each view "
                f"(a model that is called on a batch gets them). Received: {encoder=}"
            )
        self.encoder = encoder
        self.chunk_size = whole("chunk_size", chunk_size)

    def call(self, views, training=None):
        encoders = self.encoders_for(views)
        batch = _count_examples(views)
        size = min(self.chunk_size, batch) if isinstance(batch, int) else self.chunk_size
        specs = self._vector_specs(views, size)
        _output_shape([getattr(spec, "shape", None) for spec in specs])
        weights, constants, state = _variables(encoders)
        frozen = [ops.copy(variable) for variable in constants]

        def step_of(encoder, view):
            def step(index, weight_values, state_values):
                # Copies of the last example fill the last chunk. They are cut off below, so that
                # no gradient comes from them.
                rows = ops.minimum(index * size + ops.arange(size, dtype="int32"), batch - 1)
                chunk = tree.map_structure(lambda x: ops.take(x, rows, axis=0), view)
                variables = [*weights, *constants, *state]
                values = [*weight_values, *frozen, *state_values]
                return _call_purely(encoder, chunk, training, variables, values, state)

            return step

        vectors, new_state = encode_chunks(
            [step_of(*pair) for pair in zip(encoders, views, strict=True)],
            [ops.copy(variable) for variable in weights],
            [ops.copy(variable) for variable in state],
            (batch + size - 1) // size,
            specs,
        )
        for variable, value in zip(state, new_state, strict=True):
            variable.assign(value)
        vectors = [ops.reshape(x, (-1, x.shape[-1]))[:batch] for x in vectors]  # (b, d) each
        return ops.stack(vectors, axis=1)

    def compute_output_shape(self, input_shape):
        pairs = zip(self.encoders_for(input_shape), input_shape, strict=True)
        return _output_shape([encoder.compute_output_shape(shape) for encoder, shape in pairs])

    def compute_output_spec(self, views, training=None):
        specs = self._vector_specs(views, _count_examples(views))
        return keras.KerasTensor(_output_shape([spec.shape for spec in specs]), specs[0].dtype)

    def _vector_specs(self, views, rows):
        """What the encoder of each view makes of so many rows."""

        def spec(encoder, view):
            def of(x):
                dtype = keras.backend.standardize_dtype(x.dtype)
                casts = encoder.autocast and keras.backend.is_float_dtype(dtype)
                dtype = encoder.compute_dtype if casts else dtype
                return keras.KerasTensor((rows, *x.shape[1:]), dtype)

            return encoder.compute_output_spec(tree.map_structure(of, view))

        return [spec(*pair) for pair in zip(self.encoders_for(views), views, strict=True)]

    def encoders_for(self, views):
        """The encoder of each view."""
        if not isinstance(views, (list, tuple)) or not views:
            raise ValueError(
                "Expected a list or tuple of views, each a structure of tensors. "
                f"Received: {type(views).__name__}"
            )
        if not isinstance(self.encoder, (list, tuple)):
            return [self.encoder] * len(views)
        if len(self.encoder) != len(views):
            raise ValueError(
                "Expected a view for each encoder. "
                f"Received: {len(views)} views for {len(self.encoder)} encoders"
            )
        return list(self.encoder)


def _output_shape(shapes):
    """The shape of stacked vectors from those of the vectors.

    Raises:
        ValueError: if they are not vectors of one width.
    """
    if not all(isinstance(x, (list, tuple)) and len(x) == 2 for x in shapes) or any(
        shape[1] != shapes[0][1] for shape in shapes
    ):
        raise ValueError(
            "Expected encoders to vectors (rows, d), all of one width. "
            f"Received: encoders with outputs of shapes {shapes}"
        )
    return (shapes[0][0], len(shapes), shapes[0][1])


def _count_examples(views):
    """The number of examples: an int, or where it is unknown a tensor."""
    tensors = tree.flatten(views)
    known = {x.shape[0] for x in tensors} - {None}
    if len(known) > 1:
        raise ValueError(f"Expected as many rows in all views. Received: {sorted(known)} rows")
    return known.pop() if known else ops.shape(tensors[0])[0]


def _variables(encoders):
    """The variables that are trained, those that are frozen, and those that a call may change."""
    trained = {id(v): v for encoder in encoders for v in encoder.trainable_variables}
    others = {id(v): v for encoder in encoders for v in encoder.non_trainable_variables}
    # Frozen weights were made as trainable ones. They need not be carried through the loops.
    layers = [layer for each in encoders for layer in (each, *layers_inside(each))]
    frozen = {id(v) for layer in layers for v in made_trainable(layer)}
    constants = [v for key, v in others.items() if key in frozen]
    return list(trained.values()), constants, [v for key, v in others.items() if key not in frozen]


def _call_purely(encoder, chunk, training, variables, values, state):
    """The output of an encoder whose variables have the given values, and new values of its state.

    Raises:
        ValueError: if the call leaves anything else behind, which the loops would lose.
    """
    mapping = list(zip(variables, values, strict=True))
    with keras.StatelessScope(mapping, True, initialize_variables=False) as scope:
        before = dict(scope.state_mapping)
        vectors = encoder(chunk, training=training)
    if scope.losses:
        raise ValueError(
            "Expected an encoder that adds no losses: they would be those of chunks, not of the "
            "batch. Regularisers of weights are fine, those of activities and `add_loss` are not. "
            f"Received: encoder={encoder.name}, {len(scope.losses)} losses"
        )
    allowed = {id(variable) for variable in state}
    for key, value in scope.state_mapping.items():
        if key not in allowed and value is not before.get(key):
            raise ValueError(
                "Expected an encoder that changes only its own state in a call: random numbers "
                "from a `keras.random.SeedGenerator` that is an attribute of its layer, no new "
                f"value for a trainable weight. Received: encoder={encoder.name}"
            )
    return vectors, [scope.get_current_value(variable) for variable in state]
