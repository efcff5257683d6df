import json

import keras
import numpy as np
import pytest
from gradients import differentiated, to_numpy
from harness_backend import compiled
from keras import ops

from keras_ext.layers.deepnorm_residual import DeepNormResidual
from keras_ext.layers.feed_forward import FeedForward
from keras_ext.layers.multi_head_self_attention import MultiHeadSelfAttention
from keras_ext.layers.ramped_residual import RampedResidual
from keras_ext.layers.scanned_blocks import ScannedBlocks

pytestmark = pytest.mark.slow

MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0]], bool)


@keras.saving.register_keras_serializable(package="tests_scanned")
class Block(keras.layers.Layer):
    """Attention and feed-forward, each in a residual, with dropout between."""

    def __init__(self, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.dropout = dropout
        policy = self.dtype_policy
        self.attention = MultiHeadSelfAttention(2, 3, dtype=policy, name="attention")
        self.drop = keras.layers.Dropout(dropout, dtype=policy, name="drop")
        self.first = DeepNormResidual(1.5, dtype=policy, name="first")
        self.feed_forward = FeedForward(8, dtype=policy, name="feed_forward")
        self.second = DeepNormResidual(1.5, dtype=policy, name="second")
        self.supports_masking = True

    def build(self, input_shape):
        for part in (self.attention, self.drop, self.feed_forward):
            part.build(input_shape)
        self.first.build([input_shape, input_shape])
        self.second.build([input_shape, input_shape])

    def call(self, inputs, mask=None, attention_mask=None):
        attended = self.attention(inputs, mask=mask, attention_mask=attention_mask)
        x = self.first([inputs, self.drop(attended)])
        return self.second([x, self.feed_forward(x)])

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "dropout": self.dropout}


@keras.saving.register_keras_serializable(package="tests_scanned")
class Branch(keras.layers.Layer):
    """A residual around any layers."""

    def __init__(self, layers, residual=None, **kwargs):
        super().__init__(**kwargs)
        self.parts = layers
        self.residual = residual or keras.layers.Add()
        self.supports_masking = True

    def call(self, inputs):
        x = inputs
        for part in self.parts:
            x = part(x)
        return self.residual([inputs, x])

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        layers = [serialize(part) for part in self.parts]
        return {**super().get_config(), "layers": layers, "residual": serialize(self.residual)}

    @classmethod
    def from_config(cls, config):
        read = keras.saving.deserialize_keras_object
        layers = [read(part) for part in config["layers"]]
        return cls(**{**config, "layers": layers, "residual": read(config["residual"])})


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 5, 6)).astype("float32")


def stack(depth=3, block=None, **arguments):
    layer = ScannedBlocks(block or Block(), depth, **arguments)
    layer.build((None, None, 6))
    return layer


def unrolled(layer, pattern):
    """Blocks of their own with the weights of a stack, one after the other, as a function."""
    weights = [to_numpy(weight) for weight in layer.weights]
    blocks = []
    for i in range(layer.depth):
        block = type(pattern).from_config({**pattern.get_config(), "name": f"block_{i}"})
        block(keras.KerasTensor((None, None, 6)))
        own = [w for w in block.weights if w.trainable] + [
            w for w in block.weights if not w.trainable
        ]
        for variable, values in zip(own, weights, strict=True):
            variable.assign(values[i])
        blocks.append(block)

    def call(x, **arguments):
        for block in blocks:
            x = block(x, **arguments)
        return x

    return blocks, call


@pytest.mark.parametrize("way", ["plain", "compiled"])
def test_it_equals_the_blocks_one_after_the_other_in_value_and_gradient(x, way):
    layer = stack()
    blocks, call = unrolled(layer, Block())
    causal = np.tril(np.ones((1, 5, 5), bool))

    def scanned(x, *weights):
        with keras.StatelessScope(zip(layer.weights, weights, strict=True)):
            return layer(x, mask=MASK, attention_mask=causal) * np.arange(6.0, dtype="float32")

    def one_by_one(x, *stacks):
        values = [stack[i] for i in range(3) for stack in stacks]
        variables = [variable for block in blocks for variable in block.weights]
        with keras.StatelessScope(zip(variables, values, strict=True)):
            return call(x, mask=MASK, attention_mask=causal) * np.arange(6.0, dtype="float32")

    weights = [to_numpy(weight) for weight in layer.weights]
    value, gradients = differentiated(scanned, way == "compiled")(x, *weights)
    expected, exact = differentiated(one_by_one, way == "compiled")(x, *weights)
    np.testing.assert_allclose(value, expected, atol=1e-5)
    for gradient, other in zip(gradients, exact, strict=True):
        np.testing.assert_allclose(gradient, other, atol=1e-5 * max(1, np.abs(other).max()))
        assert gradient.ndim == 3 or np.abs(gradient).max() > 0


