"""Gradient caching: the gradient of the whole batch, from one chunk at a time."""

import keras
import numpy as np
import pytest
from gradients import relative_error, to_numpy, value_and_gradient
from keras import ops
from memory import peak_memory

from keras_ext.layers.learnable_temperature import LearnableTemperature
from keras_ext.optimizers import GuardedLossScale, NonFiniteGuard
from keras_ext.training.cached_contrastive_model import CachedContrastiveModel

pytestmark = pytest.mark.slow

TENSORFLOW = keras.backend.backend() == "tensorflow"
BATCH, CHUNK = 8, 3  # the last chunk is one example short


def new_encoder(dropout=0.0, norm=False, regularizer=None, activity=None, width=4, **kwargs):
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("ids", "mask")}
    x = keras.layers.Embedding(11, 6)(inputs["ids"])
    x = keras.layers.GlobalAveragePooling1D()(x, mask=ops.cast(inputs["mask"], "bool"))
    x = keras.layers.BatchNormalization()(x) if norm else x
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(5, "tanh", kernel_regularizer=regularizer)(x)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(width, use_bias=False, activity_regularizer=activity)(x)
    return keras.Model(inputs, x, **kwargs)


def new_views(lengths=(5, 7), batch=BATCH, seed=0):
    rng = np.random.default_rng(seed)
    ids = [rng.integers(0, 11, (batch, length)) for length in lengths]
    return [{"ids": x, "mask": np.maximum(rng.integers(0, 2, x.shape), x == x[:, :1])} for x in ids]


class Plain(keras.Model):
    """What the cached model is compared with: one call of the encoder on all rows of a view."""

    def __init__(self, encoder, head=None):
        super().__init__()
        self.encoder, self.head = encoder, head

    def build(self, input_shape):
        if self.head is not None:
            self.head.build((None, len(input_shape), 4))

    def call(self, views, training=None):
        vectors = ops.stack([self.encoder(view, training=training) for view in views], axis=1)
        return vectors if self.head is None else self.head(vectors)


def in_turn(encoders, views, size=CHUNK):
    """The vectors (b, m, d) of chunks that are encoded one after the other, all on one tape."""
    vectors = []
    for encoder, view in zip(encoders, views, strict=True):
        batch = len(view["ids"])
        starts = range(0, batch, size)
        rows = [np.minimum(np.arange(start, start + size), batch - 1) for start in starts]
        chunks = [
            keras.tree.map_structure(lambda x, r=r: ops.convert_to_tensor(x[r]), view) for r in rows
        ]
        parts = [encoder(chunk, training=True) for chunk in chunks]
        vectors.append(ops.concatenate(parts)[:batch])
    return ops.stack(vectors, axis=1)


def info_nce(vectors):
    """Every other example of the batch is a negative."""
    scores = 30.0 * ops.matmul(vectors[:, 0], ops.transpose(vectors[:, 1]))
    return ops.mean(ops.logsumexp(scores, axis=1) - ops.diagonal(scores))


def ranking(vectors):
    """Every pair of pairs counts: as CoSENT, labels 0, 1, 0, 1, ..."""
    scores = ops.sum(vectors[:, 0] * vectors[:, 1], axis=-1)
    labels = np.arange(vectors.shape[0]) % 2
    wrong = ops.convert_to_tensor(labels[:, None] < labels[None], "float32")
    return ops.log(1.0 + ops.sum(wrong * ops.exp(3.0 * (scores[:, None] - scores[None]))))


def gradients(function, model, compiled=False):
    """The value of `function()` and its gradients for the weights; the model stays as it is."""
    weights = model.trainable_variables

    def pure(*values):
        with keras.StatelessScope(list(zip(weights, values, strict=True))):
            return function()

    return value_and_gradient(pure, *map(to_numpy, weights), compiled=compiled)


def largest_error(results, expected):
    errors = [relative_error(*pair) for pair in zip(results, expected, strict=True)]
    assert len(errors) > 2 and all(np.max(np.abs(x)) > 1e-4 for x in expected)
    return max(errors)


