"""The public names and the registered names are a promise: a golden file holds them."""

import ast
import inspect
import io
import tokenize
from importlib import import_module
from pathlib import Path

import keras
import pytest

import keras_ext

GOLDEN = Path(__file__).with_name("golden") / "api.txt"
SOURCES = sorted(Path(keras_ext.__file__).parent.rglob("*.py"))
MODULES = [import_module(f"keras_ext.{name}") for name in keras_ext.__all__]


def public_names(module):
    """The names in `__all__`, or else those that the module itself defines."""
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    return getattr(module, "__all__", sorted(own))


def api():
    """One line for each public name, and one for each name under which Keras saves an object."""
    names = [f"{module.__name__}.{name}" for module in MODULES for name in public_names(module)]
    registered = keras.saving.get_custom_objects()
    return [*names, *sorted(name for name in registered if name.startswith("keras_ext>"))]


def test_the_public_names_are_those_of_the_golden_file():
    assert api() == GOLDEN.read_text("utf-8").splitlines(), (
        "The API changed. If it was meant to: `python tests/test_api.py` writes the file anew."
    )


@pytest.mark.parametrize("module", [keras_ext, *MODULES], ids=lambda module: module.__name__)
def test_public_names_are_sorted_and_exist(module):
    names = list(public_names(module))
    assert names == sorted(set(names))
    assert all(hasattr(module, name) for name in names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_file_can_be_read_in_one_sitting(path):
    assert code_lines(path.read_text("utf-8")) <= 200


def code_lines(source):
    """The lines of a source that hold code: no docstrings, comments or empty lines."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    texts = [node.body[0] for node in nodes if ast.get_docstring(node) is not None]
    documented = {line for text in texts for line in range(text.lineno, text.end_lineno + 1)}
    layout = {tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    kept = [token for token in tokens if token.type not in layout | {tokenize.ENDMARKER}]
    held = {line for t in kept for line in range(t.start[0], t.end[0] + 1)}
    return len(held - documented)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_no_public_name_is_a_module_or_private(module):
    values = {name: getattr(module, name) for name in public_names(module)}
    assert not [n for n, value in values.items() if inspect.ismodule(value) or n.startswith("_")]


if __name__ == "__main__":
    GOLDEN.write_text("\n".join(api()) + "\n", "utf-8")
