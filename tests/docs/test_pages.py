"""The pages of docs: their code runs and prints what they say."""

import contextlib
import io
import re
from pathlib import Path

import keras
import pytest

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def policy():
    """The page sets a dtype policy; no other test may see it."""
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("optimizers.md", 7),
        ("attention.md", 7),
        ("sentence_vectors.md", 5),
        ("training.md", 2),
        ("entities.md", 12),
        ("diffusion.md", 8),
        ("flows.md", 4),
        ("sequences.md", 19),
    ],
)
def test_the_code_prints_what_the_page_shows(tmp_path, policy, name, blocks):
    page, names, count = (DOCS / name).read_text("utf-8"), {}, 0
    with contextlib.chdir(tmp_path):
        for match in re.finditer(r"```python\n(.*?)```(?:\n```text\n(.*?)```)?", page, re.DOTALL):
            output = io.StringIO()
            source = "\n" * page[: match.start(1)].count("\n") + match[1]
            with contextlib.redirect_stdout(output):
                exec(compile(source, name, "exec"), names)
            assert output.getvalue() == (match[2] or "")
            count += 1
    assert count == blocks
