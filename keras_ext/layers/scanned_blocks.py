import inspect
from contextlib import ExitStack

import keras
from keras import ops

from keras_ext.layers.attach_mask import AttachMask

SEED_STRIDE = 1_000_003


@keras.saving.register_keras_serializable(package="keras_ext")
class ScannedBlocks(keras.layers.Layer):
    """A stack of equal blocks, each with weights of its own, whose body is traced once.

        x = block_i(x),  i = 0, ..., depth - 1

    A weight of the block, of shape (...), is one weight (depth, ...) here, and the body is a loop
    over the first axis. So the time to trace and to compile a model does not grow with the depth.
    The time to build it does: a block is built for each depth, of which the initial values remain.
    Values and gradients are those of the blocks one after the other. In TensorFlow take
    `jit_compile=True` for very deep stacks: without it, the gradient of 1,000 blocks of two
    matrices took 15 times as long. The activations of all depths are kept for the gradient, as
    they are without a loop: where memory is short, put `keras.remat` around what the block computes
    or take smaller batches.

    Each block begins as one that is made from the block's config: initialisers draw anew for each
    depth, also those with a seed of their own (it is another for each depth). Dropout draws anew at
    each depth and in each training call; in inference random numbers do not change between calls.
    State such as moving averages is kept for each depth, and changes in training only. Freezing the
    stack, `trainable = False`, counts for its weights: with training=True its state still changes.

    Args:
        block: `keras.layers.Layer` that has not been built and keeps the shape of its input: one of
            a class of its own, or a `keras.Sequential` without an input; a functional model is
            built from the start. It is a pattern, and stays without weights. Arguments of its
            `call` after the first need defaults.
        depth: int, number of blocks.
        dtype: dtype policy of the inputs and outputs. Blocks compute in their own. Defaults to that
            of `block`.

    Call arguments:
        inputs: (b, n, d), or whatever the block takes as its first argument.
        mask: (b, n) bool, true = token. Every block gets it, as an argument where it takes a `mask`
            and attached to its input, as Keras does, where not. None: all are tokens.
        **kwargs: tensors that every block gets, such as `attention_mask`.

    Returns:
        A tensor of the shape of `inputs` in the compute dtype.

    Raises:
        ValueError: for a depth below 1, and for a block that has been built, needs more than one
            argument, changes the shape, adds a loss, or has a constrained or regularised weight.

    Example:

    >>> import numpy as np
    >>> block = keras.Sequential([keras.layers.LayerNormalization(), keras.layers.Dense(4)])
    >>> layer = ScannedBlocks(block, depth=100)
    >>> tuple(layer(np.ones((2, 3, 4), "float32")).shape)
    (2, 3, 4)
    >>> tuple(layer.weights[2].shape)
    (100, 4, 4)
    """

    def __init__(self, block, depth, dtype=None, **kwargs):
        super().__init__(dtype=dtype or block.dtype_policy, autocast=False, **kwargs)
        if depth < 1:
            raise ValueError(f"Expected a depth of at least 1. Received: {depth=}")
        if block.built:
            raise ValueError(
                "Expected a block that has not been built (its weights would not be used): a layer "
                "of a class of its own, or another unbuilt layer, not a functional model. "
                f"Received: block={block.name}, built"
            )
        parameters = inspect.signature(block.call).parameters
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        needed = [
            name
            for name, parameter in list(parameters.items())[1:]
            if parameter.default is inspect.Parameter.empty and parameter.kind not in variadic
        ]
        if needed:
            raise ValueError(
                "Expected a block whose `call` has one argument without a default, the input. "
                f"Received: block={block.name}, which also needs {', '.join(needed)}"
            )
        self.depth = depth
        # Inside a function, as Keras takes the weights of an attribute for those of the layer.
        self._pattern = lambda: block
        self._takes_mask = "mask" in parameters
        self.attach_mask = AttachMask(dtype=self.dtype_policy, name="attach_mask")
        self.seed_generator = keras.random.SeedGenerator()
        self.supports_masking = True

    def build(self, input_shape):
        blocks = [self._make_block(i, input_shape) for i in range(self.depth)]
        stacks = [
            _stack(self.path, rows)
            for rows in zip(*(block.weights for block in blocks), strict=True)
        ]
        self.weight_stacks = [stack for stack in stacks if stack.trainable]
        self.state_stacks = [stack for stack in stacks if not stack.trainable]
        # The first serves as the body, its variables as the places where values are put in.
        body, own = blocks[0], {id(weight) for weight in blocks[0].weights}
        weights = [weight for weight in body.weights if weight.trainable]
        state = [weight for weight in body.weights if not weight.trainable]
        seeds = [variable for variable in body.variables if id(variable) not in own]
        self._body = lambda: (body, weights, state, seeds)
        self.attach_mask.build([input_shape, input_shape[:2]])

    def _make_block(self, i, input_shape):
        pattern = self._pattern()
        block = type(pattern).from_config(_reseeded(pattern.get_config(), i * SEED_STRIDE))
        output = block(keras.KerasTensor(input_shape, block.compute_dtype))
        if tuple(output.shape) != tuple(input_shape):
            raise ValueError(
                "Expected a block that keeps the shape of its input. "
                f"Received: {input_shape=}, output_shape={tuple(output.shape)}"
            )
        return block

    def call(self, inputs, mask=None, training=None, **kwargs):
        body, weights, state, seeds = self._body()
        variables = [*weights, *state, *seeds]
        if mask is not None and self._takes_mask:
            kwargs["mask"] = mask
        attached = None if self._takes_mask else mask

        def step(x, values):
            """The output of one block and its new state."""
            mapping = list(zip(variables, values, strict=True))
            y = x if attached is None else self.attach_mask([x, attached])
            # Not `stateless_call`, which passes over `__call__` and so over the block's dtype.
            with keras.StatelessScope(mapping, True, initialize_variables=False) as scope:
                y = body(y, **kwargs)
            if scope.losses:
                raise ValueError(
                    "Expected a block that adds no losses: they would get lost in the loop. "
                    f"Received: block={body.name}, {len(scope.losses)} losses"
                )
            # A loop in TensorFlow demands of every step the static shape of the first.
            y = ops.reshape(ops.cast(y, x.dtype), ops.shape(x))
            return y, [scope.get_current_value(variable) for variable in state]

        # Read once, not in each step of the loop.
        stacks = [ops.copy(variable) for variable in (*self.weight_stacks, *self.state_stacks)]
        stacks += self._draw_seeds(seeds, training)
        places = range(len(weights), len(weights) + len(state))
        x, new_state = _loop(step, ops.cast(inputs, self.compute_dtype), stacks, places, self.depth)
        if training:
            for stack, value in zip(self.state_stacks, new_state, strict=True):
                stack.assign(value)
        return x

    def _draw_seeds(self, seeds, training):
        """For each random generator of the block a stack of its states, (depth, 2)."""
        if not seeds:
            return []
        drawn = keras.random.randint(
            (len(seeds), self.depth, 2),
            0,
            2**31 - 1,
            dtype="int32",
            seed=self.seed_generator if training else 0,
        )
        return [ops.cast(drawn[j], seed.dtype) for j, seed in enumerate(seeds)]

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "block": keras.saving.serialize_keras_object(self._pattern()),
            "depth": self.depth,
        }

    @classmethod
    def from_config(cls, config):
        block = keras.saving.deserialize_keras_object(config["block"])
        return super().from_config({**config, "block": block})


