import random
import unicodedata

import keras
import numpy as np
import pytest

from keras_ext.data import Tokenizer, resolve
from keras_ext.entities import Entity, decode_spans
from keras_ext.metrics import SpanF1, score_entities
from keras_ext.optimizers import GradientAccumulation, GuardedLossScale, NonFiniteGuard


def found(recognizer, text, **kwargs):
    return [(e.start, e.end, e.label) for e in recognizer.predict(text, **kwargs)]


def random_text(rng):
    alphabets = ["AdaBo saw Rome.", "中文字符", "e\u0301o\u0308\u20e3", "🙂👨‍👩‍👧🇳🇴", "\t\r\n \u00a0\u3000", "שלום",
                 "\x00\x7f\ufeff\u200b\ud800"]  # fmt: skip
    return "".join(rng.choice(rng.choice(alphabets)) for _ in range(rng.randrange(14)))


def test_nested_entities_are_learnt_and_found(trained, records):
    assert trained.evaluate(records).micro.f1 > 0.95
    assert trained.evaluate(records).nested_only.f1 > 0.95
    entities = trained.predict(records[0]["text"])
    assert [e.text for e in entities] == ["Ada", "Old Rome Town", "Rome"]
    assert all(isinstance(e, Entity) and e.score > 0 for e in entities)


@pytest.mark.slow
def test_the_full_head_learns_too(new_recognizer, records):
    recognizer = new_recognizer("full")
    recognizer.compile(learning_rate=0.01)
    recognizer.fit(records, epochs=10, batch_size=8, verbose=0)
    assert recognizer.evaluate(records).micro.f1 > 0.9


def test_evaluate_is_the_score_of_predict(trained, records):
    predicted = trained.predict([r["text"] for r in records], threshold=-1.0)
    expected = score_entities([r["entities"] for r in records], predicted)
    assert trained.evaluate(records, threshold=-1.0) == expected


@pytest.mark.parametrize("policy", ["nested", "flat", "longest"])
def test_policies_choose_among_what_the_nested_one_finds(trained, records, policy):
    text = records[3]["text"]
    everything = trained.predict(text, threshold=-5.0)
    kinds = trained.labels
    scores = {(kinds.index(e.label), e.start, e.end): e.score for e in everything}
    expected = [(start, end, kinds[kind]) for kind, start, end in resolve(scores, policy)]
    assert found(trained, text, threshold=-5.0, policy=policy) == expected


def test_thresholds_by_label(trained, records):
    text = records[0]["text"]
    assert found(trained, text, threshold={"place": 1e9}) == [(0, 3, "person")]
    assert found(trained, text, threshold=1e9) == []
    with pytest.raises(ValueError, match="unknown"):
        trained.predict(text, threshold={"plaice": 0.0})


