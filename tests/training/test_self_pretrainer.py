"""Pretraining an encoder on the inputs of its own task."""

import keras
import numpy as np
import pytest
from gradients import to_numpy
from keras import ops
from training.pretraining_cases import SIZE, encoder_of, sequences

from keras_ext.models import (
    BertEncoder,
    BigramRoFormerEncoder,
    ElectraEncoder,
    GAUAlphaEncoder,
    GAUEncoder,
    NezhaEncoder,
    RoFormerV2Encoder,
    VQTransformer,
)
from keras_ext.training import SelfPretrainer

MASK_ID = 11
TRANSFORMER = {"num_heads": 2, "intermediate_dim": 24}
KINDS = {
    BertEncoder: TRANSFORMER,
    BigramRoFormerEncoder: {**TRANSFORMER, "bigram_buckets": 20, "embedding_dim": 8},
    ElectraEncoder: TRANSFORMER,
    NezhaEncoder: TRANSFORMER,
    RoFormerV2Encoder: {**TRANSFORMER, "num_segments": 0},
    GAUEncoder: {"key_size": 8, "num_segments": 0, "residual": "pre"},
    GAUAlphaEncoder: {"key_size": 8, "intermediate_dim": 24, "with_mlm": True},
    VQTransformer: {"key_size": 8, "codes": 8, "block_length": 4, "residual": "pre"},
}


def pretrainer_of(encoder=None, **arguments):
    return SelfPretrainer(
        encoder or encoder_of(), SIZE, **{"mask_id": MASK_ID, "seed": 1, **arguments}
    )


def plain(causal=False, gate=None):
    """A functional model of ids alone, not of this package."""
    ids = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(SIZE, 8)(ids)
    y = keras.layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=causal)
    if gate is not None:
        y = keras.layers.BatchNormalization(gamma_initializer=gate, center=False)(y)
    return keras.Model(ids, x + y)


def test_the_loss_is_the_mean_over_what_was_masked_and_nothing_else():
    model, ids = pretrainer_of(mask_ratio=0.3), sequences()
    sums = {name: to_numpy(x) for name, x in model(ids).items()}
    masked, _, weights = (to_numpy(x) for x in model.mask_tokens(ids, mask=ids > 0))
    inputs = {"token_ids": masked, "padding_mask": ids > 0, "segment_ids": 0 * ids}
    logits = to_numpy(model.head(model.encoder(inputs))).astype("float64")
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss = -np.take_along_axis(log_p, ids[..., None], -1)[..., 0]
    np.testing.assert_allclose(sums["loss"], (loss * weights).sum(1), rtol=1e-5)
    np.testing.assert_array_equal(sums["count"], np.ceil((ids > 0).sum(1) * 3 / 10))
    right = ((logits.argmax(-1) == ids) * weights).sum(1)
    np.testing.assert_array_equal(sums["correct"], right)
    model.compile("sgd")
    logs = model.evaluate(ids, batch_size=len(ids), return_dict=True, verbose=0)
    np.testing.assert_allclose(logs["loss"], (loss * weights).sum() / weights.sum(), rtol=1e-5)
    np.testing.assert_allclose(logs["accuracy"], right.sum() / weights.sum(), rtol=1e-5)


def test_more_padding_changes_nothing():
    model, ids = pretrainer_of(encoder_of(application="lm"), objective="causal"), sequences()
    expected = {name: to_numpy(x) for name, x in model(ids).items()}
    for name, x in model(np.pad(ids, ((0, 0), (0, 5)))).items():
        np.testing.assert_allclose(to_numpy(x), expected[name], rtol=1e-5, atol=1e-5)


