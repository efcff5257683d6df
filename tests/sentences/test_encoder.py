"""The task of sentence vectors, from texts to vectors, and what must not change them."""

import warnings

import keras
import numpy as np
import pytest

from keras_ext.data import bucket_lengths
from keras_ext.layers import LearnableTemperature, PairClassifier, PairScore
from keras_ext.losses import CoSENT, FlatNCE, InfoNCE, Matryoshka
from keras_ext.metrics import SpearmanCorrelation, spearman
from keras_ext.models import AlbertEncoder, BertEncoder, GAUEncoder, RoFormerEncoder
from keras_ext.sentences import SentenceEvaluation
from keras_ext.sentences.training import text_groups
from keras_ext.sentences.vectors import batch_shape
from keras_ext.tasks import SentenceEncoder
from tests.tasks.sentences import PAIRS, SCORED, TEXTS, TRIPLETS, make_encoder, make_tokenizer

SIZES = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}


def test_a_text_is_encoded_alone_as_among_others():
    encoder = make_encoder()
    texts = ["red car", "", "a long grey boat on the sea", "blue tree"]
    together = encoder.encode(texts, batch_size=3)
    assert together.dtype == np.float32 and together.shape == (4, 16)
    for text, vector in zip(texts, together, strict=True):
        alone = encoder.encode(text)
        assert alone.shape == (16,)
        np.testing.assert_allclose(alone, vector, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)


def test_vectors_are_those_of_the_formula():
    encoder = make_encoder(normalize=False)
    ids = encoder.tokenizer.encode("red car").ids
    row = np.array([[encoder.tokenizer.start_id, *ids, encoder.tokenizer.end_id]], "int32")
    inside = next(layer for layer in encoder.model.layers if layer.name.startswith("bert"))
    inputs = {"token_ids": row, "segment_ids": 0 * row, "padding_mask": row >= 0}
    hidden = keras.ops.convert_to_numpy(inside(inputs))[0]
    np.testing.assert_allclose(encoder.encode("red car"), hidden.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_vectors_are_not_rounded_after_pooling(policy):
    encoder = make_encoder(dtype=policy)
    hidden, _ = encoder.model.get_layer("pooling").input  # and the mask
    model = keras.Model(encoder.model.input, [hidden, encoder.model.output])
    ids = encoder.tokenizer.encode("a long grey boat").ids
    row = np.array([[encoder.tokenizer.start_id, *ids, encoder.tokenizer.end_id]], "int32")
    inputs = {"token_ids": row, "segment_ids": 0 * row, "padding_mask": row >= 0}
    hidden, vector = (x[0].astype("float64") for x in model.predict_on_batch(inputs))
    expected = hidden.mean(axis=0) / np.linalg.norm(hidden.mean(axis=0))
    np.testing.assert_allclose(vector, expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "first_last", "cls", "max", "last"])
def test_each_pooling_ignores_padding(pooling):
    encoder = make_encoder(pooling=pooling, num_layers=2)
    texts = ["red car", "a long grey boat"]
    np.testing.assert_allclose(encoder.encode(texts)[0], encoder.encode(texts[0]), atol=1e-6)


def test_first_last_is_the_mean_of_two_blocks():
    encoders = {
        mode: make_encoder(pooling=mode, normalize=False, num_layers=2)
        for mode in ("mean", "first_last")
    }
    model = encoders["mean"].model
    bert = next(layer for layer in model.layers if layer.name.startswith("bert"))
    first = bert.get_layer("Transformer-0-FeedForward-Add").output
    shallow = keras.Model(bert.input, first)
    ids = encoders["mean"].tokenizer.encode("red car").ids
    row = np.array([[2, *ids, 3]], "int32")
    inputs = {"token_ids": row, "segment_ids": 0 * row, "padding_mask": row >= 0}
    expected = keras.ops.convert_to_numpy(shallow(inputs))[0].mean(axis=0)
    expected = (expected + encoders["mean"].encode("red car")) / 2
    np.testing.assert_allclose(encoders["first_last"].encode("red car"), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [RoFormerEncoder, AlbertEncoder, "gau", "keras_hub"])
def test_other_encoders(kind):
    tokenizer = make_tokenizer()
    rows = tokenizer.vocabulary_size
    if kind == "gau":
        inside = GAUEncoder(rows, num_layers=2, hidden_dim=16, key_size=8)
    elif kind == "keras_hub":
        keras_hub = pytest.importorskip("keras_hub")
        inside = keras_hub.models.BertBackbone(rows, **SIZES)
    else:
        inside = kind(rows, **SIZES)
    encoder = SentenceEncoder(inside, tokenizer, pooling="first_last", max_length=16)
    vectors = encoder.encode(["red car", "a grey boat"])
    np.testing.assert_allclose(vectors[0], encoder.encode("red car"), atol=1e-5)


