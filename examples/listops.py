"""Nested operations on digits, whose value a model has to find: long ranges of a known kind.

A grammar of our own, in the manner of ListOps:

    expression  ->  digit  |  operation expression expression ... ")"
    operation   ->  MAX | MIN | MED | SUM_MOD

MED is the lower one of the two in the middle where their number is even, SUM_MOD the sum modulo 10. So
every value is a digit: ten classes. To print some:

    python examples/listops.py
"""

import random

import numpy as np

OPERATIONS = {
    "MAX": max,
    "MIN": min,
    "MED": lambda values: sorted(values)[(len(values) - 1) // 2],
    "SUM_MOD": lambda values: sum(values) % 10,
}
CLOSE = ")"
PADDING, MASK = "", "_"
TOKENS = [PADDING, *"0123456789", *OPERATIONS, CLOSE, MASK]
IDS = {token: i for i, token in enumerate(TOKENS)}


def grow(rng, size):
    """Random tokens: of 4 or more one expression, of fewer that many digits.

    Args:
        rng: `random.Random`.
        size: int, their number.
    """
    if size < 4:
        return rng.choices("0123456789", k=size)
    inner = size - 2
    parts = min(rng.randint(2, 5), inner)
    cuts = [0, *sorted(rng.sample(range(1, inner), parts - 1)), inner]
    tokens = [rng.choice(list(OPERATIONS))]
    for start, end in zip(cuts, cuts[1:], strict=False):
        tokens += grow(rng, end - start)
    return [*tokens, CLOSE]


def solve(tokens):
    """The value of an expression, int from 0 to 9.

    Raises:
        ValueError: for tokens that are no expression.
    """
    waiting = [("", [])]  # operations that are not closed, and their values so far
    for token in tokens:
        if token in OPERATIONS:
            waiting.append((token, []))
        elif token == CLOSE and len(waiting) > 1 and waiting[-1][1]:
            operation, values = waiting.pop()
            waiting[-1][1].append(OPERATIONS[operation](values))
        elif len(token) == 1 and token.isdigit():
            waiting[-1][1].append(int(token))
        else:
            raise ValueError(f"Expected an expression. Received: {' '.join(tokens)}")
    if len(waiting) > 1 or len(waiting[0][1]) != 1:
        raise ValueError(f"Expected one closed expression. Received: {' '.join(tokens)}")
    return waiting[0][1][0]


def make(count, length, seed=0):
    """Different expressions, as many of each value.

    Args:
        count: int, divisible by 10.
        length: int, at least 8: tokens at most; half of that at least.
        seed: int.

    Returns:
        ids (count, length) int32, padded with 0, and values (count,) int32.
    """
    rng, found = random.Random(seed), {value: set() for value in range(10)}
    while min(map(len, found.values())) < count // 10:
        tokens = tuple(grow(rng, rng.randint(length // 2, length)))
        values = found[solve(tokens)]
        if len(values) < count // 10:
            values.add(tokens)
    pairs = [(tokens, value) for value, each in found.items() for tokens in sorted(each)]
    rng.shuffle(pairs)
    ids = np.zeros((len(pairs), length), "int32")
    for row, (tokens, _) in zip(ids, pairs, strict=True):
        row[: len(tokens)] = [IDS[token] for token in tokens]
    return ids, np.array([value for _, value in pairs], "int32")


if __name__ == "__main__":
    for row, answer in zip(*make(10, 24), strict=True):
        print(" ".join(TOKENS[i] for i in row if i), "=", answer)
