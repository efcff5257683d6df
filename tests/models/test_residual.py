"""The argument `residual` of the encoders."""

import keras
import numpy as np
import pytest
from gradients import to_numpy

from keras_ext import bert4keras, checkpoints, models
from keras_ext.checkpoints import load_google_weights, names_in, save_google_weights
from keras_ext.models.blocks import Residual
from keras_ext.ops.deepnorm import deepnorm_constants

SIZES = {
    "vocabulary_size": 30,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 12,
}
ENCODERS = [
    models.AlbertEncoder,
    models.BertEncoder,
    models.ElectraEncoder,
    models.NezhaEncoder,
    models.RoFormerEncoder,
    models.RoFormerV2Encoder,
]
every_encoder = pytest.mark.parametrize("encoder", ENCODERS)


def make(encoder, **arguments):
    """An encoder whose weights are all random."""
    model = encoder(**{**SIZES, **arguments})
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(size=weight.shape, scale=0.5))
    return model


def output_of(model, name, batch):
    return to_numpy(keras.Model(model.input, model.get_layer(name).output)(batch))


def normalised(model, name, x):
    """LN or, where there are no weights, RMS, in NumPy."""
    layer = model.get_layer(name)
    x = x.astype("float64")
    if not layer.weights:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + layer.epsilon)
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + layer.epsilon)
    return x * to_numpy(layer.gamma) + to_numpy(layer.beta)


def reference(model, batch, residual):
    """The blocks one after the other, with the layers of the model."""
    x = output_of(model, "Embedding-Dropout", batch)
    if isinstance(model, models.RoFormerV2Encoder):  # its norm comes after the dropout
        x = x if residual == "pre" else output_of(model, "Embedding-Norm", batch)
    if any(layer.name == "Embedding-Mapping" for layer in model.layers):
        x = output_of(model, "Embedding-Mapping", batch)
    alpha = (2 * model.num_layers) ** 0.25 if residual == "deepnorm" else 1.0
    arguments = {"mask": batch["padding_mask"]}
    if isinstance(model, models.NezhaEncoder):
        table = model.get_layer("Embedding-Relative-Position")
        arguments["relative_embeddings"] = to_numpy(table(x))
    for i in range(model.num_layers):
        prefix = "Transformer" if isinstance(model, models.AlbertEncoder) else f"Transformer-{i}"
        for part in ("MultiHeadSelfAttention", "FeedForward"):
            name = f"{prefix}-{part}"
            norm, layer = f"{name}-Norm", model.get_layer(name)
            given = arguments if part == "MultiHeadSelfAttention" else {}
            if residual == "pre":
                x = x + to_numpy(layer(normalised(model, norm, x).astype("float32"), **given))
            else:
                branch = to_numpy(layer(x.astype("float32"), **given))
                x = normalised(model, norm, alpha * x + branch)
    return normalised(model, "Output-Norm", x) if residual == "pre" else x


@pytest.mark.slow
@every_encoder
@pytest.mark.parametrize("residual", ["post", "pre", "deepnorm"])
def test_output_is_that_of_the_formula(encoder, residual, batch):
    model = make(encoder, residual=residual, embedding_dim=4)
    names = [layer.name for layer in model.layers]
    assert ("Output-Norm" in names) == ("Embedding-Norm" not in names) == (residual == "pre")
    expected = reference(model, batch, residual)
    np.testing.assert_allclose(to_numpy(model(batch)), expected, atol=2e-4)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_alpha_is_not_rounded_in_half_precision(policy):
    """A branch of minus the rounded alpha leaves what rounding takes."""
    alpha = deepnorm_constants(24)[0]
    half = keras.DTypePolicy(policy).compute_dtype
    rounded = float(keras.ops.cast(keras.ops.cast(alpha, half), "float32"))
    bias = keras.initializers.Constant(-rounded)
    layer = keras.layers.Dense(4, kernel_initializer="zeros", bias_initializer=bias, dtype=policy)
    joined = Residual("deepnorm", 24, 0.0, keras.layers.Identity, None, layer.dtype_policy)
    inputs = keras.Input((4,), dtype=half)
    model = keras.Model(inputs, joined.join(layer)(inputs).output)
    assert model.output.dtype == half
    output = to_numpy(keras.ops.cast(model(np.ones((1, 4), "float32")), "float32"))
    assert abs(alpha - rounded) > 1e-4 * alpha
    np.testing.assert_allclose(output, alpha - rounded, rtol=0.01)


