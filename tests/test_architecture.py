"""Who may import whom, and whose names: read from the sources, nothing is run."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TENSORS = {"keras", "numpy"}
PARTS = {"ops", "activations", "initializers"}
METHODS = {"losses", "metrics", "optimizers", "callbacks", "training"}
MODELS = PARTS | {"layers", "models"}
# The rooms where text and tensors meet.
TASKS = MODELS | METHODS | {"checkpoints", "data", "files", "keras_internals", "tasks"}

# Part of the package -> the other parts and the third parties that it may import.
ARROWS = {
    "files": (set(), set()),
    "keras_internals": (set(), {"keras"}),
    "ops": (set(), TENSORS),
    "activations": ({"ops"}, TENSORS),
    "initializers": ({"ops"}, TENSORS),
    "layers": (PARTS | {"keras_internals"}, TENSORS),
    "models": (PARTS | {"layers"}, TENSORS),
    "checkpoints": (MODELS | {"files"}, TENSORS | {"h5py", "ml_dtypes", "safetensors"}),
    "bert4keras": (MODELS | {"files", "checkpoints"}, TENSORS | {"h5py"}),
    "losses": ({"ops"}, TENSORS),
    "metrics": ({"ops"}, TENSORS | {"scipy"}),
    "optimizers": ({"ops", "keras_internals"}, TENSORS),
    "callbacks": ({"ops", "keras_internals", "optimizers"}, TENSORS),
    "training": (PARTS | {"keras_internals", "layers", "metrics"}, TENSORS),
    "diffusion": ({"ops", "files", "keras_internals"}, TENSORS),
    "data": ({"files"}, {"numpy", "tokenizers"}),
    "tasks": (TASKS | {""}, TENSORS | {"tokenizers"}),  # "": the package, for its version
    "entities": (TASKS, TENSORS),
    "sentences": (TASKS, TENSORS | {"faiss"}),
}
# That re-exports the rooms which are built of it.
REEXPORTS = {"tasks/__init__.py": {"entities", "sentences"}}
# What nothing but TensorFlow can do: its checkpoints, replicas, sparse gradients, and the gradient of
# a loop that XLA compiles.
TENSORFLOW = {
    "checkpoints/tensorflow_checkpoint.py",
    "bert4keras/tf_format.py",
    "keras_internals.py",
    "ops/replicas.py",
    "ops/scan_blocks.py",
    "optimizers/replicas.py",
    "training/chunk_loop.py",
}
# That compile or differentiate by TensorFlow or by JAX, whichever there is.
BACKENDS = dict.fromkeys(
    ("diffusion/autodiff.py", "diffusion/compiled.py", "ops/jacobian.py"), {"tensorflow", "jax"}
)
IMPORTED_AS = {"scikit-learn": "sklearn", "faiss-cpu": "faiss", "pillow": "PIL"}
EVERYWHERE = set(sys.stdlib_module_names)
PACKAGE = sorted((ROOT / "keras_ext").rglob("*.py"))
SCRIPTS = sorted(
    path for name in ("examples", "benchmarks") for path in (ROOT / name).rglob("*.py")
)


def imported(source):
    """The dotted names that a source imports; relative ones begin with a dot."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def violations(source, part):
    """What a file of a part of the package imports and may not.

    Args:
        source: Text of the file.
        part: Folder or module of the package; `__init__` may import every part.
    """
    parts, third_parties = ARROWS.get(part, (None, TENSORS | {"tokenizers"}))
    bad = []
    for name in imported(source):
        top, _, rest = name.partition(".")
        inner = rest.partition(".")[0]
        if top == "keras_ext":
            allowed = parts is None or inner in parts | {part}
        else:
            allowed = top in EVERYWHERE | third_parties and f"{name}.".find("keras.src.") != 0
        if not allowed or name.startswith(".") or name.endswith(".*"):
            bad.append(name)
    return bad


def private_names(source):
    """What a script imports from the package and is not public."""
    return [name for name in imported(source) if name.startswith("keras_ext") and not public(name)]


def public(name):
    """Whether a dotted name is the package, one of its parts, or a name that a part exports."""
    _, *rest = name.split(".")
    if len(rest) < 2:
        return "_" not in "".join(rest)[:1] and rest != ["*"]
    folder = ROOT / "keras_ext" / rest[0]
    return len(rest) == 2 and folder.is_dir() and rest[1] in exported(folder / "__init__.py")