def encoders_of(kind, dropout=0.4):
    """The argument `encoder`, and the encoder of each of two views."""
    first, second = new_encoder(dropout), new_encoder(dropout)
    return {
        "one": (first, [first, first]),
        "separate": ([first, second], [first, second]),
        "twice": ([first, first], [first, first]),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "loss", "chunk_size", "compiled"),
    [
        ("one", info_nce, CHUNK, False),
        ("separate", ranking, CHUNK, False),
        ("twice", info_nce, 4, False),
        ("one", ranking, 20, False),
    ]
    + [("one", info_nce, CHUNK, True)] * TENSORFLOW,  # with JAX, everything is compiled
)
def test_gradients_are_those_of_one_tape_over_the_chunks(kind, loss, chunk_size, compiled):
    """With dropout: the second pass draws what the first one drew."""
    encoder, encoders = encoders_of(kind)
    model, views = CachedContrastiveModel(encoder, chunk_size), new_views()
    value, results = gradients(lambda: loss(model(views, training=True)), model, compiled)
    size = min(chunk_size, BATCH)
    one_tape = lambda: loss(in_turn(encoders, views, size))  # noqa: E731
    expected_value, expected = gradients(one_tape, model, compiled)
    assert value == pytest.approx(expected_value, rel=1e-6)
    assert largest_error(results, expected) < 1e-6


def test_the_formula_and_that_it_needs_the_same_random_numbers():
    """sum(h * G) has the gradient of the loss, but not if h is dropped out differently than G."""
    encoder, views = new_encoder(0.4), new_views()
    model = CachedContrastiveModel(encoder, CHUNK)
    _, results = gradients(lambda: info_nce(model(views, training=True)), model)
    vectors = to_numpy(in_turn([encoder] * 2, views))
    _, (upstream,) = value_and_gradient(info_nce, vectors)
    seeds = [v for v in encoder.non_trainable_variables if "seed" in v.path]
    assert [to_numpy(seed)[1] for seed in seeds] == [6, 6]  # two views of three chunks

    def surrogate():
        return ops.sum(in_turn([encoder] * 2, views) * upstream)

    _, other = gradients(surrogate, model)
    for seed in seeds:
        seed.assign(to_numpy(seed) * np.array([1, 0]))
    _, same = gradients(surrogate, model)
    assert largest_error(results, same) < 1e-6
    assert largest_error(results, other) > 1e-2


@pytest.mark.parametrize("loss", [info_nce, ranking])
def test_without_dropout_gradients_are_those_of_the_plain_batch(loss):
    views = new_views()
    model = CachedContrastiveModel(new_encoder(), CHUNK)
    plain = Plain(model.encoder)
    _, results = gradients(lambda: loss(model(views, training=True)), model)
    tensors = keras.tree.map_structure(ops.convert_to_tensor, views)
    _, expected = gradients(lambda: loss(plain(tensors, training=True)), model)
    assert largest_error(results, expected) < 1e-5  # sums of float32 in another order
    parts = [keras.tree.map_structure(lambda x, i=i: x[i : i + 4], tensors) for i in (0, 4)]
    losses = lambda: sum(loss(plain(part, training=True)) for part in parts) / 2  # noqa: E731
    _, accumulated = gradients(losses, model)
    assert largest_error(results, accumulated) > 1e-2


def test_a_loss_of_one_view_and_a_frozen_layer():
    views = new_views()
    model = CachedContrastiveModel(new_encoder(0.4), CHUNK)
    model.encoder.layers[-1].trainable = False
    loss = lambda vectors: ops.sum(vectors[:, 0] ** 2)  # noqa: E731
    _, results = gradients(lambda: loss(model(views, training=True)), model)
    _, expected = gradients(lambda: loss(in_turn([model.encoder] * 2, views)), model)
    assert len(results) == 3
    assert largest_error(results, expected) < 1e-6


def test_a_frozen_encoder_under_a_head_that_learns():
    model = CachedContrastiveModel(new_encoder(), CHUNK, keras.layers.Dense(1))
    model.encoder.trainable = False
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.train_on_batch(new_views(), np.ones((BATCH, 2, 1)))
    assert len(model.trainable_variables) == 2
    assert np.all(to_numpy(model.head.bias) != 0)


FITS = [{}, {"jit_compile": True}, {"run_eagerly": True}] if TENSORFLOW else [{}]


