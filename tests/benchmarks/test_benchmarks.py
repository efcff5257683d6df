import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ner_pretrained import decode_bio

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("factored_loss.py", "--repeats 1 --heads 3 --cases 2 --batch 2 --length 16"),
        ("span_decoding.py", "--repeats 1 --batch 2 --length 32 --heads 5"),
        (
            "encoder_step.py",
            "--rounds 1 --layers-width 1x24 --batch 2 --length 8 --vocabulary 30 --modes graph "
            "--sides bert4keras/BERT KerasHub/BertBackbone",
        ),
    ],
)
def test_both_sides_give_the_same(script, arguments):
    """The scripts end with an error where the two sides they time differ.

    encoder_step.py compares the numbers of weights; a side that is not installed it leaves out.
    """
    child = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments.split()],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert child.returncode == 0, child.stderr[-2000:]
    assert "|---" in child.stdout


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ([0, 1, 2, 2, 0, 3], [[0, 1, 3], [1, 5, 5]]),
        ([1, 1, 2], [[0, 0, 0], [0, 1, 2]]),  # B B I
        ([2, 2, 0, 4], [[0, 0, 1], [1, 3, 3]]),  # an I that continues nothing starts a span
        ([1, 4, 4], [[0, 0, 0], [1, 1, 2]]),  # I of another type starts a span
        ([1, 0, 2], [[0, 0, 0], [0, 2, 2]]),
        ([], []),
    ],
)
def test_bio_tags_are_read_as_conlleval_does(tags, spans):
    np.testing.assert_array_equal(decode_bio(np.array(tags)), np.array(spans).reshape(-1, 3))
