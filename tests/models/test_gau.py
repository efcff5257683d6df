import keras
import numpy as np
import pytest

from keras_ext.layers import GatedAttentionUnit
from keras_ext.models import GAUAlphaEncoder, GAUEncoder
from keras_ext.ops import LogN

SIZES = {
    "vocabulary_size": 30,
    "num_layers": 3,
    "hidden_dim": 8,
    "intermediate_dim": 12,
    "key_size": 4,
}


@pytest.fixture
def batch():
    ids = np.random.default_rng(0).integers(1, 30, (3, 6)).astype("int32")
    mask = np.arange(6) < np.array([[6], [4], [1]])
    return {"token_ids": ids * mask, "segment_ids": ids % 2, "padding_mask": mask}


def rms(x):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-7)


def test_gau_alpha_is_one_of_its_configurations(batch):
    alpha = GAUAlphaEncoder(**SIZES)
    encoder = GAUEncoder(**SIZES, use_bias=False, normalization="softmax_plus")
    encoder.set_weights(alpha.get_weights())
    np.testing.assert_array_equal(np.array(encoder(batch)), np.array(alpha(batch)))
    names = [[layer.name for layer in model.layers] for model in (encoder, alpha)]
    assert names[0] == names[1]


def test_gau_alpha_begins_with_weights_that_shrink_with_the_depth():
    encoder = GAUAlphaEncoder(500, num_layers=8, hidden_dim=64, intermediate_dim=128)
    table = encoder.get_layer("Embedding-Token").embeddings
    kernels = [block.layers[0].input_dense.kernel for block in encoder.blocks]
    for weight in (table, *kernels):  # each vector of the table, each column of a kernel: 64
        deviation = keras.ops.convert_to_numpy(weight).std()
        assert abs(deviation * np.sqrt(64 * 8 ** (2 / 3)) - 1) < 0.03


def test_gau_alpha_draws_no_seed_before_that_of_its_first_table():
    keras.utils.set_random_seed(1)
    table = GAUAlphaEncoder(**SIZES).get_layer("Embedding-Token").embeddings
    keras.utils.set_random_seed(1)
    initializer = keras.initializers.VarianceScaling(3 ** (-2 / 3), "fan_out", "truncated_normal")
    expected = keras.ops.convert_to_numpy(initializer((30, 8)))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(table), expected)


@pytest.mark.parametrize("residual", ["post", "pre", "deepnorm"])
def test_units_are_joined_as_the_choice_says(batch, residual):
    encoder = GAUEncoder(**SIZES, residual=residual)
    rng = np.random.default_rng(1)
    for weight in encoder.trainable_weights:  # branches as large as what they are added to
        weight.assign(rng.normal(size=weight.shape, scale=0.7))
    units = [layer for layer in encoder.layers if isinstance(layer, GatedAttentionUnit)]
    tables = [encoder.get_layer(f"Embedding-{name}") for name in ("Token", "Segment")]
    x = sum(
        keras.ops.convert_to_numpy(table.embeddings)[batch[f"{name}_ids"]]
        for table, name in zip(tables, ("token", "segment"), strict=True)
    )
    x = x if residual == "pre" else rms(x)
    alpha = (2 * 2) ** 0.25 if residual == "deepnorm" else 1.0  # 3 units count as 2 blocks
    for unit in units:
        read = rms(x) if residual == "pre" else x
        branch = np.array(unit(read.astype("float32"), mask=batch["padding_mask"]))
        x = x + branch if residual == "pre" else rms(alpha * x + branch)
    x = rms(x) if residual == "pre" else x
    np.testing.assert_allclose(np.array(encoder(batch)), x, atol=5e-5)


def test_each_unit_begins_as_almost_nothing():
    encoder = GAUEncoder(100, num_layers=4, hidden_dim=128)
    x = np.random.default_rng(0).normal(size=(1, 64, 128)).astype("float32")
    units = [layer for layer in encoder.layers if isinstance(layer, GatedAttentionUnit)]
    ratios = [float(np.sqrt(np.mean(np.array(unit(x)) ** 2))) for unit in units]
    assert len(ratios) == 4 and max(ratios) < 0.05 and min(ratios) > 1e-4
    kernels = [keras.ops.convert_to_numpy(unit.input_dense.kernel) for unit in units]
    assert all(np.abs(kernels[0] - kernel).max() > 0 for kernel in kernels[1:])


def test_the_options_reach_every_unit():
    options = {
        "attention_scale": LogN(train_length=20, clip=True),
        "rope_window": 20,
        "rope_slope": 0.1,
        "normalization": "softmax",
        "residual": "pre",
    }
    encoder = GAUEncoder(**SIZES, **options)
    again = GAUEncoder.from_config(encoder.get_config())
    for model in (encoder, again):
        for unit in model.layers:
            if isinstance(unit, GatedAttentionUnit):
                assert unit.attention_scale.train_length == 20
                assert (unit.rope_window, unit.rope_slope) == (20, 0.1)
                assert unit.normalization == "softmax"


def test_weights_serve_any_length_and_any_option(batch):
    short = GAUEncoder(**SIZES)
    long = GAUEncoder(**SIZES, rope_window=99, length_norm=6)
    long.set_weights(short.get_weights())
    full = {**batch, "padding_mask": np.ones((3, 6), bool)}
    np.testing.assert_allclose(np.array(long(full)), np.array(short(full)), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"residual": "none"}, "Received: residual='none'"),
        ({"key_size": 3}, "must be even"),
        ({"normalization": "relu"}, "Unknown normalization"),
        ({"application": "unilm", "num_segments": 0}, "UniLM"),
    ],
)
def test_bad_arguments_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        GAUEncoder(**{**SIZES, **arguments})