def test_every_block_gets_the_mask(x):
    layer = stack()
    _, call = unrolled(layer, Block())
    np.testing.assert_allclose(
        to_numpy(layer(x, mask=MASK)), to_numpy(call(x, mask=MASK)), atol=1e-5
    )
    other = np.where(MASK[..., None], x, 7.0).astype("float32")
    before, after = to_numpy(layer(x, mask=MASK)), to_numpy(layer(other, mask=MASK))
    np.testing.assert_allclose(after[MASK], before[MASK], atol=1e-6)
    assert np.abs(to_numpy(layer(x)) - before).max() > 1e-2


@pytest.mark.parametrize("takes_mask", [True, False])
def test_a_mask_that_keras_attaches_reaches_the_blocks_and_what_follows(takes_mask):
    tokens = np.array([[3, 1, 2, 0, 0], [1, 1, 1, 1, 1]])
    embedded = keras.layers.Embedding(4, 6, mask_zero=True)(tokens)
    pattern = Block() if takes_mask else Branch([MultiHeadSelfAttention(2, 3)])
    layer = stack(block=pattern)
    output = layer(embedded)
    assert np.array_equal(to_numpy(output._keras_mask), tokens > 0)
    _, call = unrolled(layer, pattern)
    np.testing.assert_allclose(to_numpy(output), to_numpy(call(embedded)), atol=1e-5)
    assert np.abs(to_numpy(layer(to_numpy(embedded))) - to_numpy(output)).max() > 1e-3


def trace_size(depth):
    """Operations of the trace of a stack, and of its value and gradient."""
    layer = stack(depth)
    x = ops.ones((2, 5, 6))
    if keras.backend.backend() == "jax":
        import jax

        def total(x):
            return ops.sum(layer(x))

        return [str(jax.make_jaxpr(f)(x)).count("\n") for f in (total, jax.grad(total))]
    import tensorflow as tf

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = ops.sum(layer(x))
        return tape.gradient(value, [x, *(v.value for v in layer.trainable_variables)])

    sizes = []
    for function in (layer, gradient):
        graph = tf.function(function, autograph=False).get_concrete_function(x)
        graph = graph.graph.as_graph_def()
        sizes.append(len(graph.node) + sum(len(f.node_def) for f in graph.library.function))
    return sizes


def test_the_trace_does_not_grow_with_the_depth():
    # TensorFlow makes zeros in one operation or two, by their number.
    assert np.all(np.array(trace_size(50)) <= 1.02 * np.array(trace_size(2)))


def test_weights_are_stacked_and_drawn_for_each_depth():
    layer, pattern = stack(4), Block()
    pattern.build((None, None, 6))
    assert [tuple(w.shape) for w in layer.weights] == [(4, *w.shape) for w in pattern.weights]
    for weight in layer.weights:
        values = to_numpy(weight)
        differ = np.abs(values[1:] - values[0]).max(axis=tuple(range(1, values.ndim))) > 0
        assert differ.all() == ("kernel" in weight.path), weight.path
    kernel = to_numpy(layer.weights[0])  # glorot_uniform of 6 x 6
    assert 0.4 < np.abs(kernel).max() <= np.sqrt(6 / 12)


def test_an_initializer_with_a_seed_draws_anew_for_each_depth_and_the_same_again():
    def kernel():
        initializer = keras.initializers.RandomNormal(seed=7)
        layer = stack(block=Branch([keras.layers.Dense(6, kernel_initializer=initializer)]))
        return to_numpy(layer.weights[0])

    values = kernel()
    assert np.abs(values[0] - values[1]).max() > 0 and np.abs(values[1] - values[2]).max() > 0
    np.testing.assert_array_equal(kernel(), values)


def test_seeds_stay_in_their_range():
    initializer = keras.initializers.RandomNormal(seed=2**32 - 1)
    layer = stack(block=keras.layers.Dense(6, kernel_initializer=initializer))
    values = to_numpy(layer.weights[0])
    assert np.abs(values[1] - values[0]).max() > 0


