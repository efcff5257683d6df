import json
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest

from keras_ext.bert4keras import build_transformer_model
from keras_ext.layers import EfficientGlobalPointer
from keras_ext.models import BertEncoder
from keras_ext.ops import is_masked

CONFIG = {
    "attention_probs_dropout_prob": 0.25,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.5,
    "hidden_size": 8,
    "intermediate_size": 12,
    "max_position_embeddings": 9,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "type_vocab_size": 3,
    "vocab_size": 30,
}
TOKENS = np.array([[0, 5, 6, 0, 9, 0], [1, 2, 3, 4, 5, 6]], "int32")
SEGMENTS = np.array([[0, 0, 1, 1, 2, 0], [0] * 6], "int32")
MASK = np.array([[1, 1, 1, 0, 1, 0], [1] * 6], bool)


@pytest.fixture
def config(tmp_path):
    """Writes the config, changed, and gives its path."""

    def write(**changes):
        path = tmp_path / "bert_config.json"
        path.write_text(json.dumps({**CONFIG, **changes}))
        return path

    return write


def shuffled(model):
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(size=weight.shape, scale=0.5))
    return model


def test_it_is_the_encoder_with_a_list_of_inputs_and_the_mask_of_the_ids(config):
    model = shuffled(build_transformer_model(config()))
    assert [tensor.name for tensor in model.inputs] == ["Input-Token", "Input-Segment"]
    encoder = BertEncoder(30, 2, 2, 8, 12, max_sequence_length=9, num_segments=3)
    assert {layer.name for layer in encoder.layers if layer.weights} == {
        layer.name for layer in model.layers if layer.weights
    }
    for layer in encoder.layers:
        weights = model.get_layer(layer.name).get_weights() if layer.weights else []
        beta_first = layer.name.endswith("-Norm")
        layer.set_weights(weights[::-1] if beta_first else weights)
    batch = {"token_ids": TOKENS, "segment_ids": SEGMENTS, "padding_mask": MASK}
    np.testing.assert_allclose(
        np.array(model([TOKENS, SEGMENTS])), np.array(encoder(batch)), atol=1e-6
    )


def test_positions_may_be_fractions(config):
    model = shuffled(build_transformer_model(config(), custom_position_ids=True))
    table = model.get_layer("Embedding-Position").embeddings
    positions = np.tile(np.arange(6) / 2, (2, 1))
    result = np.array(model([TOKENS, SEGMENTS, positions]))
    rows, places = keras.ops.convert_to_numpy(table), np.arange(6)
    between = (rows[places // 2] + rows[(places + 1) // 2]) / 2
    table.assign(np.concatenate([between, rows[6:]]))
    expected = np.array(model([TOKENS, SEGMENTS, np.tile(places, (2, 1))]))
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_the_config_is_read_as_in_bert4keras(config):
    model = build_transformer_model(config(hidden_act="relu"))
    assert model.get_layer("Embedding-Segment").input_dim == 3
    assert model.get_layer("Embedding-Position").input_dim == 9
    assert model.get_layer("Embedding-Dropout").rate == 0.5
    attention = model.get_layer("Transformer-1-MultiHeadSelfAttention")
    assert (attention.heads, attention.attention_dropout) == (2, 0.25)
    feed_forward = model.get_layer("Transformer-1-FeedForward")
    assert (feed_forward.units, feed_forward.activation) == (12, keras.activations.relu)
    changed = build_transformer_model(
        config(), max_position=4, segment_vocab_size=0, dropout_rate=0.1, embedding_size=5
    )
    assert changed.get_layer("Embedding-Position").input_dim == 4
    assert changed.get_layer("Embedding-Mapping").units == 8
    assert [tensor.name for tensor in changed.inputs] == ["Input-Token"]
    assert build_transformer_model(config(), sequence_length=6).output_shape == (None, 6, 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"with_pool": True}, ["Pooler-Dense"]),
        ({"with_nsp": True}, ["NSP-Activation"]),
        ({"with_mlm": True}, ["MLM-Activation"]),
        ({"with_pool": "linear", "with_mlm": "linear"}, ["Pooler-Dense", "MLM-Activation"]),
        ({"with_nsp": True, "with_mlm": True}, ["NSP-Activation", "MLM-Activation"]),
        ({"application": "lm"}, ["MLM-Activation"]),
        ({"model": "electra", "with_discriminator": True}, ["Discriminator-Activation"]),
    ],
)
def test_the_outputs_are_those_of_the_heads(config, arguments, names):
    model = build_transformer_model(config(), **arguments)
    outputs = [model.get_layer(name).output for name in names]
    assert [x is y for x, y in zip(model.outputs, outputs, strict=True)] == [True] * len(names)


