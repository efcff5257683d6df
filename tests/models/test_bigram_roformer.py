import keras
import numpy as np
import pytest

from keras_ext.models import BigramRoFormerEncoder


def tiny_encoder(**arguments):
    sizes = {
        "vocabulary_size": 30,
        "bigram_buckets": 100,
        "num_layers": 1,
        "num_heads": 2,
        "hidden_dim": 8,
        "intermediate_dim": 12,
        "embedding_dim": 4,
    }
    return BigramRoFormerEncoder(**{**sizes, **arguments})


def test_segments_change_nothing(batch):
    encoder = tiny_encoder()
    other = {**batch, "segment_ids": 1 - batch["segment_ids"]}
    np.testing.assert_array_equal(np.array(encoder(batch)), np.array(encoder(other)))


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_padding_gives_0_and_no_gradient(batch, policy):
    """Also for a loss that looks at padding, and a sentence that is nothing but padding."""
    batch["padding_mask"][0] = False
    encoder = tiny_encoder(dtype=policy, num_layers=3)
    np.testing.assert_array_equal(np.array(encoder(batch))[~batch["padding_mask"]], 0)
    batch["padding_mask"][:] = False
    scores = keras.layers.Dense(1, dtype="float32")(encoder.output)
    model = keras.Model(encoder.input, scores)
    model.compile(keras.optimizers.SGD(1.0), "mse")
    before = encoder.get_weights()
    model.fit(batch, np.ones((3, 6, 1), "float32"), verbose=0)
    for old, new in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_order_of_the_tokens_matters(batch):
    encoder = tiny_encoder()
    ids = np.array([[1, 2, 3, 4]], "int32")
    inputs = {"segment_ids": 0 * ids, "padding_mask": ids > 0}
    forward = np.array(encoder({**inputs, "token_ids": ids}))
    backward = np.array(encoder({**inputs, "token_ids": ids[:, ::-1]}))[:, ::-1]
    assert np.abs(forward - backward).max() > 1e-2


@pytest.mark.slow
def test_it_learns_which_words_two_characters_make():
    """Marks the pair (1, 2), but neither character alone: one layer of single characters cannot."""
    keras.utils.set_random_seed(0)
    ids = np.random.default_rng(0).integers(1, 4, (64, 8)).astype("int32")
    labels = (ids[:, :-1] == 1) & (ids[:, 1:] == 2)
    encoder = tiny_encoder(dropout=0.0)
    scores = keras.layers.Dense(1, activation="sigmoid")(encoder.output)
    model = keras.Model(encoder.input, scores)
    model.compile(keras.optimizers.Adam(1e-2), "binary_crossentropy")
    batch = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids > 0}
    targets = np.pad(labels, ((0, 0), (0, 1)))[..., None].astype("float32")
    history = model.fit(batch, targets, epochs=25, batch_size=64, verbose=0).history["loss"]
    assert history[-1] < 0.1 * history[0]


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="must divide the width"):
        tiny_encoder(num_heads=3)
