import math

import keras
import numpy as np
import pytest

from keras_ext.layers import GlobalPointer
from keras_ext.losses import GlobalPointerCrossentropy

HEADS, SIZE, DIM = 3, 4, 6
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(3, 5, DIM)).astype("float32")


def made(**options):
    """A layer with random weights, biases included, so that every term counts."""
    layer = GlobalPointer(**{"heads": HEADS, "head_size": SIZE, **options})
    layer.build((None, None, DIM))
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


def turn(vector, position):
    """Rotary embedding, one pair of channels at a time."""
    turned = np.empty_like(vector)
    for i in range(0, len(vector), 2):
        angle = position * 10000.0 ** (-i / len(vector))
        turned[i] = vector[i] * math.cos(angle) - vector[i + 1] * math.sin(angle)
        turned[i + 1] = vector[i + 1] * math.cos(angle) + vector[i] * math.sin(angle)
    return turned


def reference(layer, x, mask):
    """bert4keras' layout: for each type its query columns, then its key columns."""
    kernel, *bias = (weight.astype("float64") for weight in layer.get_weights())
    projected = x @ kernel + (bias[0] if bias else 0.0)
    scores = np.full((len(x), HEADS, x.shape[1], x.shape[1]), -1e30)
    for b, head, i, j in np.ndindex(scores.shape):
        first = 2 * SIZE * head
        query = projected[b, i, first : first + SIZE]
        key = projected[b, j, first + SIZE : first + 2 * SIZE]
        if layer.rope:
            query, key = turn(query, i), turn(key, j)
        if mask[b, i] and mask[b, j] and (i <= j or not layer.tril_mask):
            scores[b, head, i, j] = query @ key / math.sqrt(SIZE)
    return scores


@pytest.mark.parametrize("rope", [True, False])
@pytest.mark.parametrize("options", [{}, {"tril_mask": False, "use_bias": False}])
def test_equals_reference(x, rope, options):
    layer = made(rope=rope, **options)
    result = np.array(layer(x, mask=MASK))
    np.testing.assert_allclose(result, reference(layer, x, MASK), rtol=1e-5, atol=1e-5)
    everything = np.ones_like(MASK)
    np.testing.assert_allclose(np.array(layer(x)), np.array(layer(x, mask=everything)))


def test_head_size_may_be_odd_without_rope(x):
    assert GlobalPointer(heads=2, head_size=3, rope=False)(x).shape == (3, 2, 5, 5)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_masked_pairs_are_finite_and_below_every_threshold(x, policy):
    layer = made(dtype=policy)
    assert layer(x).dtype == made()(x).dtype  # float32 whatever the policy
    scores = np.array(layer(100 * x, mask=MASK))
    valid = np.broadcast_to(reference(made(), x, MASK) > -1e29, scores.shape)
    assert np.isfinite(scores).all()
    assert scores[~valid].max() <= -1e29
    assert scores[valid].min() > -1e29
    assert valid.sum() == HEADS * (15 + 6)


def test_padding_changes_nothing(x):
    layer = made()
    longer = np.concatenate([x, np.full((3, 4, DIM), 1e3, "float32")], axis=1)
    mask = np.concatenate([MASK, np.zeros((3, 4), bool)], axis=1)
    result = np.array(layer(longer, mask=mask))[..., :5, :5]
    np.testing.assert_allclose(result, np.array(layer(x, mask=MASK)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rope", [True, False])
def test_only_the_distance_of_start_and_end_matters(x, rope):
    layer = made(rope=rope)
    shifted = np.concatenate([x[:, -2:], x], axis=1)
    result = np.array(layer(shifted))[..., 2:, 2:]
    np.testing.assert_allclose(result, np.array(layer(x)), rtol=1e-4, atol=1e-4)
    if rope:  # without it not even the distance matters
        spread = np.array(layer(x[:, [0, 3, 1, 2, 4]]))[:, :, 0, 1]
        assert np.abs(spread - np.array(layer(x))[:, :, 0, 3]).max() > 1e-2


def test_types_are_independent(x):
    layer = made()
    before = np.array(layer(x))
    kernel, bias = layer.get_weights()
    kernel[:, 2 * SIZE : 4 * SIZE] = 0
    layer.set_weights([kernel, bias])
    after = np.array(layer(x))
    assert np.array_equal(after[:, [0, 2]], before[:, [0, 2]])
    assert not np.allclose(after[:, 1], before[:, 1])


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
    head = GlobalPointer(heads=2, head_size=8, dtype="mixed_float16")
    model = keras.Sequential([keras.Input((6, DIM)), head])
    model.compile(keras.optimizers.Adam(0.03), loss=GlobalPointerCrossentropy(), jit_compile=True)
    losses = model.fit(inputs, spans, batch_size=16, epochs=50, verbose=0).history["loss"]
    scores = model.predict(inputs, verbose=0)
    best = [np.unravel_index(sample.argmax(), sample.shape) for sample in scores]
    found = np.mean([tuple(span[0]) == where for span, where in zip(spans, best, strict=True)])
    assert losses[-1] < losses[0] / 4
    assert found > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 0}, "positive integers.*heads=0"),
        ({"head_size": 0}, "positive integers.*head_size=0"),
        ({"head_size": 5}, "even. Received: head_size=5"),
    ],
)
def test_impossible_sizes_raise(options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)


@pytest.mark.parametrize("shape", [(6, DIM), (1, 5, 2, DIM), (2, 5, DIM + 1)])
def test_other_shapes_raise(shape):
    with pytest.raises(ValueError, match="expected"):
        made()(np.zeros(shape, "float32"))
