"""Every two properties that can meet in a step meet in a case. benchmarks/ has all the cases."""

import itertools

import pytest
from accumulation_matrix import cases, print_differences

from tests.optimizers.accumulation_cases import difference


def pairs(case):
    return set(itertools.combinations(case.items(), 2))


def pairwise(cases):
    """Cases that hold all pairs, found greedily: each time the one with most new pairs."""
    missing, found = set().union(*map(pairs, cases)), []
    while missing:
        found.append(max(cases, key=lambda case: len(pairs(case) & missing)))
        missing -= pairs(found[-1])
    return found


COVER = pairwise(list(cases()))


@pytest.mark.slow
@pytest.mark.parametrize("case", COVER, ids=lambda case: "-".join(map(str, case.values())))
def test_micro_batches_equal_the_big_batch_to_the_bit(case, request):
    if case["replicas"] == 1:
        assert difference(None, case) == 0
    else:
        two_replicas = request.getfixturevalue("two_replicas")
        assert two_replicas("accumulation_cases.difference", case=case) == 0


def test_the_script_fails_where_there_is_a_difference(capsys):
    print_differences({("SGD", 1, "XLA"): [0.0, 0.0]})
    with pytest.raises(SystemExit, match="do not give"):
        print_differences({("SGD", 1, "XLA"): [0.0, 0.0], ("Lion", 2, "eager"): [0.0, 2e-9]})
    assert "| Lion | 2 | eager | 2 | 2e-09 |" in capsys.readouterr().out
