"""bert4keras loads the weights that we save, and then gives the same outputs as before."""

import keras
import numpy as np
import pytest
from legacy.oracle import run_legacy
from legacy.parity import assert_parity, encoder_of, facts

from keras_ext.bert4keras import (
    build_transformer_model,
    convert,
    load_bert4keras_weights,
    save_bert4keras_weights,
)
from keras_ext.bert4keras.legacy_hdf5 import read_legacy_hdf5

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The config has keys without a meaning"),
]

# Every kind of encoder, with all the heads that it has.
ENCODERS = (
    "albert-nsp-mlm",
    "albert-unshared",
    "bert-nsp-mlm",
    "bert-pool-mlm",
    "electra-discriminator",
    "gau-alpha-mlm",
    "nezha-pool-mlm",
    "roformer-mlm",
    "roformer-v2-mlm",
)
WHOLE_MODELS = ("bert-two-heads", "gau-squared-relu", "roformer-efficient-global-pointer")
FLAT = ("bert-no-segments", "electra", "nezha", "roberta-mlm")


def ours(folder, name):
    """A model of ours with the weights of a case."""
    case = facts(folder)
    if name in FLAT:
        arguments = {key: case[key] for key in ("model", "application", "gelu")}
        model = build_transformer_model(folder / "config.json", **arguments, **case["kwargs"])
    else:
        model = encoder_of(case)
    load_bert4keras_weights(model, folder / "weights.h5")
    return model


@pytest.fixture(scope="module")
def reloaded(legacy, tmp_path_factory):
    """The folder with what bert4keras gives after it has loaded our files."""
    saved = tmp_path_factory.mktemp("ours")
    for name in (*ENCODERS, *FLAT):
        save_bert4keras_weights(ours(legacy / name, name), saved / f"{name}.h5")
    for name in WHOLE_MODELS:
        convert(legacy / name / "model.h5", saved / "model.keras")
        model = keras.models.load_model(saved / "model.keras")
        save_bert4keras_weights(model, saved / f"{name}.h5")
    run_legacy("reload.py", legacy, saved)
    return saved


@pytest.mark.slow
@pytest.mark.parametrize("key", ["order", "names"])
@pytest.mark.parametrize("name", [*ENCODERS, *FLAT, *WHOLE_MODELS])
def test_bert4keras_loads_what_we_save(legacy, reloaded, name, key):
    outputs = np.load(reloaded / f"{name}-{key}.npz")
    outputs = [np.nan_to_num(outputs[i], neginf=-1e30) for i in outputs]
    assert_parity(outputs, np.load(legacy / name / "data.npz"), tolerance=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert-nsp-mlm", "albert-nsp-mlm", "bert-pool-mlm"])
def test_a_flat_model_is_saved_in_the_order_of_bert4keras_too(legacy, tmp_path, name):
    folder, case = legacy / name, facts(legacy / name)
    model = build_transformer_model(folder / "config.json", model=case["model"], **case["kwargs"])
    save_bert4keras_weights(model, tmp_path / "flat.h5")
    save_bert4keras_weights(encoder_of(case), tmp_path / "encoder.h5")
    orders = [list(read_legacy_hdf5(path).layers) for path in sorted(tmp_path.iterdir())]
    assert orders[0] == orders[1] == list(read_legacy_hdf5(folder / "weights.h5").layers)