def exported(path):
    """The `__all__` of a source file."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return ast.literal_eval(node.value)
    return []


def part_of(path):
    return path.relative_to(ROOT / "keras_ext").with_suffix("").parts[0]


def test_every_part_of_the_package_is_in_the_table():
    assert {part_of(path) for path in PACKAGE} <= {*ARROWS, "__init__"}


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    bad, place = (
        violations(path.read_text("utf-8"), part_of(path)),
        path.relative_to(ROOT / "keras_ext"),
    )
    if place.as_posix() in TENSORFLOW:
        bad = [name for name in bad if name.partition(".")[0] != "tensorflow"]
    backends = BACKENDS.get(place.as_posix(), set())
    bad = [name for name in bad if name.partition(".")[0] not in backends]
    reexported = REEXPORTS.get(place.as_posix(), ())
    bad = [name for name in bad if name.split(".")[1] not in reexported]
    assert bad == []


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "other"), [("tensorflow", "jax"), ("jax", "tensorflow")])
def test_importing_the_package_loads_little_beside_keras(backend, other):
    # Keras loads some of these where they are installed, and with scikit-learn scipy.stats.
    absent = ["faiss", "keras_hub", "matplotlib", "sklearn", other]
    program = f"""if True:
        import sys
        sys.modules.update(dict.fromkeys({absent}))
        import keras
        before = set(sys.modules)
        import keras_ext
        print(*{{name.partition(".")[0] for name in set(sys.modules) - before}})"""
    environment = {**os.environ, "KERAS_BACKEND": backend}
    run = [sys.executable, "-c", program]
    loaded = subprocess.check_output(run, env=environment, cwd=ROOT, text=True).split()
    assert set(loaded) - EVERYWHERE <= {"keras_ext", "tokenizers", "safetensors"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_use_public_names_only(path):
    assert private_names(path.read_text("utf-8")) == []


def test_the_extra_brings_all_that_the_tests_import():
    given = ast.parse((ROOT / "setup.py").read_text("utf-8")).body[-1].value.keywords
    given = {k.arg: k.value for k in given if k.arg in ("install_requires", "extras_require")}
    required = ast.literal_eval(given["install_requires"])
    extra = ast.literal_eval(given["extras_require"])["test"]
    distributions = {re.split("[<>=]", line)[0] for line in required + extra}
    # One extra for each backend; tests/legacy has requirements of its own.
    tops = {"tensorflow", "bert4keras"}
    tops |= {IMPORTED_AS.get(d, d) for d in distributions}
    tests = ROOT / "tests"
    local = {path.stem for path in [*tests.rglob("*.py"), *SCRIPTS]} | {"tests", "keras_ext"}
    local |= {path.name for path in tests.iterdir()}
    for path in tests.rglob("*.py"):
        used = {name.partition(".")[0] for name in imported(path.read_text("utf-8"))}
        assert used - EVERYWHERE - local <= tops, path


@pytest.mark.parametrize(
    ("part", "source", "bad"),
    [
        ("data", "import keras", "keras"),
        ("data", "from keras_ext.ops import mask_scores", "keras_ext.ops.mask_scores"),
        ("ops", "from keras_ext import layers", "keras_ext.layers"),
        ("layers", "def f():\n    import tensorflow as tf", "tensorflow"),
        ("losses", "from keras_ext.layers.x import y", "keras_ext.layers.x.y"),
        ("metrics", "import keras_ext.losses", "keras_ext.losses"),
        ("models", "from keras_ext.checkpoints import names_in", "keras_ext.checkpoints.names_in"),
        ("checkpoints", "import keras_ext.bert4keras", "keras_ext.bert4keras"),
        ("entities", "from keras_ext.sentences import Hit", "keras_ext.sentences.Hit"),
        ("tasks", "from keras.src import backend", "keras.src.backend"),
        ("tasks", "from keras import src", "keras.src"),
        ("tasks", "import keras.src.backend", "keras.src.backend"),
        ("layers", "from .x import y", ".x.y"),
        ("layers", "from keras_ext.ops import *", "keras_ext.ops.*"),
        ("tasks", "import matplotlib.pyplot", "matplotlib.pyplot"),
    ],
)
def test_a_planted_violation_is_caught(part, source, bad):
    assert violations(source, part) == [bad]


def test_what_the_arrows_allow_is_not_a_violation():
    source = "import math\nimport keras\nfrom keras import ops\nfrom keras_ext.ops.x import y\n"
    assert violations(source + "from keras_ext.layers.x import z", "layers") == []


@pytest.mark.parametrize(
    "name",
    ["keras_ext.data.spans.resolve", "keras_ext.ops.nothing", "keras_ext._x", "keras_ext.*"],
)
def test_a_private_name_in_a_script_is_caught(name):
    module, _, last = name.rpartition(".")
    assert private_names(f"from {module} import {last}") == [name]


def test_public_names_in_a_script_are_no_violation():
    source = "import keras_ext\nfrom keras_ext import ops\nfrom keras_ext.ops import mask_scores"
    assert private_names(source) == []
