"""docs/from_bert4keras.md: its code runs and prints what it says, its names exist, none lacks."""

import ast
import contextlib
import io
import json
import re
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import h5py
import keras
import numpy as np
import pytest
from legacy.oracle import PACKAGES

from keras_ext.bert4keras import build_transformer_model, save_bert4keras_weights
from keras_ext.checkpoints import save_google_weights, save_huggingface
from keras_ext.layers import EfficientGlobalPointer
from keras_ext.models import BertEncoder

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "from_bert4keras.md").read_text("utf-8")
MODULES = ("backend", "layers", "models", "optimizers", "snippets", "tokenizers")
# Taken from elsewhere, but imported from bert4keras in many scripts.
HANDED_ON = {"backend.keras", "backend.K", "backend.tf", "snippets.uniout"}
LIBRARIES = ("keras_ext", "keras", "numpy", "scipy", "tokenizers", "unicodedata", "difflib")
LIBRARIES += ("concurrent.futures", "keras_hub")
# The sizes of the published model, and those of the one that stands in for it.
TINY = {"12, 12, 768, 3072": "1, 2, 32, 48", "21128": "14", "30522": "15", "768": "32"}
VOCABULARY = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[unused1]",
    "a",
    "##b",
    "bc",
    "京",
    "##京",
    "a京",
)
VOCABULARY += ("-", "x-", "-y")
# Under this name the page shows what was saved as a whole.
EMBEDDING = {"name": "Embedding-Token", "input_dim": 5, "output_dim": 4, "mask_zero": True}
POINTER = {"name": "spans", "heads": 2, "head_size": 4, "RoPE": True}


class Block(NamedTuple):
    """A fenced block: the comment before it, its language, its text, its first line."""

    marker: str
    language: str
    text: str
    line: int


def blocks():
    pattern = r"(?:<!-- ([^\n]*) -->\n)?^( *)```(\w+)\n(.*?)^ *```$"
    for match in re.finditer(pattern, PAGE, re.DOTALL | re.MULTILINE):
        marker, indent, language, text = match.groups()
        text = re.sub(f"^{indent}", "", text, flags=re.MULTILINE)
        yield Block(marker or "", language, text, PAGE[: match.start(4)].count("\n"))


def marked(marker):
    return next(block.text for block in blocks() if block.marker == marker)


def rows():
    """The cells of the tables, without their heads."""
    for line in PAGE.splitlines():
        heads = ("| bert4keras |", "| name in a saved file |", "|---")
        if line.startswith("|") and not line.startswith(heads):
            yield [cell.strip() for cell in line.strip("| ").split(" | ")]


def old_names():
    """The names of bert4keras in the left columns, such as "layers.GlobalPointer"."""
    names = (re.findall(r"`([^`]*)`", row[0]) for row in rows())
    return [name for group in names for name in group if name.partition(".")[0] in MODULES]


def defined(body):
    """The public names that the statements of a module define."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.If):
            yield from defined([*node.body, *node.orelse])


def resolve(name):
    """The object of a dotted name."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            found = import_module(".".join(parts[:end]))
            for part in parts[end:]:
                found = getattr(found, part)
            return found
    raise AttributeError(name)


def tiny(text):
    for size, smaller in TINY.items():
        text = re.sub(rf"(?<![\w-]){size}(?!\w)", smaller, text)
    return text


