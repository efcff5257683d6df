import math

import keras
import numpy as np
import pytest
from gradients import value_and_gradient
from keras import ops

from keras_ext.layers.multi_head_self_attention import MultiHeadSelfAttention
from keras_ext.ops.attention_scale import LogN


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(3, 5, 12)).astype("float32")


MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 1, 1]], bool)


def made(seed=1, **arguments):
    keras.utils.set_random_seed(seed)
    layer = MultiHeadSelfAttention(
        **{"heads": 2, "head_size": 4, "kernel_initializer": "random_normal", **arguments}
    )
    layer.build((None, None, 12))
    layer.set_weights([10 * weight + 0.1 for weight in layer.get_weights()])
    return layer


def turn(vector, position):
    """Rotary embedding, one pair of channels at a time."""
    turned = np.empty_like(vector)
    for i in range(0, len(vector), 2):
        angle = position * 10000.0 ** (-i / len(vector))
        turned[i] = vector[i] * math.cos(angle) - vector[i + 1] * math.sin(angle)
        turned[i + 1] = vector[i + 1] * math.cos(angle) + vector[i] * math.sin(angle)
    return turned


def usual(keys, size):
    return 1 / math.sqrt(size)


def reference(layer, x, mask, visible=None, positions=None, relative=None, scale=usual):
    """One query, one head at a time."""
    weights = [weight.astype("float64") for weight in layer.get_weights()]
    if not layer.use_bias:
        weights = [part for kernel in weights for part in (kernel, 0.0)]
    query, key, value = (x @ weights[i] + weights[i + 1] for i in (0, 2, 4))
    size, key_size, n = layer.head_size, layer.key_size or layer.head_size, x.shape[1]
    visible = np.ones((len(x), n, n), bool) if visible is None else visible
    positions = np.arange(n) if positions is None else positions
    relative = np.zeros((n, n, 1)) if relative is None else relative
    mixed = np.zeros((len(x), n, layer.heads * size))
    for b, h, i in np.ndindex(len(x), layer.heads, n):
        channels, keys = slice(h * size, (h + 1) * size), slice(h * key_size, (h + 1) * key_size)
        tokens = np.flatnonzero(mask[b] & visible[b % len(visible), i])
        scores = []
        for j in tokens:
            q, k = query[b, i, keys], key[b, j, keys] + relative[i, j]
            if layer.rope:
                distance, window = positions[i] - positions[j], layer.rope_window or math.inf
                far = max(abs(distance) - window, 0.0) * (1 - layer.rope_slope)
                q = turn(q, distance - math.copysign(far, distance))
            scores.append(math.exp(q @ k * scale(len(tokens), key_size)))
        for j, score in zip(tokens, scores, strict=True):
            mixed[b, i, channels] += score / sum(scores) * (value[b, j, channels] + relative[i, j])
    return mixed @ weights[6] + weights[7]


@pytest.mark.parametrize("rope", [False, True])
@pytest.mark.parametrize("use_bias", [False, True])
def test_output_is_that_of_the_formula(x, rope, use_bias):
    layer = made(rope=rope, use_bias=use_bias)
    output = np.array(layer(x, mask=MASK))
    np.testing.assert_allclose(output, reference(layer, x, MASK), atol=2e-5, rtol=1e-5)