@pytest.mark.slow
def test_the_best_threshold_is_the_best_of_all(untrained, records):
    untrained.fit(records[:12], epochs=3, batch_size=8, verbose=0)
    threshold = untrained.best_threshold(records)
    best = untrained.evaluate(records, threshold=threshold).micro.f1
    texts = [record["text"] for record in records]
    scores = {e.score for found in untrained.predict(texts, threshold=-20.0) for e in found}
    tried = sorted(scores)[:: max(len(scores) // 60, 1)]
    assert best >= max(untrained.evaluate(records, threshold=t).micro.f1 for t in tried)
    assert best > untrained.evaluate(records, threshold=0.0).micro.f1
    assert best == untrained.evaluate(records).micro.f1  # it is kept
    assert untrained.best_threshold([{"text": "", "entities": []}]) == 0.0


def test_a_text_that_fits_gives_the_spans_of_its_score_matrix(trained, records):
    for record in records[:5]:
        text = record["text"]
        scores, offsets = trained.span_scores(text)
        ((spans, values),) = decode_spans(scores[None], threshold=-3.0)
        expected = {
            (int(offsets[i, 0]), int(offsets[j, 1]), trained.labels[kind]): value
            for (kind, i, j), value in zip(spans, values, strict=True)
        }
        predicted = trained.predict(text, threshold=-3.0)
        assert {(e.start, e.end, e.label) for e in predicted} == set(expected)
        for e in predicted:
            np.testing.assert_allclose(e.score, expected[e.start, e.end, e.label], atol=1e-4)


def test_the_company_of_other_texts_changes_nothing(trained, records):
    texts = [r["text"] for r in records[:7]] + ["", "Bo.", "Ada saw Old Rome Town. " * 9]
    together = trained.predict(texts)
    for text, entities in zip(texts, together, strict=True):
        assert [(e.start, e.end, e.label) for e in entities] == found(trained, text)


def word_pieces(tmp_path):
    """A WordPiece tokenizer that lowers the case and strips accents."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "saw", "rome", "ad", "##a", "bo", "##o", "."]
    letters = [*"adboesawrm中文字符שלום🙂"]
    vocabulary = dict.fromkeys([*pieces, *letters, *[f"##{letter}" for letter in letters]])
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return Tokenizer.from_vocab(tmp_path / "vocab.txt")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["characters", "word pieces"])
@pytest.mark.parametrize(("parts", "count"), [(1, 800), (8, 100)])
def test_text_slices_on_hundreds_of_random_strings(
    trained, new_recognizer, tmp_path, kind, parts, count
):
    """Short texts, and texts of several windows."""
    recognizer = trained
    if kind == "word pieces":
        recognizer = new_recognizer(tokenizer=word_pieces(tmp_path))
    rng = random.Random(0)
    texts = ["".join(random_text(rng) for _ in range(parts)) for _ in range(count)]
    found = 0
    for text, entities in zip(texts, recognizer.predict(texts, threshold=-20.0), strict=True):
        for e in entities:
            assert 0 <= e.start < e.end <= len(text)
            assert text[e.start : e.end] == e.text
            found += 1
    assert found > 1000


@pytest.mark.parametrize("text", ["", " ", "\t\r\n \u3000", "\u200b" * 0])
def test_text_without_visible_characters_has_no_entities(trained, text):
    assert trained.predict(text, threshold=-1e9) == []
    scores, offsets = trained.span_scores(text)
    assert scores.shape == (2, 0, 0)
    assert offsets.shape == (0, 2)


def test_unknown_symbols_are_tokens_with_offsets(trained):
    assert {e.text for e in trained.predict("☃☃", threshold=-1e9)} == {"☃", "☃☃"}


def test_an_entity_keeps_its_combining_accents(trained):
    text = unicodedata.normalize("NFD", "Zoé")
    assert text in {e.text for e in trained.predict(text, threshold=-1e9)}


@pytest.mark.slow
def test_long_documents_are_read_to_the_end(trained, document):
    text = document["text"]
    assert len(text) > 100_000
    entities = trained.predict(text, batch_size=128)
    assert score_entities([document["entities"]], [entities]).micro.f1 > 0.9
    assert all(text[e.start : e.end] == e.text for e in entities)
    assert entities[-1].end > len(text) - 10


@pytest.mark.slow
@pytest.mark.parametrize("ema_momentum", [None, 0.8])
def test_fit_keeps_the_epoch_with_the_best_f1(new_recognizer, records, ema_momentum):
    recognizer = new_recognizer()
    recognizer.compile(
        learning_rate=0.1, ema_momentum=ema_momentum
    )  # too high: F1 goes up and down
    history = recognizer.fit(records, records[:9], epochs=5, batch_size=8, verbose=0)
    best = max(history.history["val_f1"])
    assert recognizer.evaluate(records[:9]).micro.f1 == pytest.approx(best)


@pytest.mark.slow
def test_history_and_callbacks_see_f1_and_metrics(new_recognizer, records):
    recognizer = new_recognizer()
    recognizer.compile(metrics=[SpanF1(2, 16, factored=True)])
    stop = keras.callbacks.EarlyStopping("val_f1", mode="max", patience=0)
    history = recognizer.fit(
        records[:8], records[:4], epochs=4, batch_size=8, verbose=0, callbacks=[stop]
    )
    names = {"loss", "span_f1", "val_f1", "val_precision", "val_recall", "val_nested_f1"}
    assert names <= set(history.history)
    assert len(history.history["val_f1"]) < 4


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "jit"), [("mixed_float16", True), ("mixed_bfloat16", False)])
def test_training_in_half_precision_is_finite_and_learns(new_recognizer, records, dtype, jit):
    """XLA in bfloat16 is compared with float32 in tests/examples/test_mixed_precision_xla.py."""
    recognizer = new_recognizer(dtype=dtype)
    metric = SpanF1(2, 16, factored=True)
    recognizer.compile(learning_rate=0.01, jit_compile=jit, metrics=[metric])
    history = recognizer.fit(records, epochs=8, batch_size=8, verbose=0)
    scaled = isinstance(recognizer.model.optimizer, GuardedLossScale)
    assert scaled == ("skipped_steps" in history.history) == (dtype == "mixed_float16")
    assert history.history["span_f1"][-1] > history.history["span_f1"][0]
    losses = history.history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] / 4
    assert all(np.isfinite(w).all() for w in recognizer.model.get_weights())


@pytest.mark.slow
def test_a_users_stack_is_guarded_flushed_and_averaged(new_recognizer, records):
    """In float16 in only one layer: 6 windows of 4 batches, one of 2, and averages at the end."""
    inner = keras.optimizers.SGD(0.01, use_ema=True, ema_momentum=0.5)
    recognizer = new_recognizer()
    recognizer.model.get_layer("span_scores").dtype_policy = "mixed_float16"
    recognizer.compile(optimizer=GradientAccumulation(inner, steps=4))
    optimizer = recognizer.model.optimizer
    assert isinstance(optimizer, GuardedLossScale)
    history = recognizer.fit(records[:26], epochs=1, batch_size=1, verbose=0)
    assert history.history["skipped_steps"] == [0] and int(inner.iterations) == 7
    averages = inner._model_variables_moving_average
    for weight, average in zip(recognizer.model.get_weights(), averages, strict=True):
        np.testing.assert_array_equal(weight, keras.ops.convert_to_numpy(average))


@pytest.mark.slow
def test_a_users_optimizer_goes_on_where_it_was(new_recognizer, records):
    recognizer = new_recognizer()
    recognizer.compile(optimizer=keras.optimizers.Adam(0.01))
    recognizer.fit(records[:16], epochs=1, batch_size=8, verbose=0)
    recognizer.fit(records[:16], epochs=1, batch_size=8, verbose=0)
    assert int(recognizer.model.optimizer.iterations) == 4


@pytest.mark.slow
def test_the_report_is_printed_and_can_be_fatal(new_recognizer, records, capsys):
    bad = {
        "text": "Ada met Bo",
        "entities": [
            {"start": 0, "end": 99, "label": "person"},
            {"start": 2, "end": 1, "label": "person"},
            {"start": 0, "end": 3, "label": "planet"},
            {"start": 0, "end": 3, "label": "person"},
            {"start": 0, "end": 3, "label": "person"},
        ],
    }
    recognizer = new_recognizer(labels=["person", "place", "river"])
    recognizer.compile()
    recognizer.fit([bad, *records[:4]], epochs=1, verbose=2)
    printed = capsys.readouterr().out
    for name in ("out of range", "unknown label", "duplicate", "no example"):
        assert name in printed
    with pytest.raises(ValueError, match="4 of 5 entities are lost or given twice"):
        recognizer.fit([bad], epochs=1, verbose=0, on_lost="raise")


def beyond(record):
    """The record, its entities far behind its text."""
    return {**record, "entities": [{**e, "end": e["end"] + 999} for e in record["entities"]]}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ impl")
@pytest.mark.parametrize("verbose", [0, 2])
def test_entities_that_are_lost_are_told_of_whatever_is_printed(new_recognizer, records, verbose):
    recognizer = new_recognizer()
    recognizer.compile(run_eagerly=keras.backend.backend() == "tensorflow")
    arguments = {"epochs": 1, "verbose": verbose}
    lost = [beyond(record) for record in records[:4]]
    message = "training data: 12 of 12 entities are lost or given twice: 12 span outside the text"
    with pytest.warns(UserWarning, match=message):
        recognizer.fit(lost, **arguments)
    with pytest.warns(UserWarning, match="training data: 12 of 21 entities"):
        recognizer.fit([*lost, *records[:3]], **arguments)
    if not verbose:  # else the report is printed
        with pytest.warns(UserWarning, match="validation data: 12 of 12 entities"):
            recognizer.fit(records[:4], lost, **arguments)
    with pytest.warns(UserWarning, match="training data: 1 records without an entity"):
        recognizer.fit([{"text": "Ada", "entities": []}], **arguments)
    recognizer.fit([*lost, *records[:4]], **arguments)  # half of them are there: no warning


@pytest.mark.slow
def test_weights_that_are_not_finite_are_reported(untrained, records):
    untrained.fit(records[:8], epochs=1, verbose=0)
    kernel = untrained.model.trainable_variables[-2]
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(ValueError, match="not finite.*text 1"):
        untrained.predict(["", "Ada"])
    with pytest.raises(RuntimeError, match="the loss of epoch 1 is nan"):
        untrained.fit(records[:8], epochs=1, verbose=0)


@pytest.mark.slow
def test_a_batch_that_the_guard_skips_does_not_end_the_training(new_recognizer, records):
    recognizer = new_recognizer()
    recognizer.compile(NonFiniteGuard(keras.optimizers.Adam(0.01)))
    kernel, kept = recognizer.model.trainable_variables[-2], []

    class Spoil(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 0:
                kept.append(kernel.numpy())
                kernel.assign(np.full(kernel.shape, np.nan))

        def on_train_batch_end(self, batch, logs=None):
            if batch == 0:
                kernel.assign(kept.pop())

    history = recognizer.fit(records[:8], epochs=1, batch_size=4, verbose=0, callbacks=[Spoil()])
    assert history.history["skipped_steps"] == [1] and np.isnan(history.history["loss"]).all()


@pytest.mark.slow
def test_an_exploding_epoch_restores_the_one_before(untrained, records):
    seen = []

    class Explode(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(self.model.get_weights())
            if epoch == 1:
                kernel = self.model.trainable_variables[-2]
                kernel.assign(np.full(kernel.shape, np.nan))

    with pytest.raises(RuntimeError, match="epoch 2"):
        untrained.fit(records[:8], epochs=3, verbose=0, callbacks=[Explode()])
    for before, after in zip(seen[1], untrained.model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.slow
def test_an_interruption_keeps_the_best_epoch(new_recognizer, records):
    recognizer = new_recognizer()

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.f1 = logs["val_f1"]

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                self.model.set_weights([0 * w for w in self.model.get_weights()])
                raise KeyboardInterrupt

    recognizer.compile(learning_rate=0.01, ema_momentum=0.5)
    interrupt = Interrupt()
    with pytest.raises(KeyboardInterrupt):
        recognizer.fit(
            records, records[:9], epochs=3, batch_size=8, verbose=0, callbacks=[interrupt]
        )
    assert recognizer.evaluate(records[:9]).micro.f1 == interrupt.f1 > 0


@pytest.mark.slow
def test_weights_that_break_in_the_last_step_of_an_epoch_are_noticed(untrained, records):

    class Break(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                kernel = self.model.trainable_variables[-2]
                kernel.assign(np.full(kernel.shape, np.inf))

    with pytest.raises(RuntimeError, match="weights are not finite"):
        untrained.fit(
            records[:16], records[:4], epochs=2, batch_size=8, verbose=0, callbacks=[Break()]
        )
    assert untrained.predict("Ada", threshold=-1e9)


@pytest.mark.slow
def test_lost_entities_of_the_validation_records_are_reported(untrained, records, capsys):
    bad = {"text": "Ada", "entities": [{"start": 0, "end": 3, "label": "planet"}]}
    untrained.fit(records[:8], [bad], epochs=1, verbose=2)
    assert "unknown label" in capsys.readouterr().out.split("validation data")[1]


@pytest.mark.slow
@pytest.mark.parametrize("head", ["efficient", "full"])
def test_a_loss_of_gold_spans_and_scores_can_be_given(new_recognizer, records, head):
    losses = {}
    for name in ("own", "given", "function"):
        recognizer = new_recognizer(head)
        own = recognizer.span_head.loss()
        loss = {"own": None, "given": own, "function": lambda y, x, own=own: 2 * own.call(y, x)}
        recognizer.compile(keras.optimizers.SGD(0.0), loss[name])
        history = recognizer.fit(records[:9], records[:5], epochs=1, batch_size=4, verbose=0)
        losses[name] = [history.history[key][0] for key in ("loss", "val_loss")]
    np.testing.assert_allclose(losses["given"], losses["own"], rtol=1e-6)
    np.testing.assert_allclose(losses["function"], 2 * np.array(losses["own"]), rtol=1e-5)


@pytest.mark.parametrize("head", ["efficient", "full"])
@pytest.mark.parametrize(
    "loss", ["mse", keras.losses.CategoricalCrossentropy(), lambda y, x: keras.ops.sum(x)]
)
def test_a_loss_of_something_else_is_refused(new_recognizer, head, loss):
    recognizer = new_recognizer(head)
    with pytest.raises(ValueError, match=r"gold spans \(b, k, 3\).*Received: loss="):
        recognizer.compile(loss=loss)
    with pytest.raises(RuntimeError, match="compile"):
        recognizer.fit([])
    with pytest.raises(ValueError, match="loss_weights=2"):
        recognizer.compile(loss_weights=2)


def test_bad_arguments_of_fit(new_recognizer, records):
    recognizer = new_recognizer()
    with pytest.raises(RuntimeError, match="compile"):
        recognizer.fit(records)
    recognizer.compile()
    with pytest.raises(ValueError, match="no records"):
        recognizer.fit([])
    with pytest.raises(ValueError, match="no text to train on"):
        recognizer.fit([{"text": " ", "entities": []}], verbose=0)
    with pytest.raises(ValueError, match="record 1"):
        recognizer.fit([records[0], {"text": 3, "entities": []}])
    with pytest.raises(ValueError, match="on_lost"):
        recognizer.fit(records, on_lost="ignore")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": []}, "each once"),
        ({"labels": ["a", "a"]}, "each once"),
        ({"head": "softmax"}, "head is one of"),
        ({"stride": 30}, "stride"),
        ({"max_length": 2}, "max_length"),
    ],
)
def test_bad_arguments(new_recognizer, arguments, message):
    with pytest.raises(ValueError, match=message):
        new_recognizer(**arguments)


def test_bad_texts(trained):
    for bad in (None, 3, ["Ada", None], [b"Ada"]):
        with pytest.raises((ValueError, TypeError)):
            trained.predict(bad)
    with pytest.raises(ValueError, match="policy"):
        trained.predict("Ada", policy="best")
    assert trained.predict([]) == []


def test_blanks_at_the_edges_of_gold_entities_cost_nothing(new_recognizer, monkeypatch):
    """`fit` learns the entities without them, so nobody can predict them."""
    recognizer = new_recognizer()
    label = recognizer.labels[0]
    records = [{"text": "Mara works", "entities": [{"start": 0, "end": 5, "label": label}]}]
    found = [[Entity(0, 4, label, "Mara", 1.0)]]
    monkeypatch.setattr(recognizer, "predict", lambda *_: found)
    assert recognizer.evaluate(records).micro.f1 == 1.0
    outside = [{"text": "Mara", "entities": [{"start": 0, "end": 5, "label": label}]}]
    assert recognizer.evaluate(outside).micro.f1 == 0.0
