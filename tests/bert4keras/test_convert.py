import base64
import json
import marshal

import h5py
import keras
import numpy as np
import pytest

from keras_ext.bert4keras import convert
from keras_ext.bert4keras.legacy_config import ACTIVATIONS, activation, lost_settings, policy
from keras_ext.bert4keras.legacy_hdf5 import write_legacy_hdf5


def layer(kind, name, *calls, **config):
    """A layer in the config of a model; a call is a list of (layer, call of it[, arguments])."""
    nodes = [
        [[source, number, 0, *(arguments or [{}])] for source, number, *arguments in call]
        for call in calls
    ]
    config = {"name": name, "trainable": True, "dtype": "float32", **config}
    return {"class_name": kind, "name": name, "config": config, "inbound_nodes": nodes}


def ids(name="ids", length=None):
    return layer("InputLayer", name, batch_input_shape=[None, length])


def vectors(name="x", width=4):
    return layer("InputLayer", name, batch_input_shape=[None, None, width])


def model_config(layers, inputs, outputs, kind="Functional"):
    config = {
        "name": "old",
        "layers": layers,
        "input_layers": [[name, 0, 0] for name in inputs],
        "output_layers": [[name, number, 0] for name, number in outputs],
    }
    return {"class_name": kind, "config": config}


@pytest.fixture
def save(tmp_path):
    """Writes a model as Keras 2 does."""

    def save(layers, inputs, outputs, weights=None, training=None, kind="Functional"):
        path = tmp_path / "old.h5"
        write_legacy_hdf5(path, weights or {"none": {}})
        with h5py.File(path, "r+") as file:
            config = model_config(layers, inputs, outputs, kind)
            file.attrs["model_config"] = json.dumps(config)
            if training:
                file.attrs["training_config"] = json.dumps(training)
        return path

    return save


@pytest.fixture
def run(save, tmp_path):
    """Converts a model and loads it."""

    def run(*arguments, **keywords):
        convert(save(*arguments, **keywords), tmp_path / "new.keras")
        return keras.models.load_model(tmp_path / "new.keras")

    return run


def dense(name, *calls, **config):
    return layer("Dense", name, *calls, **{"units": 3, "activation": "linear", **config})


def dense_weights(rng, rows=4, units=3):
    return {"kernel": rng.normal(size=(rows, units)), "bias": rng.normal(size=units)}


EMBEDDING = {"input_dim": 9, "output_dim": 4}
TOKENS = np.array([[3, 1, 2, 8], [5, 0, 7, 0], [0, 0, 4, 0]], "int32")
MASK = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [1, 0, 1, 0]], bool)


def test_a_layer_called_twice_is_one_layer_and_lists_keep_their_order(run, rng):
    weights = {"tags": dense_weights(rng)}
    layers = [vectors("a"), vectors("b"), dense("tags", [("a", 0)], [("b", 0)])]
    model = run(layers, ["b", "a"], [("tags", 1), ("tags", 0)], weights)
    a, b = rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 5, 4))
    outputs = model([b, a])
    for x, output in ((b, outputs[0]), (a, outputs[1])):
        expected = x @ weights["tags"]["kernel"] + weights["tags"]["bias"]
        np.testing.assert_allclose(np.array(output), expected, atol=1e-5)
    assert len(model.weights) == 2


def test_layers_need_not_be_listed_in_the_order_of_their_calls(run, rng):
    weights = {"first": dense_weights(rng), "second": dense_weights(rng, 3)}
    layers = [dense("second", [("first", 0)]), dense("first", [("x", 0)]), vectors()]
    model = run(layers, ["x"], [("second", 0)], weights, kind="Model")
    x = rng.normal(size=(1, 2, 4))
    expected = x
    for part in ("first", "second"):
        expected = expected @ weights[part]["kernel"] + weights[part]["bias"]
    np.testing.assert_allclose(np.array(model(x)), expected, atol=1e-5)


