import math

import keras
import numpy as np
import pytest
from gradients import differentiated, numerical_gradient, to_numpy, value_and_gradient
from keras import ops

from keras_ext.layers.mixed_chunk_attention import MixedChunkAttention, sum_of_earlier

CHUNK = 4
LENGTHS = [1, 3, 4, 8, 11]  # below a chunk, one and two of them, and a rest
POLICIES = ["float32", "mixed_float16", "mixed_bfloat16"]


def made(**arguments):
    """A built layer with random weights; no bias is 0."""
    arguments = {"units": 10, "key_size": 4, "chunk_size": CHUNK, **arguments}
    layer = MixedChunkAttention(**arguments)
    layer.build((None, None, 6))
    rng = np.random.default_rng(2)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


def tokens(length, batch=2, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, length, 6)).astype("float32")


def holes(length):
    """Two rows with hidden tokens, among them the first and the last."""
    mask = np.random.default_rng(length).random((2, length)) < 0.6
    mask[0, 0] = mask[1, -1] = False
    return mask


def swish(x):
    return x / (1 + np.exp(-x))


def turn(vector, position):
    """Rotary embedding, one pair of channels at a time."""
    pairs = vector[::2] + 1j * vector[1::2]
    size = len(vector)
    pairs = pairs * np.exp(1j * position * 10000.0 ** (-np.arange(0, size, 2) / size))
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(size)


def usual(keys, size):
    return 1 / math.sqrt(size)


def reference(layer, inputs, mask, positions=None, scale=usual):
    """One token at a time, each sum over the tokens that it may hold, in float64."""
    weights = [weight.astype("float64") for weight in layer.get_weights()]
    if not layer.use_bias:
        weights = [weights[0], 0.0, *(x for w in weights[1:5] for x in (0.0, w)), weights[5], 0.0]
    kernel, bias, *heads, output_kernel, output_bias = weights
    inputs, units, size = inputs.astype("float64"), layer.units, layer.key_size
    projected = swish(inputs @ kernel + bias)
    gate, value = projected[..., :units], projected[..., units : 2 * units]
    shared = projected[..., 2 * units :]
    heads = [shared * gamma + beta for beta, gamma in zip(heads[::2], heads[1::2], strict=True)]
    batch, length = mask.shape
    positions = np.arange(length) if positions is None else positions
    positions = np.broadcast_to(positions, (batch, length))
    if layer.rope:
        for head in heads:
            for b, i in np.ndindex(batch, length):
                head[b, i] = turn(head[b, i], positions[b, i])
    query, key, far_query, far_key = heads
    outputs = np.zeros(gate.shape)
    for b, i in np.ndindex(batch, length):
        start = i - i % layer.chunk_size
        near = range(start, i + 1 if layer.causal else min(start + layer.chunk_size, length))
        near = [j for j in near if mask[b, j]]
        for j in near:
            score = query[b, i] @ key[b, j] * scale(max(len(near), 1), size)
            outputs[b, i] += max(score, 0) ** 2 / len(near) * value[b, j]
        far = [j for j in range(start if layer.causal else length) if mask[b, j]]
        for j in far:
            outputs[b, i] += far_query[b, i] @ far_key[b, j] / len(far) * value[b, j]
    return (gate * outputs) @ output_kernel + output_bias


@pytest.mark.parametrize("causal", [False, True])
def test_scores_are_scaled_by_the_keys_that_a_token_sees_in_its_chunk(causal):
    def scale(keys, size):
        return 0.3 * keys / size

    x, mask = tokens(11), holes(11)
    layer = made(causal=causal, attention_scale=scale)
    expected = reference(layer, x, mask, scale=scale)
    np.testing.assert_allclose(np.array(layer(x, mask=mask)), expected, atol=2e-5, rtol=1e-4)
    usual_layer = made(causal=causal, attention_scale=0.5)
    expected = reference(usual_layer, x, mask)  # 1 / sqrt(4)
    np.testing.assert_allclose(np.array(usual_layer(x, mask=mask)), expected, atol=2e-5, rtol=1e-4)