def test_keys_and_the_output_may_have_a_width_of_their_own(x):
    layer = made(key_size=6, output_dim=7, rope=True)
    output = np.array(layer(x, mask=MASK))
    assert output.shape == (3, 5, 7) == layer.compute_output_shape(x.shape)
    np.testing.assert_allclose(output, reference(layer, x, MASK), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("mask", [MASK, None])
def test_an_attention_mask_hides_more_beside_the_padding(x, mask):
    layer, tokens = made(), np.ones((3, 5), bool) if mask is None else mask
    each = np.random.default_rng(1).random((3, 5, 5)) < 0.5
    each[0, 2] = False  # this token sees nothing
    for visible in (each, np.tril(np.ones((1, 5, 5), bool))):
        output = np.array(layer(x, mask=mask, attention_mask=visible))
        expected = reference(layer, x, tokens, visible)
        np.testing.assert_allclose(output, expected, atol=2e-5, rtol=1e-5)


def test_rotation_is_by_the_positions_that_are_given(x):
    layer, positions = made(rope=True), np.array([7, 3, 0, 2, 2], "int32")
    expected = reference(layer, x, MASK, positions=positions)
    for given in (positions, np.tile(positions, (3, 1))):
        output = np.array(layer(x, mask=MASK, positions=given))
        np.testing.assert_allclose(output, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_positions_may_be_floats_in_every_precision(x, policy):
    layer, exact = made(rope=True, dtype=policy), made(rope=True)
    # bfloat16 would round all of these to 1000.
    positions = np.array([1000, 1000.5, 1001, 1001.5, 1002], "float32")
    expected = reference(exact, x, MASK, positions=positions)
    output = np.array(ops.cast(layer(x, mask=MASK, positions=positions), "float32"))
    tolerance = 2e-4 if policy == "float32" else 0.04 * np.abs(expected).max()
    np.testing.assert_allclose(output, expected, atol=tolerance)
    rounded = reference(exact, x, MASK, positions=np.full(5, 1000.0))
    assert np.abs(rounded - expected).max() > 2 * tolerance


SCALES = {
    "sqrt_dim": usual,
    False: lambda keys, size: 1.0,
    0.3: lambda keys, size: 0.3,
    "log_n": lambda keys, size: math.log(max(keys, 16)) / math.log(512) / math.sqrt(size),
}


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("causal", [False, True])
def test_scores_are_scaled_by_what_the_row_sees(x, name, causal):
    long = np.concatenate([x, -x, x[:, ::-1], 2 * x], axis=1)  # 20 tokens: more than log_n's 16
    mask = np.random.default_rng(2).random((3, 20)) < 0.9
    visible = np.tril(np.ones((1, 20, 20), bool)) if causal else None
    layer = made(attention_scale=name, causal=causal, rope=True)
    expected = reference(layer, long, mask, visible, scale=SCALES[name])
    np.testing.assert_allclose(np.array(layer(long, mask=mask)), expected, atol=5e-5, rtol=1e-4)


def test_a_scale_may_be_an_object_or_a_function(x):
    def more(keys, size):
        return 0.1 * keys

    layer = made(attention_scale=more)
    expected = reference(layer, x, MASK, scale=more)
    np.testing.assert_allclose(np.array(layer(x, mask=MASK)), expected, atol=2e-5, rtol=1e-4)
    saved = made(attention_scale=LogN(train_length=3, clip=True)).get_config()
    again = MultiHeadSelfAttention.from_config(saved)
    assert again.attention_scale.get_config() == LogN(train_length=3, clip=True).get_config()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("slope", [0.0, 0.25])
def test_beyond_the_window_distances_grow_slowly_or_not_at_all(x, causal, slope):
    layer = made(rope=True, rope_window=2, rope_slope=slope, causal=causal)
    visible = np.tril(np.ones((1, 5, 5), bool)) if causal else None
    expected = reference(layer, x, MASK, visible)
    np.testing.assert_allclose(np.array(layer(x, mask=MASK)), expected, atol=2e-5, rtol=1e-5)
    wide = made(rope=True, rope_window=99, rope_slope=slope, causal=causal)
    plain = made(rope=True, causal=causal)
    same = np.array(plain(x, mask=MASK))
    np.testing.assert_allclose(np.array(wide(x, mask=MASK)), same, atol=1e-5)
    assert np.abs(same - expected).max() > 1e-3


def test_values_and_output_may_begin_otherwise():
    layer = MultiHeadSelfAttention(2, 4, value_initializer="zeros")
    layer.build((None, None, 12))
    zero = [not np.any(weight) for weight in layer.get_weights()[::2]]
    assert zero == [False, False, True, True]


def test_relative_embeddings_are_added_to_keys_and_values(x):
    layer = made()
    relative = np.random.default_rng(1).normal(size=(5, 5, 4)).astype("float32")
    output = np.array(layer(x, mask=MASK, relative_embeddings=relative))
    expected = reference(layer, x, MASK, relative=relative)
    np.testing.assert_allclose(output, expected, atol=2e-5, rtol=1e-5)


def test_no_mask_means_all_are_tokens(x):
    layer = made()
    everything = np.ones((3, 5), bool)
    np.testing.assert_allclose(np.array(layer(x)), np.array(layer(x, mask=everything)), atol=1e-6)


def test_without_rope_the_order_of_the_others_does_not_matter(x):
    layer, order = made(), [3, 0, 4, 2, 1]
    permuted = np.array(layer(x[:, order], mask=MASK[:, order]))
    np.testing.assert_allclose(permuted, np.array(layer(x, mask=MASK))[:, order], atol=1e-5)
    with_rope = made(rope=True)
    permuted = np.array(with_rope(x[:, order]))
    assert np.abs(permuted - np.array(with_rope(x))[:, order]).max() > 1e-2


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_a_sequence_without_tokens_gives_the_output_bias(x, policy):
    layer = made(dtype=policy)
    output = ops.cast(layer(x, mask=np.zeros((3, 5), bool)), "float32")
    bias = ops.cast(ops.cast(layer.output_dense.bias, layer.compute_dtype), "float32")
    np.testing.assert_array_equal(output, np.broadcast_to(bias, (3, 5, 8)))


def per_key(keys, size):
    return 1 / ops.sqrt(keys * size)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("scale", [True, "log_n", "grad_max", "cosine", per_key])
def test_gradients_are_finite_where_no_key_is_visible(x, policy, scale):
    layer = made(dtype=policy, attention_scale=scale, rope=True)
    mask = np.ones((3, 5), bool)
    mask[1] = False
    pairs = np.tril(np.ones((1, 5, 5), bool))
    pairs[0, 2] = False
    values = [variable.value for variable in layer.trainable_variables]

    def call(x, *weights):
        with keras.StatelessScope(zip(layer.trainable_variables, weights, strict=True)):
            return layer(x, mask=mask, attention_mask=pairs)

    value, gradients = value_and_gradient(call, x, *values)
    assert np.isfinite(value.astype("float32")).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert np.array_equal(gradients[0][1], np.zeros((5, 12)))


def test_an_integer_mask_is_a_mask(x):
    layer = made()
    np.testing.assert_array_equal(
        np.array(layer(x, mask=MASK.astype("int32"))), np.array(layer(x, mask=MASK))
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_near_float32(x, policy):
    exact, half = made(rope=True), made(rope=True, dtype=policy)
    difference = ops.cast(half(x, mask=MASK), "float32") - exact(x, mask=MASK)
    scale = np.abs(np.array(exact(x, mask=MASK))).max()
    tolerance = 0.01 if policy == "mixed_float16" else 0.08
    assert np.abs(np.array(difference)).max() < tolerance * scale


@pytest.mark.slow
def test_dropout_of_the_weights_acts_in_training_and_keeps_the_mean(x):
    layer = made(attention_dropout=0.5)
    quiet = np.array(layer(x, training=False))
    runs = np.stack([np.array(layer(x, training=True)) for _ in range(300)])
    assert np.abs(runs[0] - quiet).max() > 1e-2
    error = np.abs(runs.mean(0) - quiet) / (runs.std(0) / math.sqrt(len(runs)))
    assert error.mean() < 1.5  # standard errors; 0.8 is expected


def test_weights_are_eight_in_the_order_of_bert4keras():
    layer = made()
    names = [weight.path.split("/", 1)[1] for weight in layer.weights]
    assert names == [
        f"{part}/{kind}"
        for part in ("query", "key", "value", "output")
        for kind in ("kernel", "bias")
    ]
    assert all(len(weight.shape) == 2 for weight in layer.weights[::2])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"head_size": 3, "rope": True}, "must be even. Received: key_size=3"),
        ({"heads": 0}, "must be positive. Received: heads=0"),
        ({"head_size": 0}, "must be positive.*head_size=0"),
        ({"head_size": 3, "key_size": 0}, "must be positive.*key_size=0"),
        ({"output_dim": 0}, "must be positive.*output_dim=0"),
        ({"key_size": 3, "rope": True}, "must be even. Received: key_size=3"),
        ({"rope_window": 2}, "needs rope=True. Received: rope=False, rope_window=2"),
        ({"rope": True, "rope_window": 0}, "Received: rope_window=0"),
        ({"rope": True, "rope_window": 2, "rope_slope": 1}, "rope_slope=1"),
        ({"rope": True, "rope_slope": 0.5}, "needs a rope_window. Received: rope_slope=0.5"),
        ({"attention_scale": "logn"}, "Unknown scale of attention.*'logn'"),
    ],
)
def test_bad_sizes_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        made(**arguments)