def test_calls_that_no_output_needs_do_no_harm(run, rng):
    weights = {"tags": dense_weights(rng)}
    layers = [vectors(), dense("tags", [("x", 0)]), dense("aside", [("tags", 0)])]
    layers.append(dense("further", [("aside", 0)]))
    model = run(layers, ["x"], [("tags", 0)], weights)
    x = rng.normal(size=(1, 2, 4))
    expected = x @ weights["tags"]["kernel"] + weights["tags"]["bias"]
    np.testing.assert_allclose(np.array(model(x)), expected, atol=1e-5)


def test_layers_that_keras_named_are_found_inside_a_model(run, rng):
    names = ["dense", "dense_1"]
    inner = [vectors(), dense("dense", [("x", 0)]), dense("dense_1", [("dense", 0)])]
    inner = model_config(inner, ["x"], [("dense_1", 0)])["config"]
    part = {"class_name": "Functional", "name": "part", "config": inner}
    part["inbound_nodes"] = [[["y", 0, 0, {}]]]
    values = [dense_weights(rng), dense_weights(rng, 3)]
    pairs = zip(names, values, strict=True)
    weights = {f"{name}/{key}": x for name, value in pairs for key, x in value.items()}
    model = run([vectors("y"), part], ["y"], [("part", 1)], {"part": weights})
    x = rng.normal(size=(1, 2, 4))
    expected = x
    for value in values:
        expected = expected @ value["kernel"] + value["bias"]
    np.testing.assert_allclose(np.array(model(x)), expected, atol=1e-5)


def test_how_a_model_inside_the_model_was_called_is_not_forgotten(save, tmp_path):
    inner = model_config([vectors(), dense("tags", [("x", 0)])], ["x"], [("tags", 0)])
    part = {"class_name": "Functional", "name": "part", "config": inner["config"]}
    part["inbound_nodes"] = [[["y", 0, 0, {"training": False}]]]
    path = save([vectors("y"), part], ["y"], [("part", 1)])
    with pytest.raises(ValueError, match=r"part \(Functional\): .*'training': False"):
        convert(path, tmp_path / "new.keras")


def masked_average(x, mask):
    return (x * mask[..., None]).sum(axis=1) / mask.sum(axis=1)[:, None]


def masked_maximum(x, mask):
    return np.where(mask[..., None], x, -np.inf).max(axis=1)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("GlobalAveragePooling1D", masked_average), ("GlobalMaxPooling1D", masked_maximum)],
)
@pytest.mark.parametrize("mask_zero", [True, False])
def test_pooling_passes_over_padding_where_the_embedding_masks_it(
    run, rng, kind, expected, mask_zero
):
    table = rng.normal(size=(9, 4)) - 5
    layers = [
        ids(),
        layer("Embedding", "table", [("ids", 0)], mask_zero=mask_zero, **EMBEDDING),
        layer("Dropout", "drop", [("table", 0)], rate=0.1, noise_shape=None, seed=None),
        layer(kind, "pool", [("drop", 0)], data_format="channels_last"),
    ]
    model = run(layers, ["ids"], [("pool", 0)], {"table": {"embeddings": table}})
    mask = MASK if mask_zero else np.ones_like(MASK)
    np.testing.assert_allclose(
        np.array(model(TOKENS)), expected(table[TOKENS], mask), rtol=1e-5, atol=1e-6
    )


