import math

import keras
import numpy as np
import pytest

from keras_ext.entities import decode_factored_spans
from keras_ext.layers import EfficientGlobalPointer
from keras_ext.losses import FactoredGlobalPointerCrossentropy
from keras_ext.ops import dense_span_scores

HEADS, SIZE, DIM = 3, 4, 6
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(3, 5, DIM)).astype("float32")


def made(**options):
    """A layer with random weights, biases included, so that every term counts."""
    layer = EfficientGlobalPointer(**{"heads": HEADS, "head_size": SIZE, **options})
    layer.build((None, None, DIM))
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


def turn(vector, position):
    """Rotary embedding as a rotation in the complex plane."""
    angles = position * 10000.0 ** (-np.arange(0, SIZE, 2) / SIZE)
    turned = (vector[::2] + 1j * vector[1::2]) * np.exp(1j * angles)
    return np.stack([turned.real, turned.imag], axis=1).reshape(-1)


def reference(layer, x, mask):
    """bert4keras' layout: even columns are query and end, odd ones are key and start."""
    weights = [weight.astype("float64") for weight in layer.get_weights()]
    if not layer.use_bias:
        weights = [weights[0], 0.0, weights[1], 0.0]
    shared = x @ weights[0] + weights[1]
    typed = shared @ weights[2] + weights[3]
    scores = np.full((len(x), HEADS, x.shape[1], x.shape[1]), -1e30)
    for b, head, i, j in np.ndindex(scores.shape):
        query = [shared[b, i, 2 * channel] for channel in range(SIZE)]
        key = [shared[b, j, 2 * channel + 1] for channel in range(SIZE)]
        if layer.rope:
            query, key = turn(np.array(query), i), turn(np.array(key), j)
        start, end = typed[b, i, 2 * head + 1] / 2, typed[b, j, 2 * head] / 2
        if mask[b, i] and mask[b, j] and (i <= j or not layer.tril_mask):
            scores[b, head, i, j] = np.dot(query, key) / math.sqrt(SIZE) + start + end
    return scores


@pytest.mark.parametrize("rope", [True, False])
@pytest.mark.parametrize("options", [{}, {"tril_mask": False, "use_bias": False}])
def test_equals_reference(x, rope, options):
    layer = made(rope=rope, **options)
    result = np.array(layer(x, mask=MASK))
    np.testing.assert_allclose(result, reference(layer, x, MASK), rtol=1e-5, atol=1e-5)
    everything = np.ones_like(MASK)
    np.testing.assert_allclose(
        np.array(layer(x)), reference(layer, x, everything), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("tril_mask", [True, False])
def test_factors_give_the_dense_scores_back(x, tril_mask):
    dense = made(tril_mask=tril_mask)
    factored = made(tril_mask=tril_mask, factored=True)
    factors = factored(x, mask=MASK)
    assert factors.shape == (3, 5, 2 * (SIZE + HEADS))
    rebuilt = np.array(dense_span_scores(factors, HEADS, SIZE, tril_mask))
    np.testing.assert_allclose(rebuilt, np.array(dense(x, mask=MASK)), rtol=1e-6)


def test_factors_are_query_key_start_bias_end_bias(x):
    layer = made(factored=True, rope=False)
    factors = np.array(layer(x, mask=MASK))
    shared = x @ layer.get_weights()[0] + layer.get_weights()[1]
    typed = shared @ layer.get_weights()[2] + layer.get_weights()[3]
    parts = [shared[..., ::2] / 2, shared[..., 1::2], typed[..., 1::2] / 2, typed[..., ::2] / 2]
    expected = np.concatenate(parts, axis=-1)  # sqrt(SIZE) is 2
    np.testing.assert_allclose(factors[MASK], expected[MASK], rtol=1e-5, atol=1e-5)
    assert np.all(factors[~MASK][:, 2 * SIZE :] == np.float32(-1e30))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_masked_pairs_are_finite_and_below_every_threshold(x, policy):
    layer = made(dtype=policy)
    assert layer(x).dtype == made()(x).dtype  # float32 whatever the policy
    scores = np.array(layer(30 * x, mask=MASK))
    valid = reference(made(), x, MASK) > -1e29
    assert np.isfinite(scores).all()
    assert scores[~valid].max() <= -1e29
    assert scores[valid].min() > -1e29
    assert valid.sum() == HEADS * (15 + 6)


@pytest.mark.parametrize("factored", [False, True])
def test_padding_changes_nothing(x, factored):
    layer = made(factored=factored)
    longer = np.concatenate([x, np.full((3, 4, DIM), 1e3, "float32")], axis=1)
    mask = np.concatenate([MASK, np.zeros((3, 4), bool)], axis=1)
    result = np.array(layer(longer, mask=mask))
    result = result[:, :5] if factored else result[..., :5, :5]
    np.testing.assert_allclose(result, np.array(layer(x, mask=MASK)), rtol=1e-5, atol=1e-5)


def test_only_the_distance_of_start_and_end_matters(x):
    layer = made()
    shifted = np.concatenate([x[:, -2:], x], axis=1)
    result = np.array(layer(shifted))[..., 2:, 2:]
    np.testing.assert_allclose(result, np.array(layer(x)), rtol=1e-4, atol=1e-4)
    spread = np.array(layer(x[:, [0, 3, 1, 2, 4]]))[:, :, 0, 1]
    assert np.abs(spread - np.array(layer(x))[:, :, 0, 3]).max() > 1e-2


def test_parameters_grow_by_two_rows_of_the_shared_projection_with_each_type():
    grown = made(heads=HEADS + 1).count_params() - made().count_params()
    assert grown == 2 * (2 * SIZE + 1)
    assert made().count_params() == 2 * SIZE * (DIM + 1) + HEADS * grown


@pytest.mark.slow
def test_learns_a_planted_span_in_mixed_float16_with_xla():
    # Marks for the first and the last token tell where the span of each type is.
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(16, 6, DIM)).astype("float32")
    spans = np.zeros((16, 1, 3), "int32")
    for sample, span in enumerate(spans):
        type_, start, end = sample % 2, *sorted(rng.integers(0, 6, 2))
        span[0] = type_, start, end
        inputs[sample, start, type_] += 8.0
        inputs[sample, end, 2 + type_] += 8.0
    keras.utils.set_random_seed(3)
    head = EfficientGlobalPointer(heads=2, head_size=8, factored=True, dtype="mixed_float16")
    model = keras.Sequential([keras.Input((6, DIM)), head])
    loss = FactoredGlobalPointerCrossentropy(heads=2, head_size=8)
    model.compile(keras.optimizers.Adam(0.03), loss=loss, jit_compile=True)
    losses = model.fit(inputs, spans, batch_size=16, epochs=50, verbose=0).history["loss"]
    decoded = decode_factored_spans(model.predict(inputs, verbose=0), heads=2, head_size=8)
    best = [found[scores.argmax()] for found, scores in decoded if len(scores)]
    assert losses[-1] < losses[0] / 4
    assert len(best) == 16
    assert np.mean((best == spans[:, 0]).all(1)) > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": -1}, "positive integers.*heads=-1"),
        ({"head_size": 0}, "positive integers.*head_size=0"),
        ({"head_size": 3}, "even. Received: head_size=3"),
    ],
)
def test_impossible_sizes_raise(options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)


@pytest.mark.parametrize("shape", [(6, DIM), (1, 5, 2, DIM), (2, 5, DIM + 1)])
def test_other_shapes_raise(shape):
    with pytest.raises(ValueError, match="expected"):
        made()(np.zeros(shape, "float32"))
