import math

import keras
import numpy as np
import pytest
from gradients import to_numpy, value_and_gradient
from keras import ops

from keras_ext.layers.gated_attention_unit import GatedAttentionUnit, check_positions

NORMALIZATIONS = ["squared_relu", "softmax_plus", "softmax"]
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 1, 1]], bool)
CAUSAL = np.tril(np.ones((1, 5, 5), bool))


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(3, 5, 6)).astype("float32")


@pytest.fixture
def sequences(x):
    """Queries, and keys and values of another length and of other widths."""
    rng = np.random.default_rng(1)
    return [x, *(rng.normal(size=(3, 7, size)).astype("float32") for size in (4, 8))]


def made(**arguments):
    """A built layer with random weights; no bias is 0."""
    layer = GatedAttentionUnit(**{"units": 10, "key_size": 4, **arguments})
    layer.build((None, None, 6) if layer.self_attention else [(None, None, n) for n in (6, 4, 8)])
    rng = np.random.default_rng(2)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


def swish(x):
    return x / (1 + np.exp(-x))


def turn(vector, position):
    """Rotary embedding, one pair of channels at a time."""
    pairs = vector[::2] + 1j * vector[1::2]
    size = len(vector)
    pairs = pairs * np.exp(1j * position * 10000.0 ** (-np.arange(0, size, 2) / size))
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(size)


def projections(layer, inputs):
    """Query, key, value and gate, and what is left of the weights, in float64."""
    weights = [weight.astype("float64") for weight in layer.get_weights()]
    if not layer.use_bias:
        weights = [part for weight in weights for part in (weight, 0.0)]
    units = layer.units
    if layer.self_attention:
        kernel, bias, *weights = weights
        if not layer.use_bias:  # beta comes before gamma
            weights = [weights[1], weights[0], weights[3], weights[2], *weights[4:]]
        projected = swish(inputs @ kernel + bias)
        shared = projected[..., 2 * units :]
        query, key = shared * weights[1] + weights[0], shared * weights[3] + weights[2]
        return query, key, projected[..., units : 2 * units], projected[..., :units], weights[4:]
    first, key, value = (
        swish(x @ weights[2 * i] + weights[2 * i + 1]) for i, x in enumerate(inputs)
    )
    return first[..., units:], key, value, first[..., :units], weights[6:]


def scale_of(layer, keys):
    """The factor of the scores of a row that sees so many keys."""
    if layer.score_scale == "paper":
        return 1.0
    scales = {
        True: 1 / math.sqrt(layer.key_size),
        False: 1.0,
        "log_n": math.log(max(keys, 16)) / math.log(512) / math.sqrt(layer.key_size),
    }
    return scales[layer.attention_scale]


def reference(layer, inputs, visible, positions=None):
    """One query at a time, from its visible keys."""
    query, key, value, gate, (kernel, bias) = projections(layer, inputs)
    outputs = np.zeros(gate.shape)
    for b, i in np.ndindex(gate.shape[:2]):
        keys = np.flatnonzero(visible[b, i])
        at = range(max(gate.shape[1], key.shape[1])) if positions is None else positions[b]
        scores = []
        for j in keys:
            q, k = query[b, i], key[b, j]
            if layer.rope:
                distance, window = at[i] - at[j], layer.rope_window or math.inf
                far = max(abs(distance) - window, 0.0) * (1 - layer.rope_slope)
                q = turn(q, distance - math.copysign(far, distance))
            scores.append(q @ k * scale_of(layer, len(keys)))
        if layer.normalization == "squared_relu":
            length = (layer.length_norm or len(keys)) ** (2 if layer.score_scale == "paper" else 1)
            weights = [max(score, 0) ** 2 / length for score in scores]
        else:
            plus = layer.normalization == "softmax_plus"
            factor = math.log(max(len(keys), 16)) / math.log(512) if plus else 1
            exponentials = [math.exp(score * factor) for score in scores]
            weights = [exponential / sum(exponentials) for exponential in exponentials]
        for j, weight in zip(keys, weights, strict=True):
            outputs[b, i] += gate[b, i] * weight * value[b, j]
    return outputs @ kernel + bias