def test_what_hidden_tokens_hold_does_not_matter_even_if_it_is_not_a_number():
    x, mask = tokens(11), holes(11)
    layer = made(causal=True)
    broken = np.where(mask[..., None], x, np.nan).astype("float32")
    visible = np.array(layer(broken, mask=mask))[mask]
    np.testing.assert_array_equal(
        visible, np.array(layer(np.where(mask[..., None], x, 0), mask=mask))[mask]
    )


@pytest.mark.slow
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("arguments", [{}, {"rope": True, "use_bias": False}], ids=str)
def test_output_is_that_of_the_formula(length, causal, arguments):
    layer, x = made(causal=causal, **arguments), tokens(length)
    everything = np.ones((2, length), bool)
    expected = reference(layer, x, everything)
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=2e-5, rtol=1e-4)
    output = to_numpy(layer(x, mask=everything))
    np.testing.assert_allclose(output, expected, atol=2e-5, rtol=1e-4)
    mask = holes(length)
    output = to_numpy(layer(x, mask=mask))
    np.testing.assert_allclose(output, reference(layer, x, mask), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
def test_a_chunk_that_holds_all_leaves_only_the_quadratic_part_when_causal(causal):
    """Then it is squared relu attention over the sequence, without the linear part."""
    layer, x = made(causal=causal, chunk_size=64), tokens(5)
    weights = layer.get_weights()
    changed = [2 * w if i in (6, 7) else w for i, w in enumerate(weights)]  # those of q'
    before = to_numpy(layer(x))
    layer.set_weights(changed)
    assert np.array_equal(to_numpy(layer(x)), before) == causal


@pytest.mark.slow
@pytest.mark.parametrize("rope", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_when_causal_no_token_changes_an_output_before_it(rope, masked):
    layer, x = made(causal=True, rope=rope), tokens(11)
    mask = holes(11) if masked else None
    before = to_numpy(layer(x, mask=mask))
    for j in range(11):
        other = x.copy()
        other[:, j] = 1e3 * x[::-1, j] + 7.0
        after = to_numpy(layer(other, mask=mask))
        np.testing.assert_array_equal(after[:, :j], before[:, :j])
        assert np.abs(after[:, j] - before[:, j]).max() > 1e-2
    # Neither does XLA's sum, which may add in another order.
    compiled = differentiated(lambda x: layer(x, mask=mask), compiled=True)
    before = compiled(x)[0]
    for j in (3, 4, 9):
        other = x.copy()
        other[:, j] *= -1e3
        np.testing.assert_array_equal(compiled(other)[0][:, :j], before[:, :j])


def test_when_not_causal_every_token_reaches_every_output():
    layer, x = made(), tokens(11)
    before = to_numpy(layer(x))
    for j in range(11):
        other = x.copy()
        other[:, j] += 1.0
        assert (np.abs(to_numpy(layer(other)) - before).max(axis=(0, 2)) > 1e-4).all()


def test_the_sum_of_earlier_chunks_is_no_difference():
    """A running sum minus the chunk itself would give 0 here, where 1 is the truth."""
    chunks = np.array([[1.0, 1e9, 3.0]], "float32")[..., None]
    sums = to_numpy(sum_of_earlier(ops.convert_to_tensor(chunks)))[0, :, 0]
    assert sums[:2].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("causal", [False, True])
def test_padding_changes_nothing(causal):
    layer, x = made(causal=causal, rope=True), tokens(7)
    expected = to_numpy(layer(x))
    for more in (1, 2, 6):
        padded = np.concatenate([x, 9 * tokens(more, seed=1)], axis=1)
        mask = np.arange(7 + more) < np.full((2, 1), 7)
        output = to_numpy(layer(padded, mask=mask))[:, :7]
        np.testing.assert_allclose(output, expected, atol=2e-5, rtol=1e-5)


def test_positions_turn_all_heads_and_only_distances_matter():
    layer, x = made(rope=True, causal=True), tokens(6)
    positions = np.array([[0, 1, 2.5, 3, 4, 9], [7, 3, 9, 11, 0, 0.25]], "float32")
    expected = reference(layer, x, np.ones((2, 6), bool), positions)
    output = to_numpy(layer(x, positions=positions))
    np.testing.assert_allclose(output, expected, atol=2e-5, rtol=1e-4)
    shifted = to_numpy(layer(x, positions=positions + 40))
    np.testing.assert_allclose(shifted, output, atol=5e-5, rtol=1e-4)
    one = to_numpy(layer(x, positions=positions[0]))
    np.testing.assert_allclose(one[0], output[0], atol=1e-5)
    integers = to_numpy(layer(x, positions=np.arange(6)))
    np.testing.assert_allclose(integers, to_numpy(layer(x)), atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_near_float32_and_keeps_float_positions(policy):
    exact, half = (made(rope=True, causal=True, dtype=dtype) for dtype in ("float32", policy))
    # 1000.5 would be 1000 in bfloat16, and half a turn of a radian off.
    x, positions = tokens(9), np.arange(9, dtype="float32") * np.float32(1000.5)
    expected = to_numpy(exact(x, positions=positions))
    output = half(x, positions=positions)
    assert output.dtype == half.compute_dtype
    error = np.abs(to_numpy(ops.cast(output, "float32")) - expected).max()
    assert error < (0.01 if policy == "mixed_float16" else 0.08) * np.abs(expected).max()


def derivative(layer, x, mask, compiled=False):
    """The output, and the gradients of its sum by the inputs and all weights."""
    values = [variable.value for variable in layer.trainable_variables]

    def call(x, *weights):
        with keras.StatelessScope(zip(layer.trainable_variables, weights, strict=True)):
            return layer(x, mask=mask)

    return value_and_gradient(call, x, *values, compiled=compiled)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("causal", [False, True])
def test_where_all_is_hidden_the_output_is_the_bias_and_no_gradient_is_nan(policy, causal):
    layer, x = made(causal=causal, rope=True, dtype=policy), tokens(6)
    mask = np.ones((2, 6), bool)
    mask[1] = False
    output, gradients = derivative(layer, x, mask)
    bias = ops.cast(ops.cast(layer.output_dense.bias, layer.compute_dtype), "float32")
    expected = np.broadcast_to(to_numpy(bias), (6, 6))
    np.testing.assert_array_equal(output[1].astype("float32"), expected)
    assert np.abs(output[0].astype("float32") - expected).max() > 1e-2
    assert all(np.isfinite(gradient.astype("float32")).all() for gradient in gradients)
    assert all(np.abs(gradient).max() > 1e-3 for gradient in gradients)
    assert np.array_equal(gradients[0][1], np.zeros((6, 6)))


@pytest.mark.parametrize("causal", [False, True])
def test_large_scores_and_sums_overflow_nothing_in_float16(causal):
    """The squares of scores, the sums of k'^T v and what they give are beyond 65504."""
    half, exact = (
        made(causal=causal, key_size=16, chunk_size=8, dtype=dtype)
        for dtype in ("mixed_float16", "float32")
    )
    gate, value, shared, near, far = 1e-4, 256.0, 32.0, 0.07, 1e-3
    assert (near * shared**2 * 16 / 4) ** 2 > 65504
    assert shared * value * 8 > 65504
    gammas = [x for gamma in (near, 1.0, far, 1.0) for x in (np.zeros(16), np.full(16, gamma))]
    bias = np.repeat([gate, value, shared], [10, 10, 16])
    kernel = np.tile(np.repeat([0.0, 1.0], [10, 26]), (6, 1))
    weights = [kernel, bias, *gammas, np.full((10, 6), 1e-5), np.zeros(6)]
    x = np.full((1, 16, 6), 1e-3, "float32")
    for layer in (half, exact):
        layer.set_weights(weights)
    output, gradients = derivative(half, x, None)
    expected, others = derivative(exact, x, None)
    np.testing.assert_allclose(output.astype("float32"), expected, rtol=0.02)
    for ours, theirs in zip(gradients, others, strict=True):
        ours = ours.astype("float32")
        np.testing.assert_allclose(ours, theirs, rtol=0.05, atol=0.02 * np.abs(theirs).max())


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [3, 11])
def test_xla_equals_eager(causal, length):
    layer, x = made(causal=causal, rope=True), tokens(length)
    results = [derivative(layer, x, holes(length), compiled) for compiled in (False, True)]
    (eager, gradients), (compiled, others) = results
    np.testing.assert_allclose(compiled, eager, atol=1e-5 * np.abs(eager).max())
    for ours, theirs in zip(gradients, others, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5 * max(np.abs(ours).max(), 1))


@pytest.mark.parametrize("causal", [False, True])
def test_gradient_is_that_of_the_formula(causal):
    layer, x = made(causal=causal), tokens(6)
    expected = numerical_gradient(lambda x: reference(layer, x, holes(6)), x)
    _, gradients = derivative(layer, x, holes(6))
    np.testing.assert_allclose(gradients[0], expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
def test_a_model_of_unknown_length_trains(causal):
    """Traced with the length None; of lengths below a chunk, and of none of its multiples."""
    inputs = keras.Input((None, 6))
    layer = MixedChunkAttention(8, 4, CHUNK, causal=causal, rope=True, attention_dropout=0.1)
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    short, long = tokens(3, 4), tokens(10, 4)
    first = model.evaluate(long, long, verbose=0)
    for x in (long, short, long):
        model.fit(x, x, verbose=0)
    assert model.evaluate(long, long, verbose=0) < first
    for x in (short, long):
        np.testing.assert_allclose(model.predict(x, verbose=0), to_numpy(layer(x)), atol=1e-5)


@pytest.mark.slow
def test_dropout_of_the_weights_acts_in_training_and_keeps_the_mean():
    keras.utils.set_random_seed(0)
    layer, x = made(attention_dropout=0.5), tokens(8, batch=30)
    quiet = to_numpy(layer(x, training=False))
    runs = np.stack([to_numpy(layer(x, training=True)) for _ in range(100)])
    assert np.abs(runs[0] - quiet).max() > 1e-2
    error = np.abs(runs.mean(0) - quiet).mean() / (runs.std(0) / math.sqrt(len(runs))).mean()
    assert error < 1.5  # standard errors; 0.8 is expected


def test_a_mask_that_keras_attaches_is_found_and_handed_on():
    ids = np.array([[3, 1, 2, 0, 0], [1, 1, 1, 1, 1]])
    embedded = keras.layers.Embedding(4, 6, mask_zero=True)(ids)
    layer = made()
    output = layer(embedded)
    np.testing.assert_array_equal(
        to_numpy(output), to_numpy(layer(to_numpy(embedded), mask=ids > 0))
    )
    assert np.array_equal(to_numpy(output._keras_mask), ids > 0)


@pytest.mark.parametrize("use_bias", [False, True])
def test_order_of_the_weights(use_bias):
    heads = ("quadratic_query", "quadratic_key", "linear_query", "linear_key")
    order = ["input/kernel", "input/bias"]
    order += [f"{head}/{kind}" for head in heads for kind in ("beta", "gamma")]
    order += ["output/kernel", "output/bias"]
    expected = [name for name in order if use_bias or name.endswith(("kernel", "gamma"))]
    layer = made(use_bias=use_bias)
    assert [weight.path.split("/", 1)[1] for weight in layer.weights] == expected
    assert layer.input_dense.kernel.shape == (6, 2 * 10 + 4)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"key_size": 3, "rope": True}, "must be even. Received: key_size=3"),
        ({"units": 0}, "must be positive. Received: units=0"),
        ({"key_size": 0}, "must be positive.*key_size=0"),
        ({"chunk_size": 0}, "must be positive.*chunk_size=0"),
        ({"activation": "swich"}, "swich"),
    ],
)
def test_bad_arguments_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        made(**arguments)