def test_a_block_without_weights_is_stacked(x):
    layer = stack(3, keras.layers.Rescaling(2.0))
    value, (gradient,) = differentiated(layer)(x)
    np.testing.assert_allclose(value, 8 * x, rtol=1e-6)
    np.testing.assert_allclose(gradient, 8 + 0 * x, rtol=1e-6)


def test_freezing_a_stack_counts_for_weights_and_not_for_state(x):
    layer = stack(2, keras.layers.BatchNormalization())
    layer.trainable = False
    assert not layer.trainable_weights
    before = {weight.path: to_numpy(weight) for weight in layer.weights}
    layer(5 + x, training=True)
    for weight in layer.weights:
        changed = np.abs(to_numpy(weight) - before[weight.path]).max() > 0
        assert changed == ("moving" in weight.path), weight.path


def test_paths_are_those_of_the_block():
    paths = [weight.path for weight in stack(block=Block(name="block"), name="deep").weights]
    assert paths[0] == "deep/block/attention/query/kernel"
    assert all(path.startswith("deep/block/") for path in paths)


@pytest.mark.parametrize("jit", [False, True])
def test_dropout_differs_by_depth_and_by_call_and_rests_in_inference(jit):
    # Each block adds 1 where nothing is dropped, so that a sum of 3 means: kept in all three.
    layer = stack(block=Branch([Ones(), keras.layers.Dropout(0.5)]))
    zeros = np.zeros((2, 50, 6), "float32")

    def run(state, x):
        variables = layer.non_trainable_variables
        with keras.StatelessScope(zip(variables, state, strict=True)) as scope:
            output = layer(x, training=True)
        return output, [scope.get_current_value(variable) for variable in variables]

    run = compiled(run) if jit else run
    state = [ops.copy(variable) for variable in layer.non_trainable_variables]
    (first, state), x = run(state, zeros), zeros
    second, _ = run(state, x)
    kept = to_numpy(first) / 2
    # Dropped alike at every depth, only 0 and 3 would come.
    assert np.isin(kept, [0, 1, 2, 3]).all() and 0.2 < np.isin(kept, [1, 2]).mean() < 0.95
    assert abs(kept.mean() - 1.5) < 0.2
    assert np.abs(to_numpy(second) - to_numpy(first)).max() > 0
    np.testing.assert_array_equal(to_numpy(layer(zeros)), zeros + 3)


@keras.saving.register_keras_serializable(package="tests_scanned")
class Ones(keras.layers.Layer):
    def call(self, inputs):
        return ops.ones_like(inputs)

    def get_config(self):
        return super().get_config()


@pytest.mark.parametrize("jit", [False, True])
def test_the_state_of_each_depth_is_kept(x, jit):
    pattern = Branch(
        [keras.layers.Dense(6), keras.layers.BatchNormalization()], RampedResidual(steps=4)
    )
    scanned = stack(block=pattern)
    blocks, call = unrolled(scanned, pattern)
    inputs = keras.Input((None, 6))
    model = keras.Model(inputs, scanned(inputs))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit)
    other = keras.Sequential([keras.Input((None, 6)), *blocks])
    other.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit)
    for one in (model, other):
        one.fit(x, x[::-1], epochs=3, batch_size=2, shuffle=False, verbose=0)
    for i, block in enumerate(blocks):
        own = [w for w in block.weights if w.trainable] + [
            w for w in block.weights if not w.trainable
        ]
        for weight, values in zip(own, scanned.weights, strict=True):
            error = np.abs(to_numpy(values)[i] - to_numpy(weight)).max()
            assert error < 1e-5, (weight.path, error)
    counter = next(w for w in scanned.weights if w.path.endswith("counter"))
    np.testing.assert_array_equal(to_numpy(counter), [3.0, 3.0, 3.0])
    before = [to_numpy(weight) for weight in model.weights]
    np.testing.assert_allclose(model.predict(x, verbose=0), other.predict(x, verbose=0), atol=1e-5)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), old)


@pytest.mark.parametrize("jit", [False, True])
def test_a_model_trains_and_reloads_with_the_same_bits(x, tmp_path, jit):
    inputs = keras.Input((None, 6))
    pattern = Branch([FeedForward(8), keras.layers.Dropout(0.1)], DeepNormResidual(1.5))
    model = keras.Model(inputs, stack(4, pattern)(inputs))
    model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=jit)
    model.fit(x, x[::-1], epochs=12, verbose=0)
    losses = model.history.history["loss"]
    assert losses[-1] < 0.7 * losses[0], losses
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.array(again(x)), np.array(model(x)))