@pytest.mark.parametrize("how", FITS[:2], ids=str)
def test_fit_is_the_fit_of_a_plain_model(how):
    """Weight by weight, with a head that learns, weighted vectors and a last batch that is short.

    The weights are regularised: once a step, not once a chunk.
    """
    first = new_encoder(regularizer="l2")
    second = keras.models.clone_model(first)
    second.set_weights(first.get_weights())
    views = new_views(batch=20)
    rng = np.random.default_rng(1)
    labels, weights = rng.normal(size=(20, 2, 4)), rng.uniform(size=(20, 2))
    cached = CachedContrastiveModel(first, CHUNK, LearnableTemperature(0.5))
    plain = Plain(second, LearnableTemperature(0.5))
    histories = []
    for model, arguments in ((cached, how), (plain, {})):
        optimizer = keras.optimizers.SGD(0.1, momentum=0.5)
        model.compile(optimizer, "mse", weighted_metrics=["mae"], **arguments)
        fitted = model.fit(views, labels, 8, 1, 0, shuffle=False, sample_weight=weights)
        histories.append(fitted.history)
        assert int(optimizer.iterations) == 3
    assert len(cached.trainable_variables) == 5
    assert to_numpy(cached.trainable_variables[-1]) != pytest.approx(np.log(1 / 0.5), abs=1e-4)
    for ours, theirs in zip(cached.trainable_variables, plain.trainable_variables, strict=True):
        assert relative_error(to_numpy(ours), to_numpy(theirs)) < 1e-5
    for name, values in histories[0].items():
        assert values == pytest.approx(histories[1][name], rel=1e-5)
    if "jit_compile" not in how:
        results = [m.evaluate(views, labels, batch_size=8, verbose=0) for m in (cached, plain)]
        assert results[0] == pytest.approx(results[1], rel=1e-5)
        results = [m.predict(views, batch_size=8, verbose=0) for m in (cached, plain)]
        assert relative_error(*results) < 1e-5


@pytest.mark.parametrize("how", FITS, ids=str)
def test_state_is_that_after_one_pass(how):
    """Of random generators and of moving averages, chunk by chunk."""
    encoder = new_encoder(0.4, norm=True)
    other = keras.models.clone_model(encoder)
    other.set_weights(encoder.get_weights())
    views, model = new_views(), CachedContrastiveModel(encoder, CHUNK)
    for ours, theirs in zip(
        model.non_trainable_variables, other.non_trainable_variables, strict=True
    ):
        theirs.assign(to_numpy(ours))
    model.compile(keras.optimizers.SGD(0.0), "mse", **how)
    model.train_on_batch(views, np.zeros((BATCH, 2, 4)))
    in_turn([other] * 2, views)
    pairs = list(zip(model.non_trainable_variables, other.non_trainable_variables, strict=True))
    assert len(pairs) == 4
    for ours, theirs in pairs:
        np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), rtol=1e-5)
        if "seed" in theirs.path:
            assert to_numpy(theirs)[1] == 6
    state = [to_numpy(ours) for ours, _ in pairs]
    model.predict(views, verbose=0)
    for (ours, _), expected in zip(pairs, state, strict=True):
        np.testing.assert_array_equal(to_numpy(ours), expected)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_batch_that_overflows_is_left_out(jit_compile):
    with_policy = keras.DTypePolicy("mixed_float16")
    inputs = keras.Input((3,), dtype="float32")
    outputs = keras.layers.Dense(4, dtype=with_policy)(inputs)
    encoder = keras.Model(inputs, outputs, dtype=with_policy)
    model = CachedContrastiveModel(encoder, CHUNK)
    optimizer = GuardedLossScale(NonFiniteGuard(keras.optimizers.SGD(0.1)), initial_scale=8.0)
    model.compile(optimizer, "mse", jit_compile=jit_compile)
    assert model.optimizer is optimizer
    rng = np.random.default_rng(0)
    views, targets = list(rng.normal(size=(2, BATCH, 3))), np.zeros((BATCH, 2, 4))
    model.train_on_batch(views, targets)
    before = model.get_weights()
    assert model(views).dtype == "float16"
    bad = [view.copy() for view in views]
    bad[1][-1, 0] = 60000.0  # the square of the output is infinite in float16
    model.train_on_batch(bad, targets)
    for ours, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert float(optimizer.dynamic_scale) == 4.0
    model.train_on_batch(views, targets)
    assert not np.array_equal(model.get_weights()[0], before[0])
    assert np.isfinite(model.get_weights()[0]).all()