def write_whole_model(path):
    """A model of two layers as Keras 2 saves it, compiled."""
    rng = np.random.default_rng(0)
    layers = [("InputLayer", {"name": "Input-Token", "batch_input_shape": [None, None]}, [])]
    layers += [("Embedding", EMBEDDING, "Input-Token"), ("EfficientGlobalPointer", POINTER, EMBEDDING["name"])]  # fmt: skip
    config = {
        "name": "model",
        "layers": [
            {
                "class_name": kind,
                "name": config["name"],
                "config": {"dtype": "float32", **config},
                "inbound_nodes": [[[before, 0, 0, {}]]] if before else [],
            }
            for kind, config, before in layers
        ],
        "input_layers": [["Input-Token", 0, 0]],
        "output_layers": [["spans", 0, 0]],
    }
    weights = {
        "Embedding-Token": {"embeddings": (5, 4)},
        "spans": {"dense/kernel": (4, 8), "dense/bias": (8,), "dense_1/kernel": (8, 4), "dense_1/bias": (4,)},
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": config})
        file.attrs["training_config"] = json.dumps({"loss": "mse"})
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [name.encode() for name in weights]
        for layer, shapes in weights.items():
            names = [f"{layer}/{name}:0" for name in shapes]
            root.create_group(layer).attrs["weight_names"] = [name.encode() for name in names]
            for name, shape in zip(names, shapes.values(), strict=True):
                root[layer][name] = rng.normal(size=shape).astype("float32")


def write_files():
    """The files that the page opens, in the working folder."""
    google = Path("chinese_L-12_H-768_A-12")
    google.mkdir()
    config = {
        "vocab_size": len(VOCABULARY),
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "hidden_act": "gelu",
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
    }
    (google / "bert_config.json").write_text(json.dumps(config))
    (google / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", "utf-8")
    heads = {"with_pool": True, "with_nsp": True, "with_mlm": True}
    published = build_transformer_model(google / "bert_config.json", **heads)
    save_google_weights(published, google / "bert_model.ckpt")
    base = build_transformer_model(google / "bert_config.json")
    head = EfficientGlobalPointer(10, 64, name="efficient_global_pointer")
    save_bert4keras_weights(keras.Model(base.inputs, head(base.output)), "saved.h5")
    Path("saved.h5").rename("best_model.weights")
    write_whole_model("whole_model.h5")
    save_huggingface(BertEncoder(14, 1, 2, 32, 48), "bert-base-chinese")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The names that the code of the page defines, and (line, printed, expected) of each block."""
    folder = tmp_path_factory.mktemp("page")
    names, printed = {}, []
    code = [block for block in blocks() if not block.marker]
    with contextlib.chdir(folder):
        write_files()
        for block, following in zip(code, [*code[1:], None], strict=True):
            if block.language != "python":
                continue
            shown = following is not None and following.language == "text"
            output = io.StringIO()
            source = "\n" * block.line + tiny(block.text)  # for the line in a traceback
            with contextlib.redirect_stdout(output):
                exec(compile(source, "docs/from_bert4keras.md", "exec"), names)
            expected = tiny(following.text) if shown else ""
            printed.append((block.line, output.getvalue(), expected))
    return {**names, "printed": printed, "folder": folder}


@pytest.mark.slow
def test_the_code_prints_what_the_page_shows(page):
    assert len(page["printed"]) > 10
    wrong = [entry for entry in page["printed"] if entry[1] != entry[2]]
    assert wrong == []


@pytest.mark.parametrize("name", ["from_bert4keras.py", "from_bert4keras_short.py"])
def test_a_quoted_script_is_the_file(name):
    path = f"examples/{name}"
    assert marked(f"file: {path}") == (ROOT / path).read_text("utf-8")
    assert len((ROOT / path).read_text("utf-8").splitlines()) <= 120


def test_the_old_script_takes_known_names_from_bert4keras():
    nodes = ast.walk(ast.parse(marked("not run: bert4keras")))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    used = [
        f"{node.module.removeprefix('bert4keras.')}.{alias.name}"
        for node in imports
        for alias in node.names
    ]
    assert len(used) > 8
    assert set(used) <= set(old_names())


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_of_bert4keras_has_a_row(module):
    path = PACKAGES / "bert4keras" / f"{module}.py"
    if not path.is_file():
        pytest.skip(f"bert4keras 0.11.5 is not installed in {PACKAGES.relative_to(ROOT)}")
    names = defined(ast.parse(path.read_text("utf-8")).body)
    public = {f"{module}.{name}" for name in names if not name.startswith("_")}
    listed = {name for name in old_names() if name.startswith(f"{module}.")}
    assert listed - HANDED_ON == public


def test_no_name_has_two_rows():
    assert len(old_names()) == len(set(old_names())) > 130


def test_every_row_says_what_to_do():
    for left, *right in rows():
        assert len(right) == 1, left
        assert re.search(r"`|no counterpart|not needed|the same|see |as ", right[0]), left


def test_every_name_on_the_right_exists():
    cells = [cell for row in rows() for cell in row[1:]]
    tables = {code for cell in cells for code in re.findall(r"`([^`]*)`", cell)}
    prose = {code for code in re.findall(r"`([^`\n]*)`", PAGE) if code.startswith("keras")}
    names = {re.match(r"[\w.]*", code).group() for code in tables | prose}
    names = {name for name in names if name.startswith(tuple(f"{top}." for top in LIBRARIES))}
    assert len(names) > 80
    for name in names:
        resolve(name)


def test_a_name_that_does_not_exist_is_found():
    with pytest.raises(AttributeError):
        resolve("keras.optimizers.Tiger")


def test_the_links_within_the_page_have_a_heading():
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= anchors


def test_the_lines_are_short():
    assert [line for line in PAGE.splitlines() if len(line) > 120] == []


def test_the_simplified_vocabulary_keeps_what_can_occur(page):
    kept = (page["folder"] / "vocab_simplified.txt").read_text("utf-8").splitlines()
    assert kept == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "##b", "bc", "京", "-"]
    assert page["tokenizer"].vocabulary_size == len(kept)


def test_two_texts_are_cut_from_the_longer_one(page):
    ids, segments = page["encode_pair"](page["tokenizer"], "a a a a a", "bc bc", max_length=8)
    a, bc = (page["backend"].token_to_id(token) for token in ("a", "bc"))
    start, end = page["tokenizer"].start_id, page["tokenizer"].end_id
    assert ids == [start, a, a, a, end, bc, bc, end]
    assert segments == [0, 0, 0, 0, 0, 1, 1, 1]