def test_the_causal_loss_is_that_of_the_next_token():
    encoder, ids = encoder_of(application="lm"), sequences()
    model = pretrainer_of(encoder, objective="causal", mask_id=None)
    sums = {name: to_numpy(x) for name, x in model(ids).items()}
    inputs = {"token_ids": ids, "padding_mask": ids > 0, "segment_ids": 0 * ids}
    logits = to_numpy(model.head(encoder(inputs))).astype("float64")[:, :-1]
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss = -np.take_along_axis(log_p, ids[:, 1:, None], -1)[..., 0]
    np.testing.assert_allclose(sums["loss"], (loss * (ids[:, 1:] > 0)).sum(1), rtol=1e-5)
    np.testing.assert_array_equal(sums["count"], (ids > 0).sum(1) - 1)


def test_nothing_to_guess_is_no_loss():
    model = pretrainer_of()
    model.compile("sgd")
    logs = model.evaluate(np.zeros((2, 6)), return_dict=True, verbose=0)
    assert logs == {"loss": 0.0, "accuracy": 0.0}
    model.fit(np.zeros((2, 6)), verbose=0)
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_it_learns_compiled_and_what_is_saved_is_the_same(policy, tmp_path):
    model = pretrainer_of(encoder_of(dtype=policy), mask_ratio=0.3)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=True)
    history = model.fit(sequences(240), epochs=12, batch_size=24, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert history["accuracy"][-1] > history["accuracy"][0] + 0.2
    before = [to_numpy(weight) for weight in model.encoder.weights]
    # The same object goes on to the task.
    encoder = model.encoder
    pooled = keras.layers.GlobalAveragePooling1D(dtype="float32")(encoder.output)
    classifier = keras.Model(encoder.input, keras.layers.Dense(2, dtype="float32")(pooled))
    for weight, value in zip(classifier.weights, before, strict=False):
        np.testing.assert_array_equal(to_numpy(weight), value)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    ids = sequences(5, seed=1)
    for name, x in loaded(ids).items():
        np.testing.assert_array_equal(to_numpy(x), to_numpy(model(ids)[name]))


@pytest.mark.slow
@pytest.mark.parametrize("cls", KINDS, ids=lambda cls: cls.__name__)
def test_every_encoder_trains_with_either_objective_that_suits_it(cls):
    applications = [] if cls in (ElectraEncoder, BigramRoFormerEncoder) else ["lm"]
    for objective, application in zip(("mlm", "causal"), ["encoder", *applications], strict=False):
        chosen = {"application": application} if applications else {}
        keras.utils.set_random_seed(0)
        encoder = cls(vocabulary_size=SIZE, num_layers=1, hidden_dim=16, **KINDS[cls], **chosen)
        model = pretrainer_of(encoder, objective=objective)
        model.compile("adam", run_eagerly=keras.backend.backend() == "tensorflow")
        (loss,) = model.fit(sequences(), verbose=0).history["loss"]
        assert 0.5 < loss < 5
        other = {"mlm": "causal", "causal": "mlm"}[objective]
        with pytest.raises(ValueError, match=f"Expected objective='{objective}'"):
            pretrainer_of(encoder, objective=other)


def test_a_backbone_of_keras_hub():
    keras_hub = pytest.importorskip("keras_hub")
    backbone = keras_hub.models.GPT2Backbone(SIZE, 1, 2, 16, 32, max_sequence_length=32)
    model = pretrainer_of(backbone, objective="causal")
    model.compile("adam", run_eagerly=keras.backend.backend() == "tensorflow")
    before = to_numpy(backbone.token_embedding.embeddings)
    (loss,) = model.fit(sequences(), verbose=0).history["loss"]
    assert 0.5 < loss < 5
    assert np.any(to_numpy(backbone.token_embedding.embeddings) != before)


def test_a_bidirectional_encoder_predicts_no_next_token():
    with pytest.raises(ValueError, match="sees later tokens.*is causal.*objective='causal'"):
        pretrainer_of(objective="causal")
    with pytest.raises(ValueError, match="sees no later token.*sees all tokens.*objective='mlm'"):
        pretrainer_of(encoder_of(application="lm"))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("causal", [False, True])
def test_what_any_model_sees_is_found_also_behind_a_gate_that_is_closed(causal, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    encoder = plain(causal, gate="zeros")
    keras.config.set_dtype_policy(before)
    weights = encoder.get_weights()
    right, wrong = ("causal", "mlm") if causal else ("mlm", "causal")
    pretrainer_of(encoder, objective=right)
    with pytest.raises(ValueError, match="does not suit the objective"):
        pretrainer_of(encoder, objective=wrong)
    for x, y in zip(weights, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("kind", ["array", "dict", "dataset"])
def test_inputs_of_the_task_in_the_forms_that_fit_takes(kind):
    ids = sequences()
    data = {"token_ids": ids, "padding_mask": ids > 0}
    arguments = {"array": (ids, np.zeros(24)), "dict": (data,), "dataset": (None,)}[kind]
    if kind == "dataset":
        tf = pytest.importorskip("tensorflow")
        pairs = (data, np.zeros(24), np.full(24, 5.0))  # labels and weights are for fine-tuning
        arguments = (tf.data.Dataset.from_tensor_slices(pairs).batch(24),)
    model = pretrainer_of()
    model.compile("sgd")
    logs = model.evaluate(*arguments, return_dict=True, verbose=0)
    expected = model.evaluate(ids, return_dict=True, verbose=0)
    assert logs == pytest.approx(expected, rel=1e-5)


def test_a_model_of_ids_and_a_vocabulary_without_padding():
    model = pretrainer_of(plain(), exclude_ids=(), mask_ratio=0.5)
    sums = model(np.zeros((2, 6), "int32"))
    assert to_numpy(sums["count"]).tolist() == [3, 3]


def test_regularisers_of_the_encoder_count():
    ids = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(SIZE, 8, embeddings_regularizer=keras.regularizers.L2(1.0))(ids)
    x = keras.layers.Conv1D(8, 3, padding="same")(x)
    model = pretrainer_of(keras.Model(ids, x))
    model.compile("sgd")
    sums, batch = model(sequences()), sequences()
    loss = to_numpy(ops.sum(sums["loss"]) / ops.sum(sums["count"]))
    added = np.square(to_numpy(model.encoder.layers[1].embeddings)).sum()
    found = model.evaluate(batch, batch_size=len(batch), return_dict=True, verbose=0)["loss"]
    np.testing.assert_allclose(found, loss + added, rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="replicas of TensorFlow")
@pytest.mark.slow
def test_two_replicas_divide_by_the_tokens_of_both(two_replicas):
    difference = two_replicas("training.pretraining_cases.compare")
    assert difference["logs"] < 1e-4 and difference["weights"] < 1e-5


def test_what_is_refused():
    for arguments, said in [
        ({"objective": "lm"}, r"\('mlm', 'causal'\).*objective='lm'"),
        ({"mask_id": None}, "needs the id of the mask"),
        ({"mask_id": 12}, "below vocabulary_size"),
        ({"mask_ratio": 0.0}, "Expected rate"),
    ]:
        with pytest.raises(ValueError, match=said):
            pretrainer_of(**arguments)
    ids = keras.Input((None,), dtype="int32")
    vectors = keras.Model(ids, keras.layers.Embedding(3, 4)(ids)[:, 0])
    single = keras.Input((1,), dtype="int32")
    single = keras.Model(single, keras.layers.Embedding(3, 4)(single))
    unplaced = encoder_of(custom_position_ids=True)
    for encoder, said in [
        (keras.layers.Embedding(3, 4), "functional keras.Model of token ids"),
        (keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(4)]), "of token ids"),
        (vectors, "one vector for each token"),
        (single, r"at least 2 tokens.*Received.*\(None, 1\)"),
    ]:
        with pytest.raises(ValueError, match=said):
            pretrainer_of(encoder)
    with pytest.raises(ValueError, match="can be left out. Received: \\['token_ids'\\]"):
        pretrainer_of(unplaced)(sequences())
    model = pretrainer_of()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="without a loss"):
        model.fit(sequences(), verbose=0)
