import numpy as np
import pytest

from keras_ext.ops import near_rectangle

pytestmark = pytest.mark.one_backend


def test_equals_the_search_through_all_pairs():
    """The least sum of all n up to 20,000, from every a and b whose product is no larger."""
    largest = 20_000
    saved = np.full(largest + 1, np.inf)  # a + b - a b at the number a b
    for a in range(1, largest + 1):
        b = np.arange(1, largest // a + 1)
        saved[a * b] = np.minimum(saved[a * b], a + b - a * b)
    sums = np.arange(largest + 1) + np.minimum.accumulate(saved)
    for n in range(1, largest + 1):
        a, b, c = near_rectangle(n)
        assert n == a * b + c and 1 <= a <= b and c >= 0
        assert a + b + c == sums[n], n


@pytest.mark.parametrize(
    ("n", "rows"), [(21128, 291), (50257, 458), (151936, 785), (130, 23), (1, 2), (2, 3), (3, 4)]
)
def test_known_sums(n, rows):
    assert sum(near_rectangle(n)) == rows


def test_large_numbers_take_few_steps():
    """2^61 - 1 is prime; a square is its own rectangle, however large, and floats would miss it."""
    n = 2**61 - 1
    a, b, c = near_rectangle(n)
    assert a * b + c == n and 0 <= c < 2**16 and b - a < 2**18
    root = 10**40 + 3
    assert near_rectangle(root * root) == (root, root, 0)


def test_numpy_integers_are_whole():
    assert near_rectangle(np.int64(130)) == (10, 13, 0)
    assert all(type(x) is int for x in near_rectangle(np.int64(130)))


@pytest.mark.parametrize("n", [0, -3, 2.0, True, "7", None])
def test_what_is_no_number_above_0(n):
    with pytest.raises(ValueError, match=r"above 0.*Received: n="):
        near_rectangle(n)