def test_a_merged_position_is_a_token_only_where_it_is_one_in_all_inputs(run, rng):
    table = rng.normal(size=(9, 4))
    layers = [
        ids("a"),
        ids("b"),
        layer("Embedding", "table", [("a", 0)], [("b", 0)], mask_zero=True, **EMBEDDING),
        layer("Concatenate", "both", [("table", 0), ("table", 1)], axis=-1),
        layer("GlobalAveragePooling1D", "pool", [("both", 0)]),
    ]
    model = run(layers, ["a", "b"], [("pool", 0)], {"table": {"embeddings": table}})
    other = np.array([[3, 1, 0, 8], [5, 6, 7, 0], [1, 0, 0, 0]], "int32")
    mask = MASK & np.array([[1, 1, 0, 1], [1, 1, 1, 0], [1, 0, 0, 0]], bool)
    both = np.concatenate([table[TOKENS], table[other]], axis=-1)
    output = np.array(model([TOKENS, other]))
    np.testing.assert_allclose(output, masked_average(both, mask), rtol=1e-5, atol=1e-6)


def test_a_position_with_a_mask_and_one_without_keep_the_mask(run, rng):
    table = rng.normal(size=(9, 4))
    layers = [
        ids("a"),
        ids("b"),
        layer("Embedding", "one", [("a", 0)], mask_zero=True, **EMBEDDING),
        layer("Embedding", "two", [("b", 0)], mask_zero=False, **EMBEDDING),
        layer("Add", "sum", [("one", 0), ("two", 0)]),
        layer("GlobalAveragePooling1D", "pool", [("sum", 0)]),
    ]
    weights = {name: {"embeddings": table} for name in ("one", "two")}
    output = np.array(run(layers, ["a", "b"], [("pool", 0)], weights)([TOKENS, TOKENS]))
    np.testing.assert_allclose(output, masked_average(2 * table[TOKENS], MASK), rtol=1e-5)


def test_sequences_with_masks_are_not_joined_one_behind_another(save, tmp_path):
    layers = [
        ids(),
        layer("Embedding", "table", [("ids", 0)], mask_zero=True, **EMBEDDING),
        layer("Concatenate", "long", [("table", 0), ("table", 0)], axis=1),
    ]
    with pytest.raises(ValueError, match=r"long \(Concatenate\): joining sequences"):
        convert(save(layers, ["ids"], [("long", 0)]), tmp_path / "new.keras")


def test_inputs_that_are_looked_up_become_whole_numbers_and_others_stay(save, tmp_path, rng):
    layers = [
        ids(),
        vectors("x"),
        layer("Embedding", "table", [("ids", 0)], mask_zero=True, **EMBEDDING),
        layer("Add", "sum", [("table", 0), ("x", 0)]),
    ]
    weights = {"table": {"embeddings": rng.normal(size=(9, 4))}}
    target = tmp_path / "made" / "new.keras"
    convert(save(layers, ["ids", "x"], [("sum", 0)], weights), target, name="new")
    model = keras.models.load_model(target)
    assert [tensor.dtype for tensor in model.inputs] == ["int32", "float32"]
    assert [tensor.name for tensor in model.inputs] == ["ids", "x"] and model.name == "new"


