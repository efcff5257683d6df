from math import isqrt


def near_rectangle(n):
    """The whole numbers a <= b and c with n = a b + c whose sum is least.

    A number near a square is stored in a + b rows instead of n: a is the number of rows of the
    rectangle, b that of its columns, c what is left over. With p = a + b and q = b - a

        a b = (p^2 - q^2) / 4,    a + b + c = n - (p^2 - q^2) / 4 + p,    q^2 >= p^2 - 4 n

    so that every p has one best q, the least that leaves c >= 0 and is odd where p is. From
    p = floor(2 sqrt(n)) on p goes up as long as it is below the best sum yet: O(n^(1/4)) steps. In
    whole numbers only, however large.

    Args:
        n: int, at least 1.

    Returns:
        (a, b, c) with 1 <= a <= b and c >= 0; of equal sums that with the least a + b.

    Raises:
        ValueError: if `n` is not a whole number above 0.

    Example:

    >>> near_rectangle(130)
    (10, 13, 0)
    >>> near_rectangle(50257)
    (201, 250, 7)

    Source: Jianlin Su, how to split N = ab + c so that a + b + c is least, 2023,
    https://kexue.fm/archives/9775
    """
    if isinstance(n, bool) or not hasattr(n, "__index__") or n.__index__() < 1:
        raise ValueError(f"Only a whole number above 0 has a near rectangle. Received: {n=}")
    n = n.__index__()
    p = isqrt(4 * n)
    best_sum, best = n + 1, (1, 1, n - 1)
    while p < best_sum:
        least = p * p - 4 * n
        q = isqrt(least - 1) + 1 if least > 0 else 0
        q += (p - q) % 2
        area = (p * p - q * q) // 4
        if q < p and n - area + p < best_sum:
            best_sum, best = n - area + p, ((p - q) // 2, (p + q) // 2, n - area)
        p += 1
    return best