def test_windows_of_texts_come_back_in_order(monkeypatch):
    encoder = make_encoder()
    texts = [f"{text} {'on sea ' * (number % 3)}" for number, text in enumerate(4 * TEXTS)]
    expected = encoder.encode(texts, batch_size=7)
    monkeypatch.setattr("keras_ext.sentences.encoder.WINDOW", 10)
    np.testing.assert_allclose(encoder.encode(texts, batch_size=7), expected, atol=1e-6)


def test_first_components_have_length_1_again():
    encoder = make_encoder()
    whole = encoder.encode(TEXTS)
    short = encoder.encode(TEXTS, truncate_dim=4)
    expected = whole[:, :4] / np.linalg.norm(whole[:, :4], axis=1, keepdims=True)
    np.testing.assert_allclose(short, expected, atol=1e-6)
    bare = encoder.encode(TEXTS, truncate_dim=4, normalize=False)
    lengths = np.linalg.norm(encoder.encode(TEXTS, normalize=False), axis=1, keepdims=True)
    np.testing.assert_allclose(bare, whole[:, :4] * lengths, atol=1e-5)
    for size in (0, 17):
        with pytest.raises(ValueError, match="truncate_dim"):
            encoder.encode(TEXTS, truncate_dim=size)


@pytest.mark.slow
@pytest.mark.parametrize("made", [True, False])
def test_vectors_with_and_without_length_1(made):
    encoder = make_encoder(normalize=made)
    units, bare = (encoder.encode(TEXTS, normalize=flag) for flag in (True, False))
    lengths = np.linalg.norm(bare, axis=1, keepdims=True)
    assert np.abs(lengths - 1.0).min() > 0.1
    np.testing.assert_allclose(units * lengths, bare, atol=1e-5)
    np.testing.assert_array_equal(encoder.encode(TEXTS), units if made else bare)
    encoder.whiten(TEXTS, units=4)
    assert encoder.encode(TEXTS, normalize=False).shape == (16, 4)


def test_where_shapes_compile_there_are_few():
    encoder = make_encoder()
    texts = ["a" * size for size in range(1, 29)]
    expected = encoder.encode(texts, batch_size=4)
    encoder.model.jit_compile = True
    shapes = {
        batch_shape(encoder.model, rows, length, 4, 32)
        for rows in (1, 4)
        for length in range(3, 33)
    }
    assert shapes == {(4, 16), (4, 32)} | {(4, size) for size in bucket_lengths(32)}
    np.testing.assert_allclose(encoder.encode(texts[:9], batch_size=4), expected[:9], atol=1e-5)


def test_nothing_to_encode():
    assert make_encoder().encode([]).shape == (0, 16)


def test_a_text_that_is_cut_is_reported():
    encoder = make_encoder(max_length=8)
    with pytest.warns(UserWarning, match="1 of 2 texts have more than max_length=8 tokens") as seen:
        vectors = encoder.encode(["red car and boat", "red"])
    assert seen[0].filename == __file__
    with pytest.warns(UserWarning, match="1 of 1") as seen:
        encoder.encode("red car and boat")
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(vectors[0], encoder.encode("red car"), atol=1e-6)


def test_what_is_no_text_is_named():
    with pytest.raises(ValueError, match=r"texts\[1\]=None"):
        make_encoder().encode(["red", None])


def test_vectors_that_are_not_finite_are_an_error():
    encoder = make_encoder()
    encoder.model.set_weights([np.full_like(w, np.nan) for w in encoder.model.get_weights()])
    with pytest.raises(ValueError, match="not finite"):
        encoder.encode(["red"])


@pytest.mark.parametrize(
    "arguments", [{"score": "euclid"}, {"pooling": "median"}, {"max_length": 2}, {"max_length": 64}]
)
def test_impossible_arguments(arguments):
    with pytest.raises(ValueError, match="Received"):
        make_encoder(**arguments)


def test_progress_is_shown(capsys):
    make_encoder().encode(TEXTS, progress=True)
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capsys.readouterr().out


