"""Every example in a docstring runs, and every public object has one."""

import doctest
import inspect
import pkgutil
import re
from importlib import import_module

import keras
import numpy as np
import pytest
from test_api import MODULES, public_names

import keras_ext

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def examples():
    """The docstrings with examples of all modules, each with a namespace of its own."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for found in pkgutil.walk_packages(keras_ext.__path__, "keras_ext."):
        module = import_module(found.name)
        names = {**vars(module), "keras": keras, "np": np}
        tests = finder.find(module, found.name, module, globs=names)
        yield from (test for test in tests if test.examples)


def public_objects():
    """The public functions and classes, by dotted name."""
    for module in MODULES:
        for name in public_names(module):
            if callable(getattr(module, name)):
                yield pytest.param(getattr(module, name), id=f"{module.__name__}.{name}")


@pytest.mark.slow
@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_the_example_runs(example):
    report = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    assert runner.run(example, out=report.append).failed == 0, "".join(report)


def scripts():
    """The scripts in the docstrings of public objects; what imports nothing shows a call on files."""
    for case in public_objects():
        docstring = inspect.cleandoc(case.values[0].__doc__ or "")
        for source in re.findall(r"```python\n(.*?)```", docstring, re.DOTALL):
            if source.startswith("import "):
                yield pytest.param(source, id=case.id)


@pytest.mark.parametrize("source", list(scripts()))
def test_the_script_runs(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(source, "a docstring", "exec"), {})


@pytest.mark.parametrize("public", list(public_objects()))
def test_a_public_object_has_a_docstring_with_an_example(public):
    docstring = public.__doc__ or ""
    has_example = ">>> " in docstring or "```python" in docstring
    assert has_example, f"{public.__name__} has no example"