@pytest.mark.slow
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("attention_mask", [None, CAUSAL], ids=["all", "causal"])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"rope": True, "use_bias": False}, {"rope": True, "attention_scale": False}],
    ids=str,
)
def test_output_is_that_of_the_formula(x, normalization, attention_mask, arguments):
    layer = made(normalization=normalization, **arguments)
    visible = MASK[:, None] & (True if attention_mask is None else attention_mask)
    visible = np.broadcast_to(visible, (3, 5, 5))
    output = np.array(layer(x, mask=MASK, attention_mask=attention_mask))
    np.testing.assert_allclose(output, reference(layer, x, visible), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"length_norm": 7},
        {"score_scale": "paper"},
        {"score_scale": "paper", "length_norm": 3.0},
        {"attention_scale": "log_n"},
        {"attention_scale": "log_n", "normalization": "softmax"},
        {"rope_window": 2, "rope": True},
        {"rope_window": 2, "rope_slope": 0.5, "rope": True, "normalization": "softmax_plus"},
    ],
    ids=str,
)
@pytest.mark.parametrize("causal", [False, True])
def test_options_are_those_of_the_formula(x, arguments, causal):
    layer = made(causal=causal, **arguments)
    visible = np.broadcast_to(MASK[:, None] & (CAUSAL if causal else True), (3, 5, 5))
    output = np.array(layer(x, mask=MASK))
    np.testing.assert_allclose(output, reference(layer, x, visible), atol=2e-5, rtol=1e-4)


def test_positions_may_be_floats_in_half_precision(x):
    exact, half = made(rope=True), made(rope=True, dtype="mixed_bfloat16")
    # bfloat16 would round all of these to 1000.
    positions = np.tile(np.array([1000, 1000.5, 1001, 1001.5, 1002], "float32"), (3, 1))
    expected = np.array(exact(x, mask=MASK, positions=positions))
    output = np.array(ops.cast(half(x, mask=MASK, positions=positions), "float32"))
    tolerance = 0.08 * np.abs(expected).max()
    np.testing.assert_allclose(output, expected, atol=tolerance)
    rounded = np.array(exact(x, mask=MASK, positions=0 * positions))
    assert np.abs(rounded - expected).max() > 2 * tolerance