def test_a_model_that_is_built_while_it_is_traced_begins_with_weights_for_each_depth(x):
    model = keras.Sequential([ScannedBlocks(Block(), 3), keras.layers.Dense(6)])
    model.compile("sgd", "mse")
    model.fit(x, x, verbose=0)
    kernel = to_numpy(model.weights[0])
    assert kernel.shape == (3, 6, 6) and np.abs(kernel[1:] - kernel[0]).max() > 0.1


@keras.saving.register_keras_serializable(package="tests_scanned")
class Count(keras.layers.Layer):
    """Counts its calls, in inference, too."""

    def build(self, input_shape):
        self.calls = self.add_weight((), initializer="zeros", trainable=False, name="calls")

    def call(self, inputs):
        self.calls.assign(self.calls + 1.0)
        return inputs + self.calls

    def get_config(self):
        return super().get_config()


def test_inference_changes_no_state(x):
    layer = stack(block=Branch([Count()], keras.layers.Average()))
    for training, calls in [(False, 0), (True, 1), (True, 2), (False, 2)]:
        layer(x, training=training)
        np.testing.assert_array_equal(to_numpy(layer.weights[0]), [calls] * 3)


def test_config_holds_the_block_and_makes_the_same_stack():
    layer = ScannedBlocks(Block(dropout=0.25), 5, name="deep")
    config = json.loads(json.dumps(layer.get_config()))
    again = ScannedBlocks.from_config(config)
    assert again.get_config() == layer.get_config() and again.depth == 5
    assert config["block"]["config"]["dropout"] == 0.25
    layer.build((None, None, 6))
    assert layer.get_config() == json.loads(json.dumps(again.get_config()))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_near_float32_and_finite_where_all_is_masked(x, policy):
    exact, half = stack(), stack(block=Block(dtype=policy))
    assert half.compute_dtype == keras.DTypePolicy(policy).compute_dtype
    half.set_weights(exact.get_weights())
    mask = MASK.copy()
    mask[1] = False

    def gradient(x, *weights):
        with keras.StatelessScope(zip(half.weights, weights, strict=True)):
            return half(x, mask=mask)

    value, gradients = differentiated(gradient)(x, *half.get_weights())
    assert keras.backend.standardize_dtype(value.dtype) == half.compute_dtype
    error = np.abs(value.astype("float32") - to_numpy(exact(x, mask=mask))).max()
    assert error < (0.02 if policy == "mixed_float16" else 0.15)
    assert all(np.isfinite(part.astype("float32")).all() for part in gradients)


def test_frozen_parts_of_a_block_stay(x):
    frozen = keras.layers.Dense(6, name="frozen", trainable=False)
    layer = stack(block=Branch([frozen, keras.layers.Dense(6, name="dense")]))
    assert [w.path.split("/")[-2] for w in layer.trainable_weights] == ["dense"] * 2
    assert [w.path.split("/")[-2] for w in layer.non_trainable_weights] == ["frozen"] * 2


class Pair(keras.layers.Layer):
    def call(self, inputs, other, scale=1.0, **kwargs):
        return scale * (inputs + other)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: stack(0), "at least 1. Received: depth=0"),
        (lambda: stack(block=Branch([keras.layers.Dense(6)]), depth=-1), "depth=-1"),
        (lambda: stack(block=keras.layers.Dense(7)), "keeps the shape.*output_shape"),
        (
            lambda: stack(block=keras.Sequential([keras.Input((None, 6)), keras.layers.Dense(6)])),
            "has not been built.*not a functional model.*block=sequential",
        ),
        (lambda: stack(block=Pair(name="pair")), "block=pair, which also needs other"),
        (
            lambda: stack(block=keras.layers.Dense(6, kernel_constraint="non_neg")),
            "without constraint.*kernel",
        ),
        (
            lambda: stack(block=keras.layers.Dense(6, kernel_regularizer="l2")),
            "without constraint and regularizer.*kernel",
        ),
        (
            lambda: stack(block=keras.layers.Dense(6, activity_regularizer="l2"))(
                np.ones((1, 2, 6), "float32")
            ),
            "adds no losses.*1 losses",
        ),
    ],
)
def test_what_cannot_be_stacked_is_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
