"""Choose among entities that overlap."""

import bisect

_POLICIES = ("nested", "flat", "longest")


def resolve(entities, policy="nested"):
    """Keep all entities, or drop the weaker of those that overlap.

    Args:
        entities: Dictionary `(type, start, end) -> score`, `end` exclusive, as `merge_windows`
            gives for a document.
        policy: `"nested"` keeps all. `"flat"` takes the highest score first and drops what
            overlaps it; equal scores: the longer, then the earlier, then the lower type.
            `"longest"` takes the longest first, then by score. Defaults to `"nested"`.

    Returns:
        A dictionary of the same form, by start, then longer first, then type.

    Raises:
        ValueError: If the policy is unknown.

    Example:

    >>> resolve({(0, 0, 8): 1.0, (1, 4, 8): 2.0}, policy="flat")
    {(1, 4, 8): 2.0}
    """
    if policy not in _POLICIES:
        raise ValueError(
            f"unknown policy. Expected one of {_POLICIES}. Received: policy={policy!r}"
        )
    kept = entities
    if policy != "nested":
        kept = _greedy(entities, policy)
    return {key: entities[key] for key in sorted(kept, key=lambda k: (k[1], -k[2], k[0]))}


def _greedy(entities, policy):
    def rank(key):
        kind, start, end = key
        score, length = -entities[key], start - end
        order = (score, length) if policy == "flat" else (length, score)
        return (*order, start, kind)

    kept, starts, ends = [], [], []  # kept entities do not overlap, so both lists are sorted
    for key in sorted(entities, key=rank):
        _, start, end = key
        place = bisect.bisect_left(starts, end)
        if place == 0 or ends[place - 1] <= start:
            starts.insert(place, start)
            ends.insert(place, end)
            kept.append(key)
    return kept