def test_half_precision_is_that_of_one_tape():
    """Chunks are computed in float16; what they give for the weights is summed in float32."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = CachedContrastiveModel(new_encoder(), CHUNK)
    finally:
        keras.config.set_dtype_policy("float32")
    views, encoders = new_views(), [model.encoder] * 2
    loss = lambda vectors: info_nce(ops.cast(vectors, "float32"))  # noqa: E731
    _, results = gradients(lambda: loss(model(views, training=True)), model)
    _, expected = gradients(lambda: loss(in_turn(encoders, views)), model)
    assert model.dtype_policy.name == "mixed_float16"
    assert all(result.dtype == "float32" for result in results)
    assert largest_error(results, expected) < 1e-5


class Counter(keras.layers.Layer):
    """Counts how often Python runs its call, and notes the static number of rows."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def call(self, inputs):
        self.rows.append(inputs.shape[0])
        return inputs


@pytest.mark.parametrize("jit_compile", [False, True])
def test_chunks_are_small_and_the_second_batch_is_not_traced(jit_compile):
    counter, inputs = Counter(), keras.Input((3,))
    encoder = keras.Model(inputs, keras.layers.Dense(4)(counter(inputs)))
    model = CachedContrastiveModel(encoder, CHUNK)
    model.compile("sgd", "mse", jit_compile=jit_compile)
    views, targets = list(np.ones((2, 16, 3))), np.zeros((16, 2, 4))
    model(views)
    counter.rows.clear()
    model.train_on_batch([view[:8] for view in views], targets[:8])
    runs = len(counter.rows)
    model.train_on_batch([view[8:] for view in views], targets[8:])
    if TENSORFLOW or jit_compile:
        assert 0 < runs == len(counter.rows)
    model.predict(views, verbose=0)
    model.evaluate(views, targets, verbose=0)
    assert len(counter.rows) > runs and set(counter.rows) == {CHUNK}


def wide_step(batch):
    """A training step in a new process. The plain one holds 2 * batch * 8 * 2048 numbers."""
    inputs = keras.Input((8,))
    x = keras.layers.Dense(2048)(inputs)
    for _ in range(8):
        x = keras.layers.Activation("tanh")(x)
    model = CachedContrastiveModel(keras.Model(inputs, keras.layers.Dense(4)(x)), 32)
    model.compile("sgd", "mse")
    views, targets = list(np.ones((2, batch, 8), "float32")), np.zeros((batch, 2, 4))
    return lambda: model.train_on_batch(views, targets)


@pytest.mark.skipif(not TENSORFLOW, reason="JAX has an account of its own, see below")
def test_memory_is_that_of_a_chunk():
    plain = 2 * 4096 * 8 * 2048 * 4 / 1e6  # MB: 537
    assert peak_memory(wide_step, 4096) < plain / 4


@pytest.mark.skipif(TENSORFLOW, reason="asks JAX's compiler")
def test_memory_of_the_compiler_is_that_of_a_chunk():
    import jax

    inputs = keras.Input((8,))
    x = inputs
    for _ in range(3):
        x = keras.layers.Dense(200, "tanh")(x)
    model = CachedContrastiveModel(keras.Model(inputs, keras.layers.Dense(4)(x)), 32)

    def needed(model, batch):
        views = [np.ones((batch, 8), "float32")] * 2

        def loss(weights):
            outputs, _ = model.stateless_call(weights, [], views, training=True)
            return ops.sum(outputs**2)

        weights = [variable.value for variable in model.trainable_variables]
        compiled = jax.jit(jax.grad(loss)).lower(weights).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    model([np.ones((2, 8))] * 2)
    plain = Plain(model.encoder)
    plain([np.ones((2, 8))] * 2)
    vectors = 2 * (4096 - 256) * 4 * 4  # bytes; the inputs are as much twice over
    assert needed(model, 4096) - needed(model, 256) < 8 * vectors
    assert needed(plain, 4096) - needed(plain, 256) > 100 * vectors


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_an_unused_weight_stays(recwarn):
    """As in a plain model: the weight decay of AdamW passes over it in TensorFlow."""
    encoder = new_encoder()
    unused = keras.layers.Dense(1, kernel_initializer="ones", name="unused")
    unused.build((None, 2))
    encoder.pooler = unused
    model = CachedContrastiveModel(encoder, CHUNK)
    model.compile(keras.optimizers.AdamW(0.1, weight_decay=0.5), "mse")
    model.train_on_batch(new_views(), np.zeros((BATCH, 2, 4)))
    expected = 1.0 if TENSORFLOW else 0.95
    np.testing.assert_allclose(to_numpy(unused.kernel), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["separate", "twice"])
