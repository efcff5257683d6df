import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_ext.data import resolve

ENTITIES = st.dictionaries(
    st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(1, 6)).map(
        lambda t: (t[0], t[1], t[1] + t[2])
    ),
    st.sampled_from([-1.0, 0.5, 1.0, 2.0]),
    max_size=12,
)


def overlap(a, b):
    return a[1] < b[2] and b[1] < a[2]


def greedy(entities, rank):
    kept = []
    for key in sorted(entities, key=rank):
        if not any(overlap(key, other) for other in kept):
            kept.append(key)
    return {key: entities[key] for key in kept}


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(ENTITIES)
def test_policies_equal_the_plain_greedy_choice(entities):
    def flat(key):
        return (-entities[key], key[1] - key[2], key[1], key[0])

    def longest(key):
        return (key[1] - key[2], -entities[key], key[1], key[0])

    assert resolve(entities, "nested") == resolve(entities) == entities
    assert resolve(entities, "flat") == greedy(entities, flat)
    assert resolve(entities, "longest") == greedy(entities, longest)


@settings(max_examples=100, deadline=None)
@given(ENTITIES, st.randoms(use_true_random=False))
def test_the_order_given_makes_no_difference(entities, random):
    items = list(entities.items())
    random.shuffle(items)
    for policy in ("nested", "flat", "longest"):
        ours, theirs = resolve(entities, policy), resolve(dict(items), policy)
        assert list(ours.items()) == list(theirs.items())
        starts = [key[1] for key in ours]
        assert starts == sorted(starts)


def test_neighbours_do_not_overlap():
    entities = {(0, 0, 3): 1.0, (0, 3, 5): 1.0, (0, 5, 9): 1.0}
    for policy in ("flat", "longest"):
        assert resolve(entities, policy) == entities


def test_policies_differ_where_the_short_one_scores_higher():
    entities = {(0, 0, 9): 1.0, (1, 2, 4): 5.0, (1, 6, 8): 0.5}
    assert set(resolve(entities, "flat")) == {(1, 2, 4), (1, 6, 8)}
    assert set(resolve(entities, "longest")) == {(0, 0, 9)}
    for a, b in itertools.combinations(resolve(entities, "flat"), 2):
        assert not overlap(a, b)


def test_unknown_policies_are_errors():
    with pytest.raises(ValueError, match="unknown policy.*policy='best'"):
        resolve({}, policy="best")
