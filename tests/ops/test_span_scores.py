import numpy as np
import pytest
from gradients import numerical_gradient, relative_error, value_and_gradient
from keras import ops

from keras_ext.ops import (
    dense_span_scores,
    factored_logsumexp,
    factored_mask,
    float32_factors,
    split_factors,
    valid_pairs,
)

HEADS, SIZE, LENGTH = 3, 2, 5


def random_factors(seed, scale=1.0, lengths=(LENGTH, 3, 1)):
    rng = np.random.default_rng(seed)
    shape = (len(lengths), LENGTH, 2 * (SIZE + HEADS))
    # Multiples of 1/8, so that the scores are exact and only exponentials and sums are tested.
    factored = np.round(8 * scale * rng.normal(size=shape)) / 8
    for sample, length in enumerate(lengths):
        factored[sample, length:, 2 * SIZE :] = -1e30
    return factored.astype("float32")


def score(sample, head, start, end):
    query, key = sample[start, :SIZE], sample[end, SIZE : 2 * SIZE]
    return query @ key + sample[start, 2 * SIZE + head] + sample[end, 2 * SIZE + HEADS + head]


def spans_of(sample, tril_mask):
    tokens = [i for i in range(len(sample)) if sample[i, 2 * SIZE] > -1e29]
    return [(i, j) for i in tokens for j in tokens if i <= j or not tril_mask]


def reference(factored, tril_mask=True, excluded=()):
    """log(1 + sum exp), one pair at a time in float64; `excluded` are (sample, start, end)."""
    factored = factored.astype("float64")
    result = np.zeros((len(factored), HEADS))
    for b, head in np.ndindex(result.shape):
        scores = [0.0]
        for i, j in spans_of(factored[b], tril_mask):
            if (b, i, j) not in excluded:
                scores.append(score(factored[b], head, i, j))
        result[b, head] = np.logaddexp.reduce(scores)
    return result


def stabilised_sums(factored):
    """What is left after row maxima and maxima are taken out, as float32 has it."""
    query, key, starts, ends = split_factors(factored, HEADS, SIZE)
    pairs = query @ key.swapaxes(1, 2)
    pairs = np.where(np.tri(LENGTH, dtype=bool).T, pairs, np.float32(-1e30))
    row_max = pairs.max(2, keepdims=True)
    starts = starts + row_max
    starts, ends = (np.exp(x - x.max(1, keepdims=True)) for x in (starts, ends))
    return np.einsum("bih,bij,bjh->bh", starts, np.exp(pairs - row_max), ends)


def best_start_after_best_end(height):
    """The last token is the best start, the first the best end: together they are no span."""
    factored = np.zeros((1, LENGTH, 2 * (SIZE + HEADS)), "float32")
    factored[0, -1, 2 * SIZE : 2 * SIZE + HEADS] = height
    factored[0, 0, 2 * SIZE + HEADS :] = height
    factored[0, 1:3, 2 * SIZE + 1] = 2.0
    factored[0, 1:4, 2 * SIZE + 2] = height - 6.0  # many spans of 1/400 of the best
    return factored


def best_pair_is_of_another_type(height):
    """The best end of a row is forbidden for type 0 by its bias: what remains is far below."""
    factored = random_factors(3, 0.5, lengths=(LENGTH,))
    factored[0, 1, :SIZE] = [height / 2, 0]
    factored[0, 3, SIZE : 2 * SIZE] = [2, 0]
    factored[0, 3, 2 * SIZE + HEADS] = -2 * height
    return factored


def check(factored, tril_mask=True, excluded=None, compiled=False):
    """Value and gradient equal float64 to 1e-5 of the largest."""
    triples = set()
    if excluded is not None:
        cells, valid = excluded
        for b, k in zip(*np.nonzero(valid), strict=True):
            triples.add((b, *divmod(int(cells[b, k]), LENGTH)))

    value, (gradient,) = value_and_gradient(
        lambda x: factored_logsumexp(x, HEADS, SIZE, tril_mask, excluded),
        factored,
        compiled=compiled,
    )
    assert relative_error(value, reference(factored, tril_mask, triples)) < 1e-5
    expected = numerical_gradient(lambda x: reference(x, tril_mask, triples), factored)
    assert relative_error(gradient, expected) < 1e-5
    assert value.dtype == gradient.dtype == np.float32


@pytest.mark.parametrize("tril_mask", [True, False])
def test_logsumexp_equals_float64(tril_mask):
    for scale in (0.3, 3.0, 30.0):
        check(random_factors(0, scale), tril_mask)


@pytest.mark.parametrize("tril_mask", [True, False])
def test_excluded_pairs_are_left_out_for_all_types(tril_mask):
    cells = np.array([[7, 7, 24, 0], [0, 1, 8, 3], [0, 0, 0, 0]], "int32")
    valid = np.array([[1, 1, 0, 1], [1, 1, 1, 0], [1, 0, 0, 0]], bool)
    check(random_factors(1), tril_mask, (cells, valid))


def test_excluding_everything_gives_zero():
    factored = random_factors(2)
    cells = np.tile(np.arange(LENGTH**2, dtype="int32"), (3, 1))
    excluded = (cells, np.ones_like(cells, bool))
    value, (gradient,) = value_and_gradient(
        lambda x: factored_logsumexp(x, HEADS, SIZE, True, excluded), factored
    )
    assert not value.any()
    assert not gradient.any()


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("hard_case", [best_start_after_best_end, best_pair_is_of_another_type])
def test_scores_that_spread_over_hundreds_are_exact(hard_case, compiled):
    factored = hard_case(200.0)
    assert (stabilised_sums(factored) == 0).any()  # the short way would lose all
    check(factored, compiled=compiled)


