"""Training on two replicas is training on one device with the same batches."""

import pytest

CASES = [
    {"task": "entities"},
    {"task": "entities", "inside": True, "batch_size": 5, "optimizer": "name"},
    {"task": "entities", "optimizer": "clipped"},
    {"task": "entities", "optimizer": "guarded"},
    {"task": "entities", "optimizer": "excluding"},
    {"task": "sentences", "kind": "scored"},
    {"task": "sentences", "kind": "triplets", "inside": True, "batch_size": 3},
    {"task": "sentences", "kind": "scored", "chunk_size": 2, "optimizer": "name"},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_the_weights_are_those_of_one_device(two_replicas, case):
    difference = two_replicas("tasks.replica_cases.compare", **case)
    # Where the gradient is 0 but for rounding, Adam makes steps of the rounding's sign.
    assert difference["loss"] < 1e-4
    assert difference["weights"] < 1e-3


@pytest.mark.parametrize("task", ["entities", "sentences"])
def test_weights_from_outside_of_the_scope_are_refused(two_replicas, task):
    said = two_replicas("tasks.replica_cases.made_elsewhere", task=task)
    assert "with strategy.scope()" in said
    assert "Received: MirroredStrategy" in said


@pytest.mark.parametrize("reduction", ["default", "sum", "sum_over_batch_size"])
@pytest.mark.parametrize("name", ["CoSENT", "InfoNCE", "FlatNCE"])
def test_losses_of_the_whole_batch_see_all_replicas(two_replicas, name, reduction):
    difference = two_replicas("tasks.replica_cases.coupled", loss=name, reduction=reduction)
    assert difference["value"] < 1e-5
    assert difference["gradient"] < 1e-5


def test_a_loss_of_the_whole_batch_without_reduction_is_refused(two_replicas):
    assert "Received: reduction=None, 2 replicas" in two_replicas("tasks.replica_cases.refused")