def test_gelu_is_the_exact_one_unless_told(config):
    exact = build_transformer_model(config())
    assert exact.get_layer("Transformer-0-FeedForward").activation is keras.activations.gelu
    named = build_transformer_model(config(), gelu="tanh", hidden_act="gelu_erf")
    assert named.get_layer("Transformer-0-FeedForward").activation is keras.activations.gelu
    tanh = build_transformer_model(config(), gelu="tanh")
    assert tanh.get_layer("Transformer-0-FeedForward").get_config()["activation"] == "gelu_tanh"
    with pytest.raises(ValueError, match="Received: gelu='gelu_tanh'"):
        build_transformer_model(config(), gelu="gelu_tanh")


def test_layers_that_are_added_get_the_mask(config):
    bert = build_transformer_model(config(), return_keras_model=False)
    hidden = bert.layers["Transformer-1-FeedForward-Norm"].output
    assert hidden is bert.model.output is bert.output
    scores = EfficientGlobalPointer(2, 4, kernel_initializer=bert.initializer)(hidden)
    model = shuffled(keras.Model(bert.inputs, scores))
    masked = np.array(is_masked(model([TOKENS, SEGMENTS])))
    visible = MASK[:, :, None] & MASK[:, None, :] & np.triu(np.ones((6, 6), bool))
    np.testing.assert_array_equal(masked, np.repeat(~visible[:, None], 2, axis=1))
    mean = keras.layers.GlobalAveragePooling1D()(bert.output)
    pooled = np.array(keras.Model(bert.input, mean)([TOKENS, SEGMENTS]))
    states = np.array(bert.model([TOKENS, SEGMENTS]))
    expected = [states[i][MASK[i]].mean(0) for i in range(2)]
    np.testing.assert_allclose(pooled, expected, atol=1e-6)


def test_a_loss_of_the_language_model_counts_tokens_only(config):
    model = shuffled(build_transformer_model(config(), with_mlm=True, application="unilm"))
    model.compile(loss="sparse_categorical_crossentropy")
    probabilities = np.array(model([TOKENS, SEGMENTS]))
    each = -np.log(np.take_along_axis(probabilities, TOKENS[..., None], 2)[..., 0])
    loss = model.evaluate([TOKENS, SEGMENTS], TOKENS, verbose=0)
    np.testing.assert_allclose(loss, each[MASK].mean(), rtol=1e-5)


@pytest.mark.slow
def test_models_train_and_reload_in_a_fresh_process_with_the_same_bits(config, tmp_path):
    expected = {}
    for name in ("albert", "albert_unshared", "nezha", "roformer", "roformer_v2", "gau_alpha"):
        model = build_transformer_model(config(), model=name, with_mlm="linear", application="lm")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, run_eagerly=keras.backend.backend() == "tensorflow")
        before = [keras.ops.convert_to_numpy(w) for w in model.trainable_weights]
        model.fit([TOKENS, SEGMENTS], TOKENS, verbose=0)
        after = [keras.ops.convert_to_numpy(w) for w in model.trainable_weights]
        moved = sum((x != y).any() for x, y in zip(before, after, strict=True))
        assert moved > len(before) // 2, name
        model.save(tmp_path / f"{name}.keras")
        expected[name] = np.array(model([TOKENS, SEGMENTS]))
    np.savez(tmp_path / "batch.npz", TOKENS, SEGMENTS)
    program = (
        "import keras, numpy as np, keras_ext, pathlib, sys\n"
        "batch = list(np.load(sys.argv[1] + '/batch.npz').values())\n"
        "for path in pathlib.Path(sys.argv[1]).glob('*.keras'):\n"
        "    model = keras.models.load_model(path)\n"
        "    np.save(path.with_suffix('.npy'), np.array(model(batch)))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    for name, output in expected.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), output, name)


def test_keys_of_the_config_without_a_meaning_are_reported(config):
    with pytest.warns(UserWarning, match="initializer_range, pooler_type"):
        build_transformer_model(config(pooler_type="first", initializer_range=0.02))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_transformer_model(config())


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"hidden_act": ["gelu", "linear"]}, "with a gate.*Received: hidden_act="),
        ({"with_pol": True}, "Unknown argument.*Received: with_pol=True"),
        ({"model": "gpt2_ml"}, "GPT and T5 families.*Received: model='gpt2_ml'"),
        ({"model": "t5.1.1"}, "GPT and T5 families.*Received: model='t5.1.1'"),
        ({"model": "mt5.1.1_encoder"}, "GPT and T5 families"),
        ({"model": "xlnet"}, "Expected one of.*Received: model='xlnet'"),
        ({"model": keras.Model}, "or the class of one"),
        ({"application": "mlm"}, "Received: application='mlm'"),
        ({"model": "electra", "application": "lm"}, "ELECTRA is an encoder only"),
        ({"model": "roformer_v2", "with_pool": True}, "has no such part. Received: with_pool=True"),
        ({"with_discriminator": True}, "BertEncoder has no such part"),
        ({"layer_norm_cond": keras.Input((4,))}, "layer_norm_cond has no counterpart"),
        ({"residual_attention_scores": True}, "residual_attention_scores has no counterpart"),
        ({"num_attention_heads": 3}, "must divide the width"),
        ({"application": "unilm", "segment_vocab_size": 0}, "segments"),
    ],
)
def test_bad_arguments_are_refused(config, arguments, match):
    with pytest.raises(ValueError, match=match):
        build_transformer_model(config(), **arguments)