def _loop(step, x, stacks, places, depth):
    """`x` after `depth` steps, and stacks of the new values of those stacks that are state.

    Args:
        step: function of x and a slice of each stack that gives the new x and a list of new values.
        x: tensor.
        stacks: list of tensors (depth, ...).
        places: range, where in `stacks` the state is.
        depth: int.
    """
    if keras.config.backend() != "tensorflow":
        return ops.scan(step, x, stacks, length=depth)

    # Here it is the other way round: the gradient of `ops.scan` cannot be compiled, that of a loop
    # with a known maximum can.
    def one(i, x, state):
        x, values = step(x, [stack[i] for stack in stacks])
        pairs = zip(state, values, strict=True)
        return i + 1, x, [ops.scatter_update(old, [[i]], new[None]) for old, new in pairs]

    start = (0, x, [stacks[place] for place in places])
    loop = ops.while_loop(lambda i, *_: i < depth, one, start, maximum_iterations=depth)
    return loop[1:]


def _stack(root, rows):
    """The weight (depth, ...) that begins as the weights in `rows`.

    It gets their name and, below the path `root`, their scopes: rules about paths find it.
    """
    first = rows[0]
    if first.constraint is not None or first.regularizer is not None:
        raise ValueError(
            "Expected weights without constraint and regularizer, which would see those of all "
            f"depths as one. Received: weight={first.path}"
        )
    *scopes, name = first.path.removeprefix(f"{root}/").split("/")
    with ExitStack() as entered:
        for scope in scopes:
            entered.enter_context(keras.name_scope(scope))
        return keras.Variable(
            lambda shape, dtype: ops.stack([row.value for row in rows]),
            shape=(len(rows), *first.shape),
            dtype=first.dtype,
            trainable=first.trainable,
            autocast=False,
            name=name,
        )


def _reseeded(config, shift):
    """A copy of a config in which all that has a seed of its own has another."""
    if isinstance(config, (list, tuple)):
        return type(config)(_reseeded(part, shift) for part in config)
    if not isinstance(config, dict):
        return config
    return {
        name: (value + shift) % 2**31
        if name == "seed" and isinstance(value, int)
        else _reseeded(value, shift)
        for name, value in config.items()
    }