def test_saving(kind, tmp_path):
    encoder, _ = encoders_of(kind, dropout=0.0)  # a loaded Dropout has another seed
    views, targets = new_views(), np.zeros((BATCH, 2, 4))
    model = CachedContrastiveModel(encoder, CHUNK, LearnableTemperature(0.5))
    model.compile("adam", "mse")
    model.train_on_batch(views, targets)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = CachedContrastiveModel.from_config(model.get_config())
    assert [x.shape for x in again.weights] == [x.shape for x in model.weights]
    assert len(loaded.trainable_variables) == len(model.trainable_variables)
    expected = model.predict(views, verbose=0)
    np.testing.assert_array_equal(loaded.predict(views, verbose=0), expected)
    model.train_on_batch(views, targets)
    loaded.train_on_batch(views, targets)
    for ours, theirs in zip(model.trainable_variables, loaded.trainable_variables, strict=True):
        np.testing.assert_array_equal(to_numpy(ours), to_numpy(theirs))


def test_encoders_that_share_a_layer(tmp_path):
    """Keras would write a file that it cannot load."""
    shared, views = keras.layers.Dense(4), list(np.ones((2, BATCH, 3)))
    inputs = [keras.Input((3,)), keras.Input((3,))]
    encoders = [keras.Model(x, keras.layers.Dense(4)(shared(x))) for x in inputs]
    model = CachedContrastiveModel(encoders, CHUNK)
    assert len(model.trainable_variables) == 6
    expected = model.predict(views, verbose=0)
    with pytest.raises(ValueError, match="Expected encoders that share no layers"):
        model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    for variable in model.trainable_variables:
        variable.assign(np.zeros(variable.shape))
    model.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(model.predict(views, verbose=0), expected)


@pytest.mark.parametrize("chunk_size", [0, -1, 2.0, True])
def test_a_bad_chunk_size_is_an_error(chunk_size):
    with pytest.raises(ValueError, match="chunk_size to be an int of at least 1"):
        CachedContrastiveModel(new_encoder(), chunk_size)


@pytest.mark.parametrize("encoder", [keras.Sequential([keras.layers.Dense(2)]), [], abs])
def test_an_encoder_without_weights_is_an_error(encoder):
    with pytest.raises(ValueError, match="keras.Model that has its weights"):
        CachedContrastiveModel(encoder, 2)


def test_bad_views_are_errors():
    model = CachedContrastiveModel([new_encoder(), new_encoder()], 2)
    with pytest.raises(ValueError, match="3 views for 2 encoders"):
        model(new_views((5, 5, 5)))
    with pytest.raises(ValueError, match="as many rows in all views. Received: \\[3, 8\\]"):
        model([*new_views((5,)), *new_views((5,), batch=3)])
    with pytest.raises(ValueError, match="list or tuple of views"):
        CachedContrastiveModel(new_encoder(), 2)(new_views()[0])


def test_encoders_that_give_no_vectors_of_one_width_are_errors():
    inputs = keras.Input((3, 2))
    with pytest.raises(ValueError, match="vectors \\(rows, d\\), all of one width"):
        CachedContrastiveModel(keras.Model(inputs, inputs), 2)([np.ones((2, 3, 2))])
    encoders = [new_encoder(), new_encoder(width=3)]
    with pytest.raises(ValueError, match="vectors \\(rows, d\\), all of one width"):
        CachedContrastiveModel(encoders, 2)(new_views())


def test_losses_of_activities_are_errors():
    with pytest.raises(ValueError, match="an encoder that adds no losses"):
        CachedContrastiveModel(new_encoder(activity="l2"), 2)(new_views())


class Noise(keras.layers.Layer):
    """Its random generator is nobody's attribute."""

    def __init__(self, generator):
        super().__init__()
        self._generator = lambda: generator

    def call(self, inputs):
        return inputs * keras.random.uniform((), seed=self._generator())


def test_random_numbers_that_cannot_be_replayed_are_an_error():
    inputs = keras.Input((3,))
    encoder = keras.Model(inputs, Noise(keras.random.SeedGenerator(1))(inputs))
    with pytest.raises(ValueError, match="changes only its own state"):
        CachedContrastiveModel(encoder, 2)([np.ones((2, 3))])