def test_positions_that_nothing_looks_up_stay_numbers(run, rng):
    """bert4keras rounds down what is to be found in a table, and turns by fractions."""
    layers = [
        vectors("x"),
        ids("rows"),
        ids("angles"),
        layer("PositionEmbedding", "table", [("x", 0), ("rows", 0)], input_dim=9, output_dim=4),
        layer(
            "SinusoidalPositionEmbedding",
            "turns",
            [("x", 0), ("angles", 0)],
            output_dim=2,
            merge_mode="zero",
            custom_position_ids=True,
        ),
        attention("a", *[("table", 0, {"p_bias": "rotary"})] * 3, ("turns", 0)),
    ]
    parts = ("q_dense", "k_dense", "v_dense", "o_dense")
    weights = {
        "table": {"embeddings": rng.normal(size=(9, 4))},
        "a": {f"{part}/kernel": rng.normal(size=(4, 4)) for part in parts},
    }
    model = run(layers, ["x", "rows", "angles"], [("a", 0)], weights)
    assert [tensor.dtype for tensor in model.inputs] == ["float32", "int32", "float32"]
    x, rows = rng.normal(size=(1, 4, 4)), np.arange(4)[None]
    near, far, cut = (
        np.array(model([x, rows, angles])) for angles in (rows / 2, rows / 2 + 0.5, rows // 2)
    )
    np.testing.assert_allclose(far, near, atol=1e-5)
    assert np.abs(near - cut).max() > 1e-2


def test_all_layers_without_a_counterpart_are_listed_and_the_target_is_left_alone(save, tmp_path):
    (tmp_path / "new.keras").write_text("before")
    layers = [
        vectors(),
        dense("first", [("x", 0)], activation="hard_sigmoid"),
        layer("ConditionalRandomField", "crf", [("first", 0)], lr_multiplier=100),
        dense("second", [("crf", 0)]),
        layer("FeedForward", "gated", [("second", 0)], units=5, activation=["gelu", "linear"]),
        layer("Elsewhere", "mine", [("x", 0)]),
        layer("Dense", "third", [("x", 0)]),
    ]
    path = save(layers, ["x"], [("gated", 0), ("mine", 0)])
    with pytest.raises(ValueError) as caught:
        convert(path, tmp_path / "new.keras")
    message = str(caught.value)
    for line in (
        "first (Dense): the activation 'hard_sigmoid' has no counterpart",
        "crf (ConditionalRandomField): it has no counterpart",
        "gated (FeedForward): the gated form (a list of activations) has no counterpart",
        "mine (Elsewhere): it has no counterpart",
        "third (Dense): ",
    ):
        assert line in message, message
    assert "second" not in message and "load_bert4keras_weights" in message
    assert (tmp_path / "new.keras").read_text() == "before"


def test_the_code_of_a_lambda_is_never_run(save, tmp_path):
    sprung = tmp_path / "sprung"
    trap = compile(f"open({str(sprung)!r}, 'w')", "trap", "exec")
    code = base64.b64encode(marshal.dumps(trap)).decode()
    for name in ("CLS-token", "my-Pooler", "Attention-Mask"):
        layers = [vectors(), layer("Lambda", name, [("x", 0)], function=[code, None, None])]
        with pytest.raises(ValueError, match=rf"{name} \(Lambda\): .*never run"):
            convert(save(layers, ["x"], [(name, 0)]), tmp_path / "new.keras")
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("prefix", "module", "good"),
    [("", None, True), ("my-", None, True), ("", "__main__", False), ("other-", None, False)],
)
def test_a_lambda_is_known_by_bert4keras_name_for_it(save, run, rng, prefix, module, good):
    more = {"module": module} if module else {}
    layers = [
        ids(),
        layer("Embedding", f"{prefix[:3]}Embedding-Token", [("ids", 0)], **EMBEDDING),
        layer("Lambda", f"{prefix}Pooler", [(f"{prefix[:3]}Embedding-Token", 0)], **more),
    ]
    table = rng.normal(size=(9, 4)).astype("float32")
    weights = {f"{prefix[:3]}Embedding-Token": {"embeddings": table}}
    arguments = layers, ["ids"], [(f"{prefix}Pooler", 0)], weights
    if good:
        np.testing.assert_array_equal(np.array(run(*arguments)(TOKENS)), table[TOKENS[:, 0]])
    else:
        with pytest.raises(ValueError, match="never run"):
            run(*arguments)


def attention(name, *call, **config):
    sizes = {"heads": 2, "head_size": 2, "out_dim": 4, "key_size": 2, "use_bias": False}
    return layer("MultiHeadAttention", name, list(call), **{**sizes, **config})


