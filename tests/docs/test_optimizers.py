"""docs/optimizers.md: its code runs and prints what it says."""

import contextlib
import io
import re
from pathlib import Path

import keras
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "optimizers.md").read_text("utf-8")


@pytest.fixture
def policy():
    """The page sets a dtype policy; no other test may see it."""
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


def test_the_code_prints_what_the_page_shows(tmp_path, policy):
    names, count = {}, 0
    with contextlib.chdir(tmp_path):
        for match in re.finditer(r"```python\n(.*?)```(?:\n```text\n(.*?)```)?", PAGE, re.DOTALL):
            output = io.StringIO()
            source = "\n" * PAGE[: match.start(1)].count("\n") + match[1]
            with contextlib.redirect_stdout(output):
                exec(compile(source, "docs/optimizers.md", "exec"), names)
            assert output.getvalue() == (match[2] or "")
            count += 1
    assert count == 8