def test_one_hard_sample_leaves_the_others_exact():
    factored = np.concatenate([random_factors(4), best_start_after_best_end(150.0)])
    assert stabilised_sums(factored)[-1].max() == 0
    assert stabilised_sums(factored)[0].min() > 1e-20
    check(factored)


@pytest.mark.slow
def test_no_spread_is_lost_between_the_two_ways():
    heights = np.tile([16, 30, 34, 55, 62, 68, 72, 76, 80, 82, 88, 110], 3)
    factored = np.concatenate([best_start_after_best_end(height) for height in heights])
    factored[:12, :, 2 * SIZE + HEADS :] -= 60.0
    factored[12:24, :, 2 * SIZE + HEADS :] -= 20.0

    def one_by_one(x):  # each sample decides for itself which way it takes
        return ops.map(lambda sample: factored_logsumexp(sample[None], HEADS, SIZE)[0], x)

    value, (gradient,) = value_and_gradient(one_by_one, factored)
    np.testing.assert_allclose(value, reference(factored), rtol=1e-5, atol=1e-9)
    for sample in range(len(heights)):
        expected = numerical_gradient(reference, factored[sample : sample + 1])[0]
        np.testing.assert_allclose(gradient[sample], expected, rtol=1e-5, atol=1e-7)


def test_ordinary_scores_need_no_second_way():
    assert stabilised_sums(random_factors(0, 3.0, lengths=(LENGTH, LENGTH))).min() > 1e-25


def test_no_token_gives_zero_in_value_and_gradient():
    factored = random_factors(5, 3.0, lengths=(0, LENGTH))
    value, (gradient,) = value_and_gradient(lambda x: factored_logsumexp(x, HEADS, SIZE), factored)
    assert not value[0].any()
    assert not gradient[0].any()
    assert gradient[1].any()


def test_one_token_is_softplus_of_its_score():
    factored = random_factors(6, lengths=(1,))
    expected = [np.log1p(np.exp(score(factored[0], head, 0, 0))) for head in range(HEADS)]
    value = np.array(factored_logsumexp(factored, HEADS, SIZE))
    np.testing.assert_allclose(value[0], expected, rtol=1e-6)


def test_padding_changes_nothing_whatever_it_holds():
    factored = random_factors(7, lengths=(3,))
    padded = factored.copy()
    padded[0, 3:, : 2 * SIZE] = 1e4
    for function in (
        lambda x: factored_logsumexp(x, HEADS, SIZE),
        lambda x: dense_span_scores(x, HEADS, SIZE)[:, :, :3, :3],
    ):
        short, (short_gradient,) = value_and_gradient(function, factored[:, :3])
        long, (long_gradient,) = value_and_gradient(function, padded)
        np.testing.assert_allclose(long, short, rtol=1e-6)
        np.testing.assert_allclose(long_gradient[:, :3], short_gradient, rtol=1e-5, atol=1e-7)
        assert not long_gradient[:, 3:].any()


def test_zero_scores_count_the_pairs():
    factored = np.zeros((1, LENGTH, 2 * (SIZE + HEADS)), "float32")
    pairs = LENGTH * (LENGTH + 1) / 2
    value = np.array(factored_logsumexp(factored, HEADS, SIZE))
    np.testing.assert_allclose(value, np.full((1, HEADS), np.log1p(pairs)), rtol=1e-6)
    value = np.array(factored_logsumexp(factored, HEADS, SIZE, tril_mask=False))
    np.testing.assert_allclose(value, np.full((1, HEADS), np.log1p(LENGTH**2)), rtol=1e-6)


@pytest.mark.parametrize("tril_mask", [True, False])
def test_dense_scores_equal_the_formula_and_are_masked_elsewhere(tril_mask):
    factored = random_factors(8)
    scores = np.array(dense_span_scores(factored, HEADS, SIZE, tril_mask))
    expected = np.full((3, HEADS, LENGTH, LENGTH), -1e30)
    for b, head in np.ndindex(3, HEADS):
        for i, j in spans_of(factored[b], tril_mask):
            expected[b, head, i, j] = score(factored[b], head, i, j)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_split_factors_take_apart_what_concatenation_joined():
    factored = random_factors(9)
    parts = split_factors(factored, HEADS, SIZE)
    assert [part.shape[-1] for part in parts] == [SIZE, SIZE, HEADS, HEADS]
    assert np.array_equal(np.concatenate(parts, axis=-1), factored)


def test_factored_mask_and_valid_pairs():
    mask = np.array(factored_mask(random_factors(10)[..., 2 * SIZE : 2 * SIZE + HEADS]))
    assert mask.sum(1).tolist() == [LENGTH, 3, 1]
    # A pair is valid if both are tokens and the start is not after the end.
    pairs = np.array(valid_pairs(np.array([[True, False, True]])))
    assert np.argwhere(pairs[0]).tolist() == [[0, 0], [0, 2], [2, 2]]
    both = np.array(valid_pairs(np.array([[True, False, True]]), tril_mask=False))
    assert both.sum() == 4


def test_float16_factors_carry_masks_of_biases_only():
    factored = np.full((1, 1, 2 * (SIZE + HEADS)), -65504, "float16")
    result = np.array(float32_factors(factored, SIZE))[0, 0]
    assert result[: 2 * SIZE].tolist() == [-65504.0] * 2 * SIZE
    assert np.all(result[2 * SIZE :] == np.float32(-1e30))


@pytest.mark.parametrize("shape", [(1, 4, 11), (1, 4), (1, 4, 10, 10)])
def test_other_shapes_raise(shape):
    for function in (split_factors, dense_span_scores, factored_logsumexp):
        with pytest.raises(ValueError, match="3 types with head_size 2.*Received: shape="):
            function(np.zeros(shape, "float32"), HEADS, SIZE)
