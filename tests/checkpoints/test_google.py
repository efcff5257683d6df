import os
import pickle
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_ext import models
from keras_ext.checkpoints import (
    load_google_weights,
    names_in,
    save_google_weights,
    tensorflow_checkpoint,
)
from keras_ext.checkpoints.tensorflow_checkpoint import read_tensors, tensor_names, write_tensors
from tests.models.tiny_encoders import ENCODERS, bare, equal, make, zeros

tensorflow = pytest.importorskip("tensorflow")
WORDS = "bert/embeddings/word_embeddings"
BIAS = "cls/predictions/output_bias"
QUERY = "bert/encoder/layer_0/attention/self/query/kernel"


@pytest.fixture
def bert():
    return make(models.BertEncoder)


@pytest.fixture
def prefix(bert, tmp_path):
    """The checkpoint of `bert`."""
    path = tmp_path / "published" / "bert_model.ckpt"
    save_google_weights(bert, path)
    return path


def rewrite(prefix, change):
    """Writes the checkpoint anew, with its tensors changed."""
    values = read_tensors(prefix, tensor_names(prefix))
    change(values)
    write_tensors(prefix, values)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS)
def test_what_is_saved_comes_back_bit_by_bit(encoder, tmp_path):
    model = make(encoder)
    save_google_weights(model, tmp_path / "model.ckpt")
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["model.ckpt.data-00000-of-00001", "model.ckpt.index"]
    again = zeros(make(encoder))
    report = load_google_weights(again, tmp_path / "model.ckpt")
    assert equal(model, again) and report.unused == ()
    assert len(report.loaded) == len(model.trainable_weights)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS)
