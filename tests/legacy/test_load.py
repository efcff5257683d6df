"""The files that bert4keras saves fill our models, which then give its outputs."""

import shutil

import h5py
import numpy as np
import pytest
from legacy import cases
from legacy.parity import assert_parity, encoder_of, facts, inputs_of

from keras_ext.bert4keras import build_transformer_model, load_bert4keras_weights
from keras_ext.bert4keras.legacy_hdf5 import read_legacy_hdf5
from keras_ext.bert4keras.tf_format import read_tf_format

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The config has keys without a meaning"),
]

FILES = ("weights.h5", "model.h5", "tf_format.weights")
REWRITTEN = {**cases.OLD_ORDER, **cases.KERAS_2_3}
# Encoders as other versions write them.
OLD = [name for name, source in REWRITTEN.items() if source in cases.ENCODERS]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*cases.ENCODERS, *OLD])
def test_every_format_fills_an_encoder_that_gives_the_outputs_of_bert4keras(legacy, name):
    folder, case = legacy / name, facts(legacy / name)
    encoder, data = encoder_of(case), np.load(folder / "data.npz")
    reports = []
    for file in FILES[: 2 if name in OLD else 3]:
        for weight in encoder.weights:
            weight.assign(np.full(weight.shape, 0.1))
        reports.append(load_bert4keras_weights(encoder, folder / file))
        outputs = encoder({**inputs_of(data), "padding_mask": data["mask"]})
        outputs = outputs if isinstance(outputs, dict) else {"sequence_output": outputs}
        assert_parity([outputs[name] for name in case["outputs"]], data)
    assert len(set(reports)) == 1 and reports[0].missing == reports[0].unused == ()
    assert len(reports[0].loaded) == len(encoder.weights)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert-nsp-mlm", "roformer-lm", "nezha-pool-mlm", "gau-alpha-mlm"])
def test_a_model_of_build_transformer_model_is_filled_alike(legacy, name):
    folder, case = legacy / name, facts(legacy / name)
    data = np.load(folder / "data.npz")
    arguments = {key: case[key] for key in ("model", "application", "gelu")}
    model = build_transformer_model(folder / "config.json", **arguments, **case["kwargs"])
    load_bert4keras_weights(model, folder / "weights.h5")
    assert_parity(model(list(inputs_of(data).values())), data)


def test_heads_that_the_encoder_lacks_are_left_over(legacy):
    folder = legacy / "bert-nsp-mlm"
    case, data = facts(folder), np.load(folder / "data.npz")
    encoder = encoder_of({**case, "kwargs": {}})
    for file in FILES:
        report = load_bert4keras_weights(encoder, folder / file)
        assert {name.partition("/")[0] for name in report.unused} == {
            "MLM-Bias",
            "MLM-Dense",
            "MLM-Norm",
            "NSP-Proba",
            "Pooler-Dense",
        }
        output = encoder({**inputs_of(data), "padding_mask": data["mask"]})
        assert_parity([output], {"mask": data["mask"], "output_0": data["hidden"]})


@pytest.mark.parametrize("name", cases.HEAD_MODELS)
def test_both_formats_hold_the_same_weights_by_layer(legacy, name):
    hdf5 = read_legacy_hdf5(legacy / name / "weights.h5").layers
    checkpoint = read_tf_format(legacy / name / "tf_format.weights")
    if "nested" not in name:  # where HDF5 has one group for the inner model
        assert hdf5.keys() == checkpoint.keys()
    arrays = [
        sorted(value.tobytes() for weights in stored.values() for value in weights.values())
        for stored in (hdf5, checkpoint)
    ]
    assert arrays[0] == arrays[1]


def test_a_cut_file_of_keras_changes_nothing(legacy, tmp_path):
    case = facts(legacy / "bert")
    encoder = encoder_of(case)
    before = encoder.get_weights()
    content = (legacy / "bert" / "weights.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(ValueError, match=f"cut off: it has .* of {len(content)} bytes"):
        load_bert4keras_weights(encoder, tmp_path / "cut.h5")
    for file in (legacy / "bert").glob("tf_format*"):
        shutil.copy(file, tmp_path)
    data = tmp_path / "tf_format.weights.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:5000])
    with pytest.raises(ValueError, match="not whole: .*layer_with_weights-1"):
        load_bert4keras_weights(encoder, tmp_path / "tf_format.weights")
    data.unlink()
    with pytest.raises(ValueError, match="no data file"):
        load_bert4keras_weights(encoder, tmp_path / "tf_format.weights")
    for old, new in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_index_of_tensorflows_format_may_be_named_itself(legacy):
    encoder = encoder_of(facts(legacy / "bert"))
    report = load_bert4keras_weights(encoder, legacy / "bert" / "tf_format.weights.index")
    assert len(report.loaded) == len(encoder.weights)


def test_a_weight_of_another_shape_is_named_in_tensorflows_format_too(legacy):
    case = facts(legacy / "bert")
    encoder = encoder_of({**case, "config": {**case["config"], "vocab_size": 41}})
    message = r"shape: Embedding-Token/embeddings, expected \(41, 16\), found \(40, 16\)"
    with pytest.raises(ValueError, match=message):
        load_bert4keras_weights(encoder, legacy / "bert" / "tf_format.weights")


def test_what_a_layer_was_called_is_read_from_tensorflows_format(legacy):
    stored = read_tf_format(legacy / "bert-compiled" / "tf_format.weights")
    with h5py.File(legacy / "bert-compiled" / "weights.h5") as file:
        names = [
            name for name in file.attrs["layer_names"] if len(file[name].attrs["weight_names"])
        ]
    assert list(stored) == names
    assert set(stored["tags"]) == {"kernel", "bias"}


def test_the_newer_formats_of_tf_keras_are_refused_with_what_to_do(legacy):
    folder = legacy / "bert-newer-formats"
    encoder = encoder_of(facts(folder))
    with pytest.raises(ValueError, match=r"model.save_weights\('name.h5'\)"):
        load_bert4keras_weights(encoder, folder / "newer.weights.h5")
    with pytest.raises(ValueError, match=r"\.keras file of tf.keras.*model.save\('name.h5'\)"):
        load_bert4keras_weights(encoder, folder / "newer.keras")