TRAININGS = {
    "scored": (SCORED, SCORED, {}),
    "angle": (SCORED, SCORED, {"loss": CoSENT(score="angle")}),
    "pairs": (PAIRS, SCORED, {}),
    "symmetric": (PAIRS, SCORED, {"loss": InfoNCE(symmetric=True)}),
    "flat": (PAIRS, SCORED, {"loss": FlatNCE()}),
    "matryoshka": (PAIRS, SCORED, {"loss": Matryoshka(InfoNCE(), [4, 16])}),
    "temperature": (
        PAIRS,
        SCORED,
        {"loss": InfoNCE(temperature=1.0, score="dot"), "head": LearnableTemperature()},
    ),
    "triplets": (TRIPLETS, SCORED, {}),
    "regression": (SCORED, SCORED, {"loss": "mse", "head": PairScore()}),
    "classifier": (
        SCORED,
        SCORED,
        {
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "head": PairClassifier(2),
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_training_ranks_better(name):
    examples, dev, arguments = TRAININGS[name]
    encoder = make_encoder()
    before = encoder.evaluate(dev).spearman
    encoder.compile(**{"learning_rate": 0.01, **arguments})
    encoder.fit(examples, epochs=10, batch_size=16, verbose=0)
    assert encoder.evaluate(dev).spearman > max(before, 0.3)
    if name == "temperature":
        assert abs(float(arguments["head"].temperature) - 0.05) > 0.002


def test_a_head_needs_its_loss():
    with pytest.raises(ValueError, match="head"):
        make_encoder().compile(head=LearnableTemperature())


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["mse", keras.losses.MeanSquaredError()])
def test_rows_that_fill_up_do_not_count(loss):
    losses, pairs = {}, [*SCORED[:4], next(pair for pair in SCORED if pair[2])]
    for batch_size in (5, 8):
        encoder = make_encoder()
        metric = SpearmanCorrelation(name="rank")
        encoder.compile(keras.optimizers.SGD(0.0), loss, head=PairScore(), metrics=[metric])
        history = encoder.fit(pairs, epochs=1, batch_size=batch_size, verbose=0)
        losses[batch_size] = history.history["loss"][0]
        cosines = [float(encoder.similarity([a], [b])[0, 0]) for a, b, _ in pairs]
        labels = [score for *_, score in pairs]
        assert history.history["rank"][0] == pytest.approx(spearman(labels, cosines), abs=1e-5)
    expected = np.mean((np.array(cosines) - np.array(labels)) ** 2)
    assert losses[5] == pytest.approx(expected, rel=1e-4)
    assert losses[8] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_one_optimizer_and_its_loss_scale_go_through_several_fits():
    encoder = make_encoder(dtype="mixed_float16")
    encoder.compile(optimizer=keras.optimizers.SGD(0.01))
    optimizers = set()
    for chunk_size in (None, 4, None):
        encoder.fit(SCORED[:16], epochs=1, batch_size=8, chunk_size=chunk_size, verbose=0)
        optimizers.add(encoder._training.trained[chunk_size, True].optimizer)
    (optimizer,) = optimizers
    steps = int(optimizer.inner_optimizer.iterations)
    assert steps + int(optimizer.skipped_steps) == 6


@pytest.mark.slow
def test_bare_texts_are_their_own_positives():
    encoder = make_encoder(dropout=0.2)
    encoder.compile(learning_rate=0.003)
    history = encoder.fit(TEXTS, PAIRS, epochs=5, batch_size=8, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert set(history.history) >= {"val_mrr", "val_recall", "val_ndcg"}


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "jit"), [("mixed_float16", True), ("mixed_bfloat16", False)])
def test_training_in_half_precision(policy, jit):
    encoder = make_encoder(dtype=policy)
    encoder.compile(learning_rate=0.01, jit_compile=jit)
    encoder.fit(SCORED, epochs=6, batch_size=16, verbose=0)
    assert encoder.encode(TEXTS).dtype == np.float32
    assert encoder.evaluate(SCORED).spearman > 0.3


@pytest.mark.slow
def test_a_cached_batch_trains_as_the_batch_at_once():
    weights = {}
    for chunk_size in (None, 5):
        encoder = make_encoder()
        encoder.compile(optimizer=keras.optimizers.SGD(0.1))
        encoder.fit(SCORED, epochs=1, batch_size=16, chunk_size=chunk_size, verbose=0)
        weights[chunk_size] = encoder.model.get_weights()
    before = make_encoder().model.get_weights()
    for plain, cached in zip(weights[None], weights[5], strict=True):
        np.testing.assert_allclose(plain, cached, atol=2e-5)
    moved = [np.abs(new - old).max() for new, old in zip(weights[None], before, strict=True)]
    assert max(moved) > 1e-3


@pytest.mark.slow
def test_the_best_epoch_is_kept():
    encoder = make_encoder()

    def spoil(epoch, logs):
        if epoch == 2:
            weights = encoder.model.get_weights()
            random = np.random.default_rng(0)
            encoder.model.set_weights([random.normal(size=w.shape) for w in weights])

    encoder.compile(learning_rate=0.01)
    callback = keras.callbacks.LambdaCallback(on_epoch_begin=spoil)
    history = encoder.fit(SCORED, SCORED, epochs=3, batch_size=16, callbacks=[callback], verbose=0)
    ranks = history.history["val_spearman"]
    assert ranks[-1] < max(ranks) - 0.1
    assert encoder.evaluate(SCORED).spearman == pytest.approx(max(ranks), abs=1e-6)


@pytest.mark.slow
def test_a_measure_that_is_not_a_number_loses_nothing():
    encoder = make_encoder()
    encoder.compile(learning_rate=0.01)
    same = [("red car", "red car", 1.0), ("red car", "red car", 0.0)]
    before = encoder.encode(TEXTS)
    history = encoder.fit(SCORED, same, epochs=2, batch_size=16, verbose=0)
    assert "val_spearman" not in history.history
    assert np.abs(encoder.encode(TEXTS) - before).max() > 1e-3  # the last weights are kept


@pytest.mark.slow
def test_the_callback_adds_to_the_logs():
    encoder = make_encoder()
    encoder.compile()
    callback = SentenceEvaluation(encoder, PAIRS, prefix="pairs_", k=3)
    history = encoder.fit(SCORED, epochs=2, callbacks=[callback], verbose=0)
    assert len(history.history["pairs_mrr"]) == 2 and "pairs_spearman" not in history.history


@pytest.mark.slow
def test_the_report_tells_what_is_cut_and_shared(capsys):
    encoder = make_encoder(max_length=8)
    encoder.compile()
    encoder.fit([("red car", "red boat on sea"), ("red car", "tree")], epochs=1, verbose=1)
    printed = capsys.readouterr().out
    assert "2 pairs, 2 of which share a text with others (at most 2 in a group)" in printed
    assert "nothing is left to tell apart" in printed
    assert "1 of 2 texts are cut at max_length=8 tokens" in printed


@pytest.mark.slow
def test_equal_scores_train_nothing(capsys):
    encoder = make_encoder()
    encoder.compile(optimizer=keras.optimizers.SGD(0.1))
    before = encoder.model.get_weights()
    history = encoder.fit([(a, b, 1) for a, b, _ in SCORED], epochs=1, verbose=1)
    assert history.history["loss"] == [0.0]
    for old, new in zip(before, encoder.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert "nothing to rank" in capsys.readouterr().out


@pytest.mark.slow
def test_one_example_is_a_batch():
    encoder = make_encoder()
    encoder.compile()
    assert encoder.fit(SCORED[:1], epochs=1, verbose=0).history["loss"] == [0.0]
    assert encoder.fit(PAIRS[:1], epochs=1, verbose=0).history["loss"] == [0.0]


@pytest.mark.parametrize(
    ("examples", "dev", "message"),
    [
        ([], None, "no examples"),
        ([("red", "car"), "red"], None, "mixed"),
        ([("red", "")], None, "one-sided"),
        ([("red", "car", float("nan"))], None, "finite"),
        (["red", " "], None, "empty"),
        (PAIRS, [("red", "red")], "finds itself"),
        (SCORED, TEXTS, "Bare texts"),
        (SCORED, [("red", "car", 1), ("blue", "car", 1)], "all scores are equal"),
    ],
)
def test_examples_that_cannot_be_learnt_from(examples, dev, message):
    encoder = make_encoder()
    encoder.compile()
    with pytest.raises(ValueError, match=message):
        encoder.fit(examples, dev, verbose=0)


def test_fit_asks_for_compile():
    with pytest.raises(RuntimeError, match="compile"):
        make_encoder().fit(PAIRS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [{}, {"loss": InfoNCE(1.0, "dot"), "head": LearnableTemperature()}]
)
def test_a_loss_that_is_not_finite_loses_nothing(arguments):
    encoder = make_encoder()
    encoder.compile(optimizer=keras.optimizers.SGD(1e38), **arguments)
    before = encoder.encode(TEXTS)
    with pytest.raises(RuntimeError, match="Training stopped"):
        encoder.fit(SCORED if not arguments else PAIRS, epochs=3, batch_size=16, verbose=0)
    np.testing.assert_array_equal(encoder.encode(TEXTS), before)


def test_groups_join_examples_that_share_texts():
    columns = [["a", "b", "c", "x", "y"], ["b", "c", "d", "x", "z"], ["n", "n", "n", "n", "n"]]
    groups, negatives = text_groups(columns).T.tolist()
    assert groups[0] == groups[1] == groups[2] != -1
    assert groups[3:] == [-1, -1]  # a text beside itself, and negatives, join nothing
    assert negatives == [-1] * 5
    np.testing.assert_array_equal(text_groups(columns[:2]), groups)


@pytest.mark.slow
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_fit_takes_equal_texts_for_what_they_are(chunk_size, capsys):
    """Against the sum over the texts that are wrong for each anchor."""
    rows = [
        ("red car", "blue car", "grey boat"),
        ("red tree", "grey tree", "blue car"),  # the positive of the first
        ("red house", "blue tree", "red house"),  # itself
    ]
    wrong = [
        ["grey boat", "grey tree", "blue tree"],
        ["blue car", "blue car", "grey boat", "blue tree"],
        ["blue car", "grey boat", "grey tree", "blue car"],
    ]
    encoder, losses = make_encoder(), []
    for row, negatives in zip(rows, wrong, strict=True):
        scores = encoder.similarity(row[:1], [row[1], *negatives])[0] / 0.05
        losses.append(np.logaddexp.reduce(scores) - scores[0])
    for loss in (None, Matryoshka(InfoNCE(), [16])):
        encoder.compile(keras.optimizers.SGD(0.0), loss)
        history = encoder.fit(rows, batch_size=8, chunk_size=chunk_size, verbose=2).history
        assert history["loss"][0] == pytest.approx(np.mean(losses), rel=1e-4)
    report = "3 tuples; 1 with a negative that is their own anchor or positive, which is left out"
    assert report in capsys.readouterr().out


@pytest.mark.slow
def test_the_report_counts_examples(capsys):
    encoder = make_encoder()
    encoder.compile(optimizer=keras.optimizers.SGD(0.0))
    for rows, end in (
        ([("a", "b", "c"), ("d", "e", "a")], "2 tuples"),  # an id, but nothing in common
        (
            [("a", "b", "a"), ("b", "c", "b")],
            "2 of which share a text with others (at most 2 in a group) and are no negatives of "
            "each other; 2 with a negative that is their own anchor or positive, which is left "
            "out: nothing is left to tell apart",
        ),
        (
            [("a", "b", "a"), ("b", "c", "d")],
            "each other; 1 with a negative that is their own anchor or positive, which is left out",
        ),
    ):
        encoder.fit(rows, verbose=2)
        assert capsys.readouterr().out.splitlines()[0].endswith(end)


@pytest.mark.slow
def test_a_loss_of_ones_own_gets_the_groups():
    shapes = set()

    def loss(groups, vectors):
        shapes.add(tuple(groups.shape[1:]))
        return keras.ops.sum(vectors, axis=(1, 2))

    encoder = make_encoder()
    encoder.compile(keras.optimizers.SGD(0.0), loss)
    for examples in (PAIRS, TRIPLETS, [(*row, "a") for row in TRIPLETS]):
        encoder.fit(examples, batch_size=4, verbose=0)
    assert shapes == {(), (2,), (3,)}


def test_whitening_makes_vectors_white():
    encoder = make_encoder(normalize=False)
    texts = TEXTS + [f"{text} {text}" for text in TEXTS]
    encoder.whiten(texts, units=6)
    vectors = encoder.encode(texts)
    np.testing.assert_allclose(vectors.mean(axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(np.cov(vectors.T, bias=True), np.eye(6), atol=2e-2)


@pytest.mark.slow
def test_whitening_stands_before_the_normalisation(tmp_path):
    encoder = make_encoder()
    encoder.whiten(TEXTS, units=4)
    vectors = encoder.encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    encoder.save(tmp_path / "bundle")
    loaded = SentenceEncoder.load(tmp_path / "bundle")
    np.testing.assert_array_equal(loaded.encode(TEXTS), vectors)
    loaded.whiten(TEXTS)  # finds its place again
    assert loaded.encode(TEXTS).shape == (16, 4)


@pytest.mark.slow
def test_a_bundle_gives_the_same_vectors(tmp_path):
    encoder = make_encoder(pooling="max", normalize=False, score="dot", max_length=20)
    encoder.save(tmp_path / "bundle")
    loaded = SentenceEncoder.load(tmp_path / "bundle")
    assert loaded.settings == encoder.settings
    np.testing.assert_array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))
    loaded.compile()
    loaded.fit(SCORED[:8], verbose=0)


def test_bert_with_heads_is_an_encoder():
    tokenizer = make_tokenizer()
    inside = BertEncoder(tokenizer.vocabulary_size, **SIZES, with_pool=True)
    assert SentenceEncoder(inside, tokenizer).encode("red").shape == (16,)