def test_heads_that_an_encoder_was_not_given_are_left_over(encoder, tmp_path):
    model = make(encoder)
    save_google_weights(model, tmp_path / "model.ckpt")
    encoder_alone = bare(encoder, num_segments=0)
    report = load_google_weights(encoder_alone, tmp_path / "model.ckpt")
    layers = {layer.name for layer in encoder_alone.layers}
    left = [w for layer in model.layers if layer.name not in layers for w in layer.weights]
    assert len(report.unused) == len(left) > 0
    for layer in encoder_alone.layers:
        for old, new in zip(
            model.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(old, new)


def test_the_matrix_of_next_sentences_lies_as_in_googles_own_files(bert, prefix):
    kernel = bert.get_layer("NSP-Proba").get_weights()[0]
    value = read_tensors(prefix, ["cls/seq_relationship/output_weights"])
    np.testing.assert_array_equal(value["cls/seq_relationship/output_weights"], kernel.T)


@pytest.mark.parametrize("suffix", ["", ".index", "folder", "relative"])
def test_a_checkpoint_is_named_by_prefix_index_or_folder(bert, prefix, suffix, monkeypatch):
    path = prefix.parent if suffix == "folder" else f"{prefix}{suffix}"
    if suffix == "relative":
        monkeypatch.chdir(prefix.parent)
        path = prefix.name
    again = zeros(make(models.BertEncoder))
    load_google_weights(again, path)
    assert equal(bert, again)


def test_frozen_layers_are_loaded(bert, prefix):
    again = zeros(make(models.BertEncoder))
    again.trainable = False
    load_google_weights(again, prefix)
    assert equal(bert, again)


def test_slots_of_optimizers_are_named_but_not_read(bert, prefix):
    slots = [
        f"{QUERY}/{slot}" for slot in ("adam_m", "adam_v", "lamb_m", "lamb_v", "Adam", "Adam_1")
    ]
    slots += ["global_step", "beta1_power", "beta2_power", "loss_scale", "current_loss_scale"]
    slots += ["good_steps"]
    rewrite(prefix, lambda values: values.update({name: np.zeros((2, 2)) for name in slots}))
    # The last of them could not be read.
    data = prefix.with_name(f"{prefix.name}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-1])
    again = zeros(make(models.BertEncoder))
    assert load_google_weights(again, prefix).unused == tuple(sorted(slots))
    assert equal(bert, again)


def test_the_generator_of_an_electra_is_left_over(tmp_path):
    model = make(models.ElectraEncoder)
    save_google_weights(model, tmp_path / "model.ckpt")
    others = ["generator/encoder/layer_0/output/dense/kernel", "generator_predictions/output_bias"]
    rewrite(
        tmp_path / "model.ckpt", lambda values: values.update(dict.fromkeys(others, np.ones(2)))
    )
    again = zeros(make(models.ElectraEncoder))
    assert load_google_weights(again, tmp_path / "model.ckpt").unused == tuple(others)
    assert equal(model, again)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda v: v.pop(QUERY), f"missing: {QUERY}"),
        (lambda v: v.update(renamed=v.pop(QUERY)), f"missing: {QUERY}\n.*unused: renamed"),
        (
            lambda v: v.update({QUERY: v[QUERY][:, :5]}),
            rf"{QUERY}, expected \(8, 8\), found \(8, 5\)",
        ),
        (
            lambda v: v.update({WORDS: v[WORDS][:9]}),
            rf"{WORDS}, expected \(11, 4\), found \(9, 4\)",
        ),
        (lambda v: v.pop(BIAS), f"missing: {BIAS}"),
        (
            lambda v: v.update({WORDS: v[WORDS].astype("int8")}),
            f"dtype: {WORDS}, expected floats, found int8; quantised",
        ),
        (
            lambda v: v.update({WORDS: np.full((11, 4), np.nan, "float32")}),
            f"values: {WORDS}, 44 of 44 are not finite",
        ),
        (lambda v: v.update({"bert/pooler/more": np.ones(2)}), "unused: bert/pooler/more"),
    ],
    ids=["dropped", "renamed", "reshaped", "other vocabulary", "a wanted head"]
    + ["quantised", "not a number", "unknown"],
)
def test_a_damaged_tensor_is_named_and_nothing_is_loaded(prefix, change, match):
    rewrite(prefix, change)
    again = make(models.BertEncoder)
    again.set_weights([weight + 1 for weight in again.get_weights()])
    before = again.get_weights()
    with pytest.raises(ValueError, match=match):
        load_google_weights(again, prefix)
    for old, new in zip(before, again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_partial_load_reports_what_it_allowed(bert, prefix):
    rewrite(prefix, lambda values: values.update(other=values.pop(QUERY)))
    again = zeros(make(models.BertEncoder))
    report = load_google_weights(
        again, prefix, allow_missing=("*/query/kernel",), allow_unused=("o*",)
    )
    assert (report.missing, report.unused) == ((QUERY,), ("other",))
    assert not again.get_layer("Transformer-0-MultiHeadSelfAttention").get_weights()[0].any()


def test_one_str_is_no_tuple_of_patterns(prefix):
    rewrite(prefix, lambda values: values.pop(QUERY))
    for name in ("allow_missing", "allow_unused"):
        with pytest.raises(ValueError, match=f"tuple of patterns. Received: {name}='other/.*'"):
            load_google_weights(make(models.BertEncoder), prefix, **{name: "other/*"})


@pytest.mark.slow
@pytest.mark.parametrize("kept", [1.0, 0.5, 0.0])
def test_data_that_is_cut_off_names_the_tensors_that_are_not_whole(bert, prefix, kept):
    data = prefix.with_name(f"{prefix.name}.data-00000-of-00001")
    content = data.read_bytes()
    length = int(kept * len(content)) - (kept == 1.0)
    data.write_bytes(content[:length])
    again = make(models.BertEncoder)
    again.set_weights([weight + 1 for weight in bert.get_weights()])
    before = again.get_weights()
    with pytest.raises(
        ValueError, match="cut off or damaged; these tensors are not whole"
    ) as caught:
        load_google_weights(again, prefix)
    for old, new in zip(before, again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    lost = str(caught.value).partition("whole: ")[2].partition(". Received")[0].split(", ")
    # The tensors lie one after the other, 4 bytes a number, in the order of the table.
    rows = names_in(bert, "google")
    ends = np.cumsum([4 * np.prod(row.variable(bert).shape) for row in rows])
    expected = [row.name for row, end in zip(rows, ends, strict=True) if end > length]
    assert sorted(lost) == sorted(expected) and ends[-1] == len(content)


class Claims:
    """A reader of a file of two tensors, of which one claims 4 terabytes, the other twice the data."""

    shapes = {"huge": [2**20, 2**20], "twin": [8], "whole": [8]}

    def get_variable_to_shape_map(self):
        return self.shapes

    def get_variable_to_dtype_map(self):
        return dict.fromkeys(self.shapes, tensorflow.float32)

    def get_tensor(self, name):
        assert name != "huge"
        return np.ones(8, "float32")


def test_no_more_is_read_than_the_data_holds(tmp_path, monkeypatch):
    write_tensors(tmp_path / "x.ckpt", {"whole": np.ones(8, "float32")})
    monkeypatch.setattr(tensorflow_checkpoint, "_reader", lambda path: Claims())
    with pytest.raises(ValueError, match="these tensors are not whole: huge, twin. Received"):
        read_tensors(tmp_path / "x.ckpt", ["huge", "whole", "twin"])
    assert list(read_tensors(tmp_path / "x.ckpt", ["twin"])) == ["twin"]


def test_a_flipped_bit_in_the_data_is_found(prefix):
    data = prefix.with_name(f"{prefix.name}.data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[5] ^= 1
    data.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=f"not whole: {WORDS}. Received"):
        load_google_weights(make(models.BertEncoder), prefix)


def test_an_index_without_data_is_refused(prefix):
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").unlink()
    with pytest.raises(ValueError, match="an index but no data file"):
        load_google_weights(make(models.BertEncoder), prefix)


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", b"")


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(3)


BAD_FILES = {
    "a zip archive": write_zip,
    "an HTML or XML page": lambda path: path.write_text("<!DOCTYPE html><html>404</html>"),
    "empty": lambda path: path.write_bytes(b""),
    "a Git LFS pointer": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"),
    "a pickle": lambda path: path.write_bytes(pickle.dumps([1])),
    "a safetensors file": lambda path: save_file({"x": np.zeros(3)}, path),
    "an HDF5 file": write_hdf5,
    "of an unknown kind": lambda path: path.write_bytes(b"something else"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.parametrize("name", ["bert_model.ckpt", "bert_model.ckpt.index"])
def test_what_is_no_checkpoint_is_refused_by_its_kind(tmp_path, kind, name):
    BAD_FILES[kind](tmp_path / name)
    with pytest.raises(ValueError, match=f"Expected .* but the file is {kind}.*Received: path="):
        load_google_weights(make(models.BertEncoder), tmp_path / "bert_model.ckpt")


def test_data_of_another_kind_is_said_to_be_so(prefix):
    data = prefix.with_name(f"{prefix.name}.data-00000-of-00001")
    data.write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
    with pytest.raises(ValueError, match=f"not whole.*{data.name} is a Git LFS pointer"):
        load_google_weights(make(models.BertEncoder), prefix)


def test_an_index_that_is_damaged_or_cut_is_refused(prefix):
    index = prefix.with_name(f"{prefix.name}.index")
    content = index.read_bytes()
    for damaged, match in (
        (content[:-1], "or cut off"),
        (content[50:], "index of the checkpoint is damaged"),
        (content[:60] + b"????" + content[64:], "index of the checkpoint is damaged"),
    ):
        index.write_bytes(damaged)
        with pytest.raises(ValueError, match=match):
            load_google_weights(make(models.BertEncoder), prefix)


def test_a_path_without_one_checkpoint_is_refused(prefix, bert):
    with pytest.raises(ValueError, match="no such checkpoint.*bert_modell"):
        load_google_weights(bert, prefix.with_name("bert_modell.ckpt"))
    with pytest.raises(ValueError, match=r"exactly one checkpoint.*found=\[\]"):
        load_google_weights(bert, prefix.parents[1])
    save_google_weights(bert, prefix.with_name("other.ckpt"))
    with pytest.raises(
        ValueError, match=r"exactly one.*'bert_model.ckpt.index', 'other.ckpt.index'"
    ):
        load_google_weights(bert, prefix.parent)
    with pytest.raises(ValueError, match="for a pattern of files; rename"):
        load_google_weights(bert, "weights[1]/bert_model.ckpt")


def test_a_checkpoint_is_not_saved_where_it_could_not_be_loaded(bert, tmp_path):
    with pytest.raises(ValueError, match="for a pattern of files; rename"):
        save_google_weights(bert, tmp_path / "weights[1]" / "bert_model.ckpt")
    with pytest.raises(ValueError, match="the prefix of the files.*Received: path="):
        save_google_weights(bert, f"{tmp_path}/")
    assert not list(tmp_path.iterdir())
    assert not list(tmp_path.parent.glob(f"{tmp_path.name}.*"))


def test_kept_and_compound_tokens_change_the_vocabulary(bert, prefix):
    kept = [0, 5, 5, 2, 10]
    compounds = [[1, 2], ([0, 4, 3], [1, 2, 5])]
    again = zeros(make(models.BertEncoder, vocabulary_size=7))
    load_google_weights(again, prefix, keep_tokens=kept, compound_tokens=compounds)
    for layer in ("Embedding-Token", "MLM-Bias"):
        old, new = bert.get_layer(layer).get_weights()[0], again.get_layer(layer).get_weights()[0]
        np.testing.assert_array_equal(new[:5], old[kept])
        np.testing.assert_allclose(new[5], (old[5] + old[5]) / 2, rtol=1e-6)
        np.testing.assert_allclose(new[6], (old[0] + 2 * old[10] + 5 * old[2]) / 8, rtol=1e-5)
    rest = [
        layer.name for layer in bert.layers if layer.name not in ("Embedding-Token", "MLM-Bias")
    ]
    for name in rest:
        for old, new in zip(
            bert.get_layer(name).get_weights(), again.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(old, new)


def test_compound_tokens_alone_are_appended(bert, prefix):
    again = make(models.BertEncoder, vocabulary_size=12)
    load_google_weights(again, prefix, compound_tokens=[[3]])
    table = again.get_layer("Embedding-Token").get_weights()[0]
    np.testing.assert_array_equal(table[11], table[3])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"keep_tokens": [0, 11]}, r"ids in \[0, 11\).*keep_tokens with \[11\]"),
        ({"keep_tokens": [-1]}, r"keep_tokens with \[-1\]"),
        (
            {"keep_tokens": [0, 1], "compound_tokens": [[2]]},
            r"\[0, 2\).*compound_tokens with \[2\]",
        ),
        ({"compound_tokens": [[]]}, "compound_tokens with no ids"),
        ({"keep_tokens": [0, 1]}, rf"{WORDS}, expected \(11, 4\), found \(2, 4\)"),
    ],
)
def test_ids_outside_the_vocabulary_are_refused(prefix, arguments, match):
    with pytest.raises(ValueError, match=match):
        load_google_weights(make(models.BertEncoder), prefix, **arguments)


def test_a_weight_that_google_has_no_name_for_cannot_be_saved(tmp_path):
    model = make(models.RoFormerV2Encoder, with_mlm=True)
    with pytest.raises(ValueError, match="without a name: .*Output-Mapping/kernel"):
        save_google_weights(model, tmp_path / "model.ckpt")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_tensorflow_there_is_a_clear_error_and_the_package_works(tmp_path):
    """In a process of its own, with another backend."""
    pytest.importorskip("jax")
    (tmp_path / "x.ckpt.index").write_bytes(bytes.fromhex("57fb808b247547db"))
    (tmp_path / "x.ckpt.data-00000-of-00001").write_bytes(b"")
    program = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from keras_ext.checkpoints import load_google_weights\n"
        "from keras_ext.models import BertEncoder\n"
        "encoder = BertEncoder(9, 1, 1, 4, 8)\n"
        "try:\n"
        "    load_google_weights(encoder, sys.argv[1])\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-c", program, str(tmp_path / "x.ckpt")]
    output = subprocess.run(
        command, check=True, timeout=120, env=environment, capture_output=True, text=True
    )
    assert output.stdout.startswith("Only TensorFlow reads and writes its checkpoints; install it")
