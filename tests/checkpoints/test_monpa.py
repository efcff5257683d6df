"""Real weights of an ALBERT: MONPA, which tags traditional Chinese (non-commercial: tests only)."""

import importlib.util
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_ext.checkpoints import encoder_from_huggingface, load_huggingface_weights
from keras_ext.models import AlbertEncoder
from tests.checkpoints.legacy_torch_file import read_legacy_torch_file
from tests.models import numpy_albert

# The layers of MONPA behind the encoder: a classifier of tags and a conditional random field.
TAGGER = (
    "classifier.bias",
    "classifier.weight",
    "crf_layer.end_transitions",
    "crf_layer.start_transitions",
    "crf_layer.transitions",
)
SENTENCES = ["蔡英文總統今天受邀參加台北市政府所舉辦的陽明山馬拉松比賽。", "我在臺灣大學念書"]


@pytest.fixture(scope="module")
def package():
    """The folder of the package. It is never imported: that would import PyTorch."""
    spec = importlib.util.find_spec("monpa")
    if spec is None:
        pytest.skip("pip install --no-deps monpa==0.3.3 brings the real weights")
    return Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="module")
def weights_file(package):
    return package / "model" / "monpa_model_8000.pt"


@pytest.fixture(scope="module")
def values(weights_file):
    return read_legacy_torch_file(weights_file)


@pytest.fixture
def folder(package, values, tmp_path):
    """The weights as safetensors, beside the config."""
    save_file(values, tmp_path / "model.safetensors")
    shutil.copy(package / "albert_config" / "albert_config_mo.json", tmp_path / "config.json")
    return tmp_path


@pytest.fixture
def batch(package):
    """The sentences, a character a token. One line stands twice in the vocabulary, and counts once."""
    lines = (package / "vocab_monpa.vocab").read_text("utf-8").splitlines()
    numbers = {token: i for i, token in enumerate(dict.fromkeys(lines))}
    ids = np.zeros((2, max(map(len, SENTENCES)) + 2), "int32")
    mask = np.zeros(ids.shape, bool)
    for row, text in enumerate(SENTENCES):
        tokens = [numbers[token] for token in ("[CLS]", *text, "[SEP]")]
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = True
    return {"token_ids": ids, "segment_ids": np.zeros_like(ids), "padding_mask": mask}


@pytest.mark.slow
def test_hidden_states_are_those_of_the_formula(folder, values, batch, rng):
    encoder = encoder_from_huggingface(folder, allow_unused=TAGGER)
    assert type(encoder) is AlbertEncoder
    batch["segment_ids"] = rng.integers(0, 2, batch["token_ids"].shape).astype("int32")
    output = np.array(encoder(batch))
    names = {name.removeprefix("albert."): value for name, value in values.items()}
    for i, mask in enumerate(batch["padding_mask"]):
        ids = batch["token_ids"][i], batch["segment_ids"][i]
        hidden = numpy_albert.forward(names, 12, 8, *ids, mask, 1e-12, numpy_albert.relu)
        np.testing.assert_allclose(output[i][mask], hidden[mask], atol=1e-4)
        assert np.abs(hidden).max() > 1


def test_the_tagger_built_on_them_finds_the_words_that_the_package_finds(
    package, folder, values, batch
):
    """The numbers are not only consistent: they mean what the authors trained them for."""
    hidden = np.array(encoder_from_huggingface(folder, allow_unused=TAGGER)(batch))
    scores = hidden[0] @ values["classifier.weight"].T + values["classifier.bias"]
    tags = (package / "pos.tgt.dict").read_text("utf-8").splitlines()
    best = [tags[i] for i in best_path(scores, values)][1:-1]
    words = ""
    for character, tag in zip(SENTENCES[0], best, strict=True):
        bound, *_, label = tag.split("-")
        words += character + (f"/{label} " if bound in "ES" else "")
    # What `monpa.pseg(SENTENCES[0])` of monpa 0.3.3 with PyTorch gives.
    assert (
        words.split()
        == (
            "蔡英文/PER 總統/Na 今天/Nd 受/P 邀/VF 參加/VC 台北市政府/ORG 所/D 舉辦/VC 的/DE 陽明山/LOC "
            "馬拉松/Na 比賽/Na 。/PERIODCATEGORY"
        ).split()
    )


def best_path(scores, values):
    """Viterbi's: the best sum of scores (n, tags) and of transitions between them."""
    total, back = scores[0] + values["crf_layer.start_transitions"], []
    for step in scores[1:]:
        sums = total[:, None] + values["crf_layer.transitions"]
        back.append(sums.argmax(0))
        total = sums.max(0) + step
    path = [(total + values["crf_layer.end_transitions"]).argmax()]
    for pointers in back[::-1]:
        path.append(pointers[path[-1]])
    return path[::-1]


def test_only_the_tagger_is_left_over(folder):
    encoder = encoder_from_huggingface(folder, with_pool=True, allow_unused=TAGGER)
    report = load_huggingface_weights(encoder, folder, allow_unused=TAGGER)
    assert report.unused == TAGGER and report.missing == ()
    assert len(report.loaded) == len(encoder.weights) == 25
    with pytest.raises(ValueError, match="unused: classifier.bias\n.*unused: classifier.weight"):
        load_huggingface_weights(encoder, folder)


def test_neither_pytorch_nor_the_package_is_imported(weights_file):
    program = (
        "import sys\n"
        "from tests.checkpoints.legacy_torch_file import read_legacy_torch_file\n"
        "assert len(read_legacy_torch_file(sys.argv[1])) == 30\n"
        "assert not {'torch', 'monpa'} & set(sys.modules)\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", program, str(weights_file)]
    subprocess.run(command, check=True, cwd=root, timeout=120)


def test_the_file_itself_is_refused_as_a_pickle(package, folder, weights_file):
    encoder = encoder_from_huggingface(folder, allow_unused=TAGGER)
    with pytest.raises(ValueError, match="the file is a pickle, which could run any code"):
        load_huggingface_weights(encoder, weights_file)


# === The reader of the tests itself ===
def test_a_damaged_file_is_refused(weights_file, tmp_path):
    content = weights_file.read_bytes()
    for change, match in (
        (content[:-1], "cut off or of another size"),
        (content + b"x", "more behind the last storage"),
        (content.replace(b"OrderedDict", b"UserDict", 1), "A name that no dict of tensors needs"),
        (content[:3] + b"\x09" + content[4:], "Not an old PyTorch file|opcode"),
    ):
        (tmp_path / "x.pt").write_bytes(change)
        with pytest.raises(ValueError, match=match):
            read_legacy_torch_file(tmp_path / "x.pt")


def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(weights_file, tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    content = weights_file.read_bytes()
    start = content.index(b"ccollections") - 2  # the pickle of the tensors
    for trap in (Trap(), {"weight": Trap()}):
        (tmp_path / "x.pt").write_bytes(content[:start] + pickle.dumps(trap, protocol=2))
        with pytest.raises(ValueError, match="A name that no dict of tensors needs.*open"):
            read_legacy_torch_file(tmp_path / "x.pt")
    assert not (tmp_path / "sprung").exists()