def test_scores_whose_square_is_beyond_float16_do_not_overflow(x):
    exact, half = made(), made(dtype="mixed_float16")
    for layer in (exact, half):
        layer.query_scale_offset.gamma.assign(60 * ops.ones(4))
        layer.output_dense.kernel.assign(1e-4 * layer.output_dense.kernel)
    expected = np.array(exact(x))
    output = np.array(ops.cast(half(x), "float32"))
    assert np.isfinite(output).all()
    np.testing.assert_allclose(output, expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("rope", [False, True])
@pytest.mark.parametrize("use_bias", [False, True])
def test_output_of_three_sequences_is_that_of_the_formula(sequences, normalization, rope, use_bias):
    layer = made(self_attention=False, normalization=normalization, rope=rope, use_bias=use_bias)
    mask = np.random.default_rng(3).random((3, 7)) < 0.7
    output = np.array(layer(sequences, mask=mask))
    expected = reference(layer, sequences, np.broadcast_to(mask[:, None], (3, 5, 7)))
    np.testing.assert_allclose(output, expected, atol=2e-5, rtol=1e-4)
    # Of a list of masks, that of the keys counts.
    both = np.array(layer(sequences, mask=[MASK, mask, None]))
    np.testing.assert_array_equal(both, output)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_no_mask_means_all_are_visible(x, normalization):
    layer = made(normalization=normalization)
    everything = np.array(layer(x, mask=np.ones((3, 5), bool)))
    np.testing.assert_allclose(np.array(layer(x)), everything, atol=1e-6)
    pairs = np.ones((1, 5, 5), bool)
    np.testing.assert_allclose(np.array(layer(x, attention_mask=pairs)), everything, atol=1e-6)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_padding_changes_nothing(x, normalization):
    layer = made(normalization=normalization, rope=True)
    padded = np.concatenate([x, 9 * x[:, :4]], axis=1)
    mask = np.arange(9) < np.full((3, 1), 5)
    output = np.array(layer(padded, mask=mask))[:, :5]
    np.testing.assert_allclose(output, np.array(layer(x)), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_behind_a_causal_mask_what_comes_later_changes_nothing(x, normalization):
    layer = made(normalization=normalization, rope=True)
    later = x.copy()
    later[:, 3:] = 7.0
    before = np.array(layer(x, attention_mask=CAUSAL))
    after = np.array(layer(later, attention_mask=CAUSAL))
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    # A prefix is a sequence of its own: each row counts its own keys.
    prefix = np.array(layer(x[:, :3], attention_mask=CAUSAL[:, :3, :3]))
    np.testing.assert_allclose(before[:, :3], prefix, atol=1e-5, rtol=1e-5)


def test_positions_turn_queries_and_keys_and_only_distances_matter(x):
    layer = made(rope=True)
    positions = np.array([[0, 1, 2, 3, 4], [7, 3, 9, 11, 0], [5, 5, 5, 5, 5]], "int32")
    output = np.array(layer(x, mask=MASK, positions=positions))
    visible = np.broadcast_to(MASK[:, None], (3, 5, 5))
    expected = reference(layer, x, visible, positions)
    np.testing.assert_allclose(output, expected, atol=2e-5, rtol=1e-4)
    shifted = np.array(layer(x, mask=MASK, positions=positions + 40))
    np.testing.assert_allclose(shifted, output, atol=5e-5, rtol=1e-4)
    assert np.abs(output - np.array(layer(x, mask=MASK))).max() > 1e-2


def test_without_rope_the_order_of_the_others_does_not_matter(x):
    layer, order = made(), [3, 0, 4, 2, 1]
    permuted = np.array(layer(x[:, order], mask=MASK[:, order]))
    np.testing.assert_allclose(permuted, np.array(layer(x, mask=MASK))[:, order], atol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("self_attention", [True, False])
def test_where_no_key_is_visible_the_output_is_the_bias(
    x, sequences, policy, normalization, self_attention
):
    layer = made(normalization=normalization, self_attention=self_attention, dtype=policy)
    inputs = x if self_attention else sequences
    mask = np.ones((3, 5 if self_attention else 7), bool)
    mask[1] = False
    pairs = np.ones((1, 5, mask.shape[1]), bool)
    pairs[:, 2] = False
    output = to_numpy(ops.cast(layer(inputs, mask=mask, attention_mask=pairs), "float32"))
    bias = ops.cast(ops.cast(layer.output_dense.bias, layer.compute_dtype), "float32")
    bias = to_numpy(bias)
    np.testing.assert_array_equal(output[1], np.broadcast_to(bias, (5, 6)))
    np.testing.assert_array_equal(output[:, 2], np.broadcast_to(bias, (3, 6)))
    assert np.abs(output[0, 0] - bias).max() > 1e-2


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_gradients_are_finite_where_no_key_is_visible(x, policy, normalization):
    layer = made(normalization=normalization, rope=True, dtype=policy)
    mask = np.ones((3, 5), bool)
    mask[1] = False
    pairs = CAUSAL.copy()
    pairs[0, 2] = False
    values = [variable.value for variable in layer.trainable_variables]

    def call(x, *weights):
        with keras.StatelessScope(zip(layer.trainable_variables, weights, strict=True)):
            return layer(x, mask=mask, attention_mask=pairs)

    _, gradients = value_and_gradient(call, x, *values)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert all(np.abs(gradient).max() > 1e-3 for gradient in gradients)
    assert np.array_equal(gradients[0][1], np.zeros((5, 6)))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_near_float32(x, policy):
    exact, half = made(rope=True), made(rope=True, dtype=policy)
    difference = ops.cast(half(x, mask=MASK), "float32") - exact(x, mask=MASK)
    scale = np.abs(np.array(exact(x, mask=MASK))).max()
    tolerance = 0.01 if policy == "mixed_float16" else 0.08
    assert np.abs(np.array(difference)).max() < tolerance * scale


@pytest.mark.slow
def test_dropout_of_the_weights_acts_in_training_and_keeps_the_mean(x):
    layer = made(normalization="softmax", attention_dropout=0.5)
    quiet = np.array(layer(x, training=False))
    runs = np.stack([np.array(layer(x, training=True)) for _ in range(300)])
    assert np.abs(runs[0] - quiet).max() > 1e-2
    error = np.abs(runs.mean(0) - quiet) / (runs.std(0) / math.sqrt(len(runs)))
    assert error.mean() < 1.5  # standard errors; 0.8 is expected


def test_masks_that_keras_attaches_are_found_and_handed_on():
    tokens = np.array([[3, 1, 2, 0, 0], [1, 1, 1, 1, 1], [2, 0, 0, 0, 0]])
    embedded = keras.layers.Embedding(4, 6, mask_zero=True)(tokens)
    layer = made()
    output = layer(embedded)
    expected = np.array(layer(np.array(embedded), mask=tokens > 0))
    np.testing.assert_array_equal(np.array(output), expected)
    assert np.array_equal(to_numpy(output._keras_mask), tokens > 0)
    layer = made(self_attention=False)
    keys = keras.layers.Embedding(4, 4, mask_zero=True)(tokens[:, ::-1])
    values = np.random.default_rng(4).normal(size=(3, 5, 8)).astype("float32")
    output = layer([embedded, keys, ops.convert_to_tensor(values)])
    arrays = [np.array(embedded), np.array(keys), values]
    explicit = layer(arrays, mask=tokens[:, ::-1] > 0)
    np.testing.assert_array_equal(np.array(output), np.array(explicit))
    assert np.array_equal(to_numpy(output._keras_mask), tokens > 0)
    # A mask of keys is none of the output, which is as long as the queries.
    assert getattr(explicit, "_keras_mask", None) is None


@pytest.mark.parametrize("use_bias", [False, True])
def test_weights_are_in_the_order_of_bert4keras(use_bias):
    def names(layer):
        return [weight.path.split("/", 1)[1] for weight in layer.weights]

    def both(name, first, second):
        return [f"{name}/{kind}" for kind, used in ((first, True), (second, use_bias)) if used]

    def dense(name):
        return both(name, "kernel", "bias")

    layer = made(use_bias=use_bias)
    scales = [name for part in ("query", "key") for name in both(part, "gamma", "beta")[::-1]]
    assert names(layer) == [*dense("input"), *scales, *dense("output")]
    assert layer.input_dense.kernel.shape == (6, 2 * 10 + 4)
    layer = made(use_bias=use_bias, self_attention=False)
    parts = ("query_gate", "key", "value", "output")
    assert names(layer) == [name for part in parts for name in dense(part)]


@pytest.mark.slow
def test_a_model_of_three_sequences_is_saved_and_trains(sequences, tmp_path):
    inputs = [keras.Input((None, x.shape[-1])) for x in sequences]
    layer = GatedAttentionUnit(10, 4, "gelu_tanh", self_attention=False, rope=True)
    model = keras.Model(inputs, layer(inputs))
    model.compile("sgd", "mse")
    first = model.evaluate(sequences, sequences[0], verbose=0)
    model.fit(sequences, sequences[0], epochs=3, verbose=0)
    assert model.evaluate(sequences, sequences[0], verbose=0) < first
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.predict(sequences, verbose=0), model.predict(sequences, verbose=0)
    )


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"key_size": 3, "rope": True}, "must be even. Received: key_size=3"),
        ({"units": 0}, "must be positive. Received: units=0"),
        ({"key_size": 0}, "must be positive.*key_size=0"),
        ({"normalization": "relu2"}, "'softmax_plus'.*Received: normalization='relu2'"),
        ({"activation": "swich"}, "swich"),
        ({"score_scale": "blog"}, "'bert4keras', 'paper'.*Received: score_scale='blog'"),
        ({"score_scale": "paper", "attention_scale": False}, "takes the place.*scale=False"),
        ({"score_scale": "paper", "normalization": "softmax"}, "are options of"),
        ({"length_norm": 0}, "must be above 0. Received: length_norm=0"),
        ({"length_norm": 9, "normalization": "softmax_plus"}, "are options of.*length_norm=9"),
        ({"normalization": "softmax_plus", "attention_scale": "log_n"}, "factor log n of its own"),
        ({"causal": True, "self_attention": False}, "no common order"),
        ({"rope_window": 3}, "needs rope=True"),
        ({"attention_scale": "logn"}, "Unknown scale of attention.*'logn'"),
    ],
)
def test_bad_arguments_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        made(**arguments)


