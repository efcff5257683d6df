"""Our models from bert4keras' configs and checkpoints give the outputs that bert4keras gives."""

import json

import numpy as np
import pytest
from legacy import cases

from keras_ext.bert4keras import build_transformer_model

pytestmark = pytest.mark.slow

CASES = [name for name, case in cases.ENCODERS.items() if case.checkpoint]


def keywords(case):
    """The arguments of a case; JSON has no tuples, which bert4keras takes for weighted compounds."""
    arguments = dict(case["kwargs"])
    if "compound_tokens" in arguments:
        arguments["compound_tokens"] = [
            tuple(item) if isinstance(item[0], list) else item
            for item in arguments["compound_tokens"]
        ]
    return arguments


@pytest.mark.filterwarnings("ignore:The config has keys without a meaning")
@pytest.mark.parametrize("name", CASES)
def test_a_model_of_a_checkpoint_gives_the_outputs_of_bert4keras(legacy, name):
    folder = legacy / name
    case = json.loads((folder / "case.json").read_text("utf-8"))
    data = np.load(folder / "data.npz")
    model = build_transformer_model(
        folder / "config.json",
        folder / "bert_model.ckpt",
        model=case["model"],
        application=case["application"],
        gelu=case["gelu"],
        **keywords(case),
    )
    inputs = [data[key] for key in ("token_ids", "segment_ids", "position_ids") if key in data]
    outputs = model(inputs)
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    assert len(outputs) == len(case["outputs"]) > 0
    for i, output in enumerate(outputs):
        expected, output = data[f"output_{i}"], np.array(output)
        assert output.shape == expected.shape
        tokens = data["mask"] if output.ndim == 3 else slice(None)
        difference = np.abs(output - expected)[tokens].max() / np.abs(expected[tokens]).max()
        assert difference < 1e-5, case["outputs"][i]


@pytest.mark.filterwarnings("ignore:The config has keys without a meaning")
@pytest.mark.parametrize("name", ["albert", "bert-pool-mlm", "electra", "nezha", "roformer"])
def test_the_load_weights_of_keras_puts_each_weight_in_its_place(legacy, name):
    # The line of every old script. Keras goes by the order of layers and of their weights.
    folder = legacy / name
    case = json.loads((folder / "case.json").read_text("utf-8"))
    data = np.load(folder / "data.npz")
    model = build_transformer_model(folder / "config.json", model=case["model"], **keywords(case))
    model.load_weights(folder / "weights.h5")
    output = model([data["token_ids"], data["segment_ids"]])
    output = np.array(output[-1] if isinstance(output, list | tuple) else output)
    expected = data[f"output_{len(case['outputs']) - 1}"]
    difference = np.abs(output - expected)[data["mask"]].max() / np.abs(expected).max()
    assert difference < 1e-5