X, Y = ("x", 0, {"a_bias": None}), ("y", 0, {"a_bias": None})


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        (attention("a", X, X, Y), "attention to another sequence"),
        (attention("a", X, X, X, normalization="softmax_plus"), "normalization='softmax_plus'"),
        (attention("a", X, X, X, attention_scale=False), "attention_scale=False"),
        (attention("a", X, X, X, return_attention_scores=True), "return_attention_scores=True"),
        (attention("a", *[("x", 0, {"p_bias": "t5_relative"})] * 4), "t5_relative"),
        (
            attention("a", *[("x", 0, {"a_bias": True})] * 4),
            "expected an attention mask as input, found a sequence",
        ),
        (attention("a", X, X, X, Y), "expected 3 inputs, found 4"),
        (attention("a", *[("x", 0, {"a_bias": True})] * 3), "expected 4 inputs, found 3"),
        (attention("a", *[("x", 0, {"colour": 1})] * 3), "'colour': 1"),
        (layer("MultiHeadAttention", "a", [X, X], num_heads=2), "Keras' own"),
        (layer("LayerNormalization", "a", [X], conditional=True), "conditional=True"),
        (layer("LayerNormalization", "a", [X], zero_mean=False, epsilon=1e-7), "zero_mean=False"),
        (layer("LayerNormalization", "a", [X], center=False, epsilon=1e-7), "bert4keras 0.10"),
        (layer("LayerNormalization", "a", [X], unit_variance=False), "unit_variance=False"),
        (layer("ScaleOffset", "a", [X], scale=0.5), "scale=0.5"),
        (layer("PositionEmbedding", "a", [X], merge_mode="mul"), "merge_mode='mul'"),
        (layer("SinusoidalPositionEmbedding", "a", [X], merge_mode="add"), "sines added"),
        (layer("LSTM", "a", [X], units=3, return_state=True), "return_state=True"),
        (layer("TimeDistributed", "a", [X], layer={}), "no counterpart"),
        (dense("a", [("x", 0, {"training": True})]), "'training': True"),
        (layer("Dropout", "a", [X], rate=0.5, other=3), "other=3"),
    ],
)
def test_a_setting_without_a_counterpart_is_named(save, tmp_path, part, fault):
    path = save([vectors(), vectors("y"), part], ["x", "y"], [("a", 0)])
    with pytest.raises(ValueError, match=rf"  a \(\w+\): [\s\S]*{fault}"):
        convert(path, tmp_path / "new.keras")


def test_a_norm_of_bert4keras_0_10_and_one_of_keras_are_the_same_layer(run, rng):
    x = rng.normal(size=(2, 3, 4))
    values = {"gamma": rng.normal(size=4), "beta": rng.normal(size=4)}
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3)
    expected = expected * values["gamma"] + values["beta"]
    for config in ({"center": True, "scale": True}, {"axis": [2]}, {"zero_mean": True}):
        norm = layer("LayerNormalization", "norm", [("x", 0)], epsilon=1e-3, **config)
        model = run([vectors(), norm], ["x"], [("norm", 0)], {"norm": values})
        np.testing.assert_allclose(np.array(model(x)), expected, atol=1e-5)


def test_regularizers_and_what_the_model_was_compiled_with_are_reported(save, tmp_path, rng):
    l2 = {"class_name": "L2", "config": {"l2": 0.1}}
    layers = [vectors(), dense("tags", [("x", 0)], kernel_regularizer=l2, bias_constraint=None)]
    training = {"loss": "mse", "metrics": None}
    path = save(layers, ["x"], [("tags", 0)], {"tags": dense_weights(rng)}, training)
    report = convert(path, tmp_path / "new.keras")
    assert report.dropped == ("loss", "tags: kernel_regularizer")
    assert report.layers == ("x", "tags")
    inner = {"class_name": "LSTM", "config": {"units": 3, "bias_constraint": l2}}
    assert lost_settings({"name": "both", "layer": inner}) == ["bias_constraint"]