def test_arguments_that_only_say_no_are_fine(config):
    model = build_transformer_model(
        config(),
        application="Encoder",
        hierarchical_position=False,
        layers=None,
        shared_segment_embeddings=False,
    )
    assert model.output_shape == (None, None, 8)


def test_a_dtype_is_an_argument_and_no_field_of_the_config(config):
    with pytest.warns(UserWarning, match="without a meaning here: dtype."):
        model = build_transformer_model(config(dtype="float16"))
    assert model.output.dtype == "float32"
    model = build_transformer_model(config(), dtype="mixed_float16")
    assert model.output.dtype == "float16"


def test_the_size_of_the_keys_of_a_gau_is_that_of_the_heads_unless_given(config):
    def size(**arguments):
        model = build_transformer_model(config(), model="gau_alpha", **arguments)
        return model.get_layer("Transformer-0-GatedAttentionUnit").key_size

    assert size() == 4 and size(attention_head_size=6) == 6
    assert size(attention_head_size=6, attention_key_size=2) == 2


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"vocab_size": "30"}, "should be a positive integer. Received: vocab_size='30'"),
        ({"hidden_size": 8.0}, "Received: hidden_size=8.0"),
        ({"num_hidden_layers": 0}, "Received: num_hidden_layers=0"),
        ({"num_attention_heads": "2"}, "Received: num_attention_heads='2'"),
        ({"max_position": 0}, "Received: max_position=0"),
        ({"type_vocab_size": -1}, "an integer of at least 0. Received: type_vocab_size=-1"),
        ({"hidden_dropout_prob": "0.1"}, "a number in \\[0, 1\\). Received: hidden_dropout_prob"),
        ({"attention_probs_dropout_prob": 1}, "Received: attention_probs_dropout_prob=1"),
    ],
)
def test_an_impossible_value_in_the_config_is_named(config, change, match):
    with pytest.raises(ValueError, match=match):
        build_transformer_model(config(**change))


def test_a_config_that_lacks_a_field_or_is_no_json_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match="lacks hidden_size"):
        build_transformer_model(config(hidden_size=None))
    with pytest.raises(ValueError, match="lacks vocab_size, num_hidden_layers"):
        build_transformer_model()
    path = tmp_path / "broken.json"
    path.write_text("{'hidden_size': 8}")
    with pytest.raises(ValueError, match="broken.json: not JSON"):
        build_transformer_model(path)
    path.write_text("[8]")
    with pytest.raises(ValueError, match="broken.json: expected a JSON object"):
        build_transformer_model(path)
    with pytest.raises(ValueError, match="Cannot read the file.*absent.json"):
        build_transformer_model(tmp_path / "absent.json")


@pytest.mark.slow
def test_the_transformer_saves_and_loads_checkpoints(config, tmp_path):
    bert = build_transformer_model(config(), with_mlm=True, return_keras_model=False)
    shuffled(bert.model)
    bert.save_weights_as_checkpoint(tmp_path / "bert_model.ckpt")
    other = build_transformer_model(
        config(), tmp_path / "bert_model.ckpt", with_mlm=True, return_keras_model=False
    )
    expected = np.array(bert.model([TOKENS, SEGMENTS]))
    np.testing.assert_array_equal(np.array(other.model([TOKENS, SEGMENTS])), expected)
    other = build_transformer_model(config(), with_mlm=True, return_keras_model=False)
    other.load_weights_from_checkpoint(tmp_path / "bert_model.ckpt")
    np.testing.assert_array_equal(np.array(other.model([TOKENS, SEGMENTS])), expected)
    part = build_transformer_model(
        config(), keep_tokens=[0, 3, 5, 6, 9], compound_tokens=[[1, 2], ([3, 4], [1, 3])]
    )
    assert part.get_layer("Embedding-Token").input_dim == 7
    with pytest.raises(ValueError, match="missing: bert/encoder/layer_2/"):
        build_transformer_model(
            config(num_hidden_layers=3), tmp_path / "bert_model.ckpt", with_mlm=True
        )
    with pytest.raises(ValueError, match="unused: bert/encoder/layer_1/"):
        build_transformer_model(config(num_hidden_layers=1), tmp_path / "bert_model.ckpt")
    build_transformer_model(
        config(num_hidden_layers=1),
        tmp_path / "bert_model.ckpt",
        allow_unused=("bert/encoder/layer_1/*",),
    )
    with pytest.warns(UserWarning, match="random therefore: bert/encoder/layer_2/"):
        lenient = build_transformer_model(
            config(num_hidden_layers=3), tmp_path / "bert_model.ckpt", ignore_invalid_weights=True
        )
    tables = [m.get_layer("Embedding-Token").get_weights()[0] for m in (bert.model, lenient)]
    np.testing.assert_array_equal(*tables)