def test_post_is_the_default_and_the_config_keeps_the_choice():
    assert models.BertEncoder(**SIZES).get_config()["residual"] == "post"
    model = models.BertEncoder(**SIZES, residual="deepnorm")
    again = models.BertEncoder.from_config(model.get_config())
    assert again.residual == "deepnorm" and again.get_config() == model.get_config()


@pytest.mark.parametrize("encoder", [models.BertEncoder, models.RoFormerV2Encoder])
def test_kernels_of_the_branches_begin_with_the_gain_of_deepnorm(encoder):
    sizes = {**SIZES, "hidden_dim": 128, "intermediate_dim": 256}
    model = encoder(**sizes, residual="deepnorm")
    attention = model.get_layer("Transformer-1-MultiHeadSelfAttention")
    feed_forward = model.get_layer("Transformer-1-FeedForward")
    _, beta = deepnorm_constants(2)
    for dense, gain in [
        (attention.query_dense, 1.0),
        (attention.key_dense, 1.0),
        (attention.value_dense, beta),
        (attention.output_dense, beta),
        (feed_forward.intermediate_dense, beta),
        (feed_forward.output_dense, beta),
    ]:
        kernel = to_numpy(dense.kernel)
        expected = gain * np.sqrt(2 / sum(kernel.shape))
        assert abs(kernel.std() / expected - 1) < 0.03, dense.name


def test_post_and_pre_begin_as_before():
    for residual in ("post", "pre"):
        model = models.BertEncoder(**{**SIZES, "hidden_dim": 128}, residual=residual)
        kernel = model.get_layer("Transformer-0-MultiHeadSelfAttention").value_dense.kernel
        assert abs(to_numpy(kernel).std() / 0.0176 - 1) < 0.03


@pytest.mark.slow
@every_encoder
@pytest.mark.parametrize("residual", ["pre", "deepnorm"])
def test_a_post_norm_checkpoint_is_refused_though_its_names_and_shapes_fit(
    encoder, residual, tmp_path
):
    pytest.importorskip("tensorflow")
    save_google_weights(make(encoder), tmp_path / "post.ckpt")
    model = make(encoder, residual=residual)
    before = model.get_weights()
    match = "(?s)nothing was loaded.*missing: .*query/kernel.*unused: .*query/kernel"
    with pytest.raises(ValueError, match=match):
        load_google_weights(model, tmp_path / "post.ckpt")
    assert all(map(np.array_equal, model.get_weights(), before))
    with pytest.raises(ValueError, match="cannot hold this model"):
        save_google_weights(model, tmp_path / "other.ckpt")
    assert names_in(model, "google") == []


@every_encoder
def test_an_unknown_residual_is_refused(encoder):
    with pytest.raises(ValueError, match="'deepnorm'.*Received: residual='sandwich'"):
        encoder(**SIZES, residual="sandwich")


@pytest.mark.slow
@pytest.mark.parametrize("residual", ["pre", "deepnorm"])
@pytest.mark.parametrize("form", ["google", "huggingface", "bert4keras"])
def test_no_other_program_has_the_residual(form, residual, tmp_path):
    if form == "google":
        pytest.importorskip("tensorflow")
    name = {"google": "model.ckpt", "huggingface": "folder", "bert4keras": "model.h5"}[form]
    path = tmp_path / name
    load, save = {
        "google": (checkpoints.load_google_weights, checkpoints.save_google_weights),
        "huggingface": (checkpoints.load_huggingface_weights, checkpoints.save_huggingface),
        "bert4keras": (bert4keras.load_bert4keras_weights, bert4keras.save_bert4keras_weights),
    }[form]
    save(make(models.BertEncoder), path)
    model = make(models.BertEncoder, residual=residual)
    before = model.get_weights()
    with pytest.raises(ValueError, match="residual|names of this encoder|nothing was loaded"):
        load(model, path)
    assert all(map(np.array_equal, model.get_weights(), before))
    with pytest.raises(ValueError, match="residual|cannot hold|config"):
        save(model, tmp_path / f"other_{name}")
    assert not (tmp_path / f"other_{name}").exists()


def test_a_residual_is_seen_in_a_model_around_the_encoder(tmp_path):
    encoder = models.BertEncoder(**SIZES, residual="deepnorm")
    model = keras.Model(encoder.input, keras.layers.Dense(2, name="head")(encoder(encoder.input)))
    with pytest.raises(ValueError, match="\"post\" only.*Received: residual='deepnorm'"):
        bert4keras.save_bert4keras_weights(model, tmp_path / "model.h5")