def test_weights_that_do_not_fit_leave_the_target_alone(save, tmp_path, rng):
    weights = {"tags": {"kernel": rng.normal(size=(4, 3))}}
    path = save([vectors(), dense("tags", [("x", 0)])], ["x"], [("tags", 0)], weights)
    with pytest.raises(ValueError, match="missing: tags/bias"):
        convert(path, tmp_path / "new.keras")
    assert [file.name for file in tmp_path.iterdir()] == ["old.h5"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda config: config.update(class_name="Sequential"), "class_name='Sequential'"),
        (lambda config: config["config"].pop("layers"), "not that of a functional model"),
        (lambda config: config.pop("config"), "not that of a functional model"),
        (
            lambda config: config["config"]["layers"][1].update(inbound_nodes=[[["x", [0], 0]]]),
            "not that of a functional model",
        ),
        (
            lambda config: config["config"]["layers"][0]["config"].update(batch_input_shape=None),
            "has no shape.*layer='x'",
        ),
        (
            lambda config: config["config"]["layers"][1].update(inbound_nodes=[[["y", 0, 0]]]),
            r"calls of layers that it does not make.*\[\('tags', 0\), \('y', 0\)\]",
        ),
        (
            lambda config: config["config"].update(output_layers=[["tags", 1, 0]]),
            r"\(layer, call\)=\[\('tags', 1\)\]",
        ),
        (
            lambda config: config["config"].update(input_layers=[["z", 0, 0]]),
            r"\(layer, call\)=\[\('z', 0\)\]",
        ),
        (
            lambda config: config["config"]["layers"][0]["config"].pop("batch_input_shape"),
            "has no shape.*layer='x'",
        ),
        (
            lambda config: config["config"].update(output_layers=[["tags", 0, 1]]),
            "more than one output.*output 1 of the layer 'tags'",
        ),
    ],
)
def test_an_architecture_of_another_form_is_refused(save, tmp_path, change, fault):
    path = save([vectors(), dense("tags", [("x", 0)])], ["x"], [("tags", 0)])
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(ValueError, match=fault):
        convert(path, tmp_path / "new.keras")


def test_the_target_is_a_keras_file_and_the_source_a_whole_model(tmp_path):
    with pytest.raises(ValueError, match="names its models .keras"):
        convert(tmp_path / "old.h5", tmp_path / "new.h5")
    write_legacy_hdf5(tmp_path / "old.h5", {"tags": {"bias": np.ones(2)}})
    with pytest.raises(ValueError, match="weights but no architecture"):
        convert(tmp_path / "old.h5", tmp_path / "new.keras")


def test_a_model_that_claims_more_than_its_file_holds_is_not_built(save, tmp_path, rng):
    weights = {"tags": dense_weights(rng)}
    path = save([vectors(), dense("tags", [("x", 0)], units=10**9)], ["x"], [("tags", 0)], weights)
    with pytest.raises(ValueError, match="claims more than the file.*units=1000000000.*old.h5"):
        convert(path, tmp_path / "new.keras")


def test_activations_are_those_of_bert4keras():
    x = np.linspace(-3, 3, 13).astype("float32")
    swish = x / (1 + np.exp(-x))
    for name, expected in (("swish", swish), ("leaky_relu", np.where(x > 0, x, 0.2 * x))):
        np.testing.assert_allclose(np.array(activation(name)(x)), expected, atol=1e-6)
    exact, approximate = (np.array(activation(name)(x)) for name in ("gelu_erf", "gelu_tanh"))
    np.testing.assert_array_equal(np.array(activation("gelu")(x)), exact)
    assert 1e-5 < np.abs(exact - approximate).max() < 1e-3
    for name in ACTIVATIONS:
        stored = {"class_name": "function", "config": name, "module": "builtins"}
        np.testing.assert_array_equal(
            np.array(activation(stored)(x)), np.array(activation(name)(x))
        )
    assert activation(None)(1.5) == 1.5


def test_policies_of_keras_2_are_read():
    assert policy("float32").name == policy(None).name == "float32"
    old = {"class_name": "PolicyV1", "config": {"name": "mixed_bfloat16", "loss_scale": None}}
    assert policy(old).name == "mixed_bfloat16"