def test_positions_serve_queries_and_keys_of_one_length_only(sequences):
    layer = made(self_attention=False, rope=True)
    with pytest.raises(ValueError, match="as many then. Received: 5 queries, 7 keys"):
        layer(sequences, positions=np.arange(5))
    # Of a length that a compiled function leaves open nothing can be said.
    check_positions(np.arange(5), (None, None, 4), (None, 5, 4))


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="nested tapes are TensorFlow's")
def test_the_gradient_can_be_differentiated_again(x):
    import tensorflow as tf

    layer = made(normalization="softmax")
    x = tf.constant(x)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x) ** 2)
        return tape.gradient(loss, x)

    with tf.GradientTape() as tape:
        tape.watch(x)
        size = tf.reduce_sum(gradient(x) ** 2)
    second = tape.gradient(size, x)
    direction = tf.random.stateless_normal(x.shape, (1, 2))
    step = 1e-3
    sizes = [tf.reduce_sum(gradient(x + sign * step * direction) ** 2) for sign in (1, -1)]
    slope = float(sizes[0] - sizes[1]) / (2 * step)
    assert float(tf.reduce_sum(second * direction)) == pytest.approx(slope, rel=0.02)


def test_the_wrong_number_of_inputs_is_refused(x, sequences):
    with pytest.raises(ValueError, match="Expected one tensor.*Received: 3 inputs"):
        GatedAttentionUnit(10, 4)(sequences)
    for inputs in (x, sequences[:2]):
        with pytest.raises(ValueError, match="list of query, key and value. Received: input_shape"):
            GatedAttentionUnit(10, 4, self_attention=False)(inputs)
