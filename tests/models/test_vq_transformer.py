import keras
import numpy as np
import pytest
from gradients import to_numpy
from tasks.recognizers import make_records

from keras_ext.data import Tokenizer
from keras_ext.keras_internals import layers_inside
from keras_ext.models import VQTransformer
from keras_ext.models.generation import generate_tokens
from keras_ext.tasks import EntityRecognizer

SIZES = {
    "vocabulary_size": 30,
    "num_layers": 2,
    "hidden_dim": 8,
    "num_heads": 2,
    "key_size": 4,
    "codes": 5,
    "block_length": 2,
}
WRITER = {**SIZES, "application": "lm", "with_mlm": "linear", "num_segments": 0}


def random_weights(model):
    """The model, with branches as large as what they are added to."""
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(size=weight.shape, scale=0.7))
    return model


@pytest.fixture
def ids():
    return np.random.default_rng(0).integers(1, 30, (3, 7)).astype("int32")


def whole(ids):
    return {"token_ids": ids, "padding_mask": np.ones(ids.shape, bool)}


@pytest.mark.parametrize(
    "arguments",
    [
        {"residual": "pre"},
        {"residual": "post", "gated": False},
        {"residual": "deepnorm", "gated": False, "embedding_dim": 6, "num_segments": 2},
        {"residual": "post", "with_mlm": False, "packed": True},
        {"residual": "pre", "with_mlm": True, "packed": True},
    ],
    ids=str,
)
def test_steps_give_what_a_call_gives(ids, arguments):
    model = random_weights(VQTransformer(**{**WRITER, **arguments}))
    batch = {**whole(ids), "segment_ids": ids % 2, "document_ids": ids // 12}
    batch = {name: batch[name] for name in model.input}
    expected, state, parts, start = model(batch), model.initial_state(3), [], 0
    for size in (1, 4, 1, 1):
        part = {name: x[:, start : start + size] for name, x in batch.items()}
        output, state = model.step(part, state)
        parts.append(output)
        start += size
    if not isinstance(expected, dict):
        expected, parts = {"x": expected}, [{"x": part} for part in parts]
    for name, x in expected.items():
        found = np.concatenate([to_numpy(part[name]) for part in parts], axis=1)
        np.testing.assert_allclose(found, to_numpy(x), atol=2e-5, rtol=1e-4)


def test_generation_takes_the_likeliest_tokens_of_whole_calls(ids):
    model = random_weights(VQTransformer(**WRITER))
    written = to_numpy(model.generate(ids, length=4, temperature=0))
    read = ids
    for _ in range(4):
        scores = to_numpy(model(whole(read))["mlm"])[:, -1]
        read = np.concatenate([read, scores.argmax(-1)[:, None].astype("int32")], axis=1)
    np.testing.assert_array_equal(written, read[:, 7:])
    assert written.dtype == "int32"
    one = to_numpy(model.generate(ids[0], length=4, temperature=0))
    np.testing.assert_array_equal(one, written[0])


def test_generation_draws_by_the_probabilities_and_a_seed_repeats_it():
    probabilities = np.float32([0.5, 0.3, 0.2])

    def step(ids, state):
        return np.tile(np.log(probabilities), (*ids.shape, 1)), state

    prompt = np.zeros((4000, 1), "int32")
    drawn = to_numpy(generate_tokens(step, None, prompt, 1, seed=3))
    again = to_numpy(generate_tokens(step, None, prompt, 1, seed=3))
    np.testing.assert_array_equal(drawn, again)
    shares = np.bincount(drawn[:, 0], minlength=3) / 4000
    np.testing.assert_allclose(shares, probabilities, atol=0.03)
    cold = to_numpy(generate_tokens(step, None, prompt, 1, temperature=0.5, seed=3))
    shares = np.bincount(cold[:, 0], minlength=3) / 4000
    np.testing.assert_allclose(shares, probabilities**2 / sum(probabilities**2), atol=0.03)


def test_a_document_sees_no_other(ids):
    model = random_weights(VQTransformer(**SIZES, packed=True, num_segments=0))
    documents = np.tile([4, 4, 4, 1, 1, 1, 1], (3, 1))
    both = to_numpy(model({**whole(ids), "document_ids": documents}))
    alone = to_numpy(model({**whole(ids[:, 3:]), "document_ids": documents[:, 3:]}))
    np.testing.assert_allclose(both[:, 3:], alone, atol=1e-5)


def test_a_language_model_sees_no_later_token_and_an_encoder_does(ids):
    changed = np.where(np.arange(7) < 4, ids, 1 + ids[:, ::-1] % 29)
    for application in ("lm", "encoder"):
        model = VQTransformer(**{**SIZES, "application": application, "num_segments": 0})
        model = random_weights(model)
        before, after = (to_numpy(model(whole(x)))[:, :4] for x in (ids, changed))
        assert np.array_equal(before, after) == (application == "lm")


def test_a_share_of_the_columns_is_seen_by_none_in_training(ids):
    """The output is that with the same mask for padding."""
    sizes = {**SIZES, "num_segments": 0, "dropout": 0.0, "block_length": 8, "num_layers": 1}
    model = random_weights(VQTransformer(**sizes, column_dropout=0.5))
    plain = VQTransformer(**sizes)
    plain.set_weights(model.get_weights())
    np.testing.assert_array_equal(to_numpy(model(whole(ids))), to_numpy(plain(whole(ids))))
    drop = next(layer for layer in model.layers if "Column" in layer.name)
    masks = keras.Model(model.input, [drop.output[2], model.output])
    mask, output = map(to_numpy, masks(whole(ids), training=True))
    assert 0 < mask.sum() < mask.size
    expected = to_numpy(plain({**whole(ids), "padding_mask": mask}))
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_no_helper_is_a_layer_of_the_model():
    assert not any(isinstance(x, keras.Model) for x in layers_inside(VQTransformer(**WRITER)))


@pytest.mark.slow
def test_a_language_model_learns_to_go_on():
    """A text of period 5, in pieces longer than the two blocks that are seen directly."""
    keras.utils.set_random_seed(0)
    sizes = {**WRITER, "hidden_dim": 16, "block_length": 4, "dropout": 0.0, "residual": "pre"}
    model = VQTransformer(**sizes)
    reader = keras.Model(model.input, model.output["mlm"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    reader.compile(keras.optimizers.Adam(0.02), loss)
    text = np.tile([3, 9, 4, 1, 7], 40).astype("int32")
    places = np.random.default_rng(0).integers(0, 150, 160)[:, None] + np.arange(17)
    counts = to_numpy(model.blocks[0].layers[0].code_counts)
    reader.fit(whole(text[places]), text[places + 1], batch_size=16, epochs=4, verbose=0)
    assert np.abs(to_numpy(model.blocks[0].layers[0].code_counts) - counts).max() > 1
    written = to_numpy(model.generate(text[:22], length=10, temperature=0))
    np.testing.assert_array_equal(written, text[22:32])


@pytest.mark.slow
def test_a_recogniser_takes_it_as_its_encoder():
    keras.utils.set_random_seed(0)
    records = make_records()
    tokenizer = Tokenizer.from_characters([record["text"] for record in records])
    encoder = VQTransformer(
        tokenizer.vocabulary_size,
        num_layers=2,
        hidden_dim=32,
        num_heads=2,
        gated=False,
        codes=16,
        block_length=8,
        dropout=0.0,
    )
    recognizer = EntityRecognizer(
        encoder, tokenizer, ("person", "place"), max_length=32, stride=8, head_size=16
    )
    recognizer.compile(learning_rate=0.01)
    recognizer.fit(records, epochs=12, batch_size=8, verbose=0)
    (found,) = recognizer.predict([records[0]["text"]])
    gold = {(e["start"], e["end"], e["label"]) for e in records[0]["entities"]}
    assert {(e.start, e.end, e.label) for e in found} == gold


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"application": "unilm"}, "Expected an application.*'unilm'"),
        ({"num_heads": 3}, "must divide the width"),
        ({"gated": False, "key_size": None, "num_heads": 3}, "must divide the width"),
        ({"residual": "none"}, "residual='none'"),
        ({"codes": 0}, "codes=0"),
    ],
)
def test_bad_arguments_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        VQTransformer(**{**SIZES, **arguments})


@pytest.mark.parametrize(
    ("arguments", "choices", "match"),
    [
        ({"application": "encoder"}, {}, "language model.*'encoder'"),
        ({"with_mlm": False}, {}, "with_mlm=False"),
        ({}, {"length": 0}, "length=0"),
        ({}, {"temperature": -1}, "temperature=-1"),
        ({}, {"prompt_ids": np.zeros((1, 0), "int32")}, r"shape \(1, 0\)"),
    ],
)
def test_bad_generation_is_refused(arguments, choices, match):
    model = VQTransformer(**{**WRITER, **arguments})
    with pytest.raises(ValueError, match=match):
        model.generate(**{"prompt_ids": np.array([[1]]), "length": 2, **choices})
