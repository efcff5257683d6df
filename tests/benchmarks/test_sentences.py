"""The scripts about sentence vectors, small."""

import cached_contrastive
import cosent
import encode
import flatnce
import keras
import numpy as np
import pytest
import sts

pytestmark = pytest.mark.slow


def test_the_losses_that_are_timed_are_equal():
    rows, errors = cosent.from_vectors([16], 8, repeats=1)
    assert rows
    for *_, loss, value, gradient in errors:
        if loss == "CoSENT":
            assert max(value, gradient) < 1e-5


@pytest.mark.parametrize("loss", list(cached_contrastive.LOSSES))
def test_the_training_steps_that_are_timed_are_equal(loss):
    """The script ends with an error where they are not."""
    cached_contrastive.check_equal(loss, {"chunk": 4, "length": 8, "layers": 1, "width": 16})


def test_rounding_table(capsys):
    flatnce.main("--parts rounding --draws 1 --gaps 24 --batch 4".split())
    table = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if "|" in line]
    errors = {(row[-3].strip(), row[-2].strip()): row[-1].strip() for row in table[2:]}
    assert float(errors["cross-entropy", "positive"]) == 1.0  # lost altogether
    assert float(errors["softplus", "positive"]) < 1e-4


@pytest.mark.parametrize("name", sts.LOSSES)
def test_each_arm_learns_from_what_its_loss_takes(name):
    pairs = [("a", "b", 5.0), ("c", "d", 1.2), ("e", "f", 4.0)]
    examples, loss, head = sts.learnt_from(name, pairs)
    assert len(examples) == (2 if name == "InfoNCE" else 3)
    vectors = np.random.default_rng(0).normal(size=(len(examples), 2, 4)).astype("float32")
    labels = np.array([example[2] if len(example) == 3 else -1 for example in examples])
    value = loss(labels, vectors if head is None else head(vectors))
    assert float(keras.ops.convert_to_numpy(value)) > 0.0


def test_no_two_texts_of_the_corpus_are_alike():
    assert len(set(encode.corpus(1000))) == 1000
