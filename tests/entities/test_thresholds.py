"""`EntityRecognizer.best_threshold` against the threshold found from entities, one by one."""

import random
import tracemalloc
import warnings

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_ext.data import Tokenizer, resolve

LABELS = ["person", "place", "river"]
SIZE = 2
FLOOR = -20.0


class RandomScores:
    """In place of a model: scores by lot, the same for the same tokens; rounded ones often tie."""

    def __init__(self, head, seed, mean=0.0, step=None, heads=3, size=SIZE):
        self.head, self.seed, self.mean, self.step = head, seed, mean, step
        self.heads, self.size = heads, size

    def predict_on_batch(self, inputs):
        ids, mask = inputs["token_ids"], inputs["padding_mask"]
        b, n = ids.shape
        if self.head == "efficient":
            scores = np.zeros((b, n, 2 * (self.size + self.heads)), "float32")
            scores[..., 2 * self.size :] = -1e30
        else:
            scores = np.full((b, self.heads, n, n), -1e30, "float32")
        for row, tokens, length in zip(scores, ids, mask.sum(axis=1), strict=True):
            rng = np.random.default_rng([self.seed, *tokens[:length].tolist()])
            if self.head == "efficient":
                row[:length] = self.draw(rng, (length, row.shape[1]))
                row[:length, 2 * self.size :] += np.float32(self.mean / 2)
            else:
                drawn = self.draw(rng, (self.heads, length, length)) + np.float32(self.mean)
                upper = np.triu(np.ones((length, length), bool))
                row[:, :length, :length] = np.where(upper, drawn, np.float32(-1e30))
        return scores

    def draw(self, rng, shape):
        scores = rng.normal(scale=4.0, size=shape).astype("float32")
        return scores if self.step is None else np.round(scores / self.step) * self.step


def from_entities(recognizer, records):
    """The threshold from every entity above -20 and every place to cut between two of them."""
    texts = [record["text"] for record in records]
    predicted = recognizer.predict(texts, threshold=FLOOR)
    gold = [{(e["start"], e["end"], e["label"]) for e in r["entities"]} for r in records]
    scored = [
        (e.score, (e.start, e.end, e.label) in truth)
        for entities, truth in zip(predicted, gold, strict=True)
        for e in entities
    ]
    scored.sort(key=lambda pair: -pair[0])
    total, hits, best_f1, best = sum(map(len, gold)), 0, 0.0, 0.0
    for count, (score, hit) in enumerate(scored, 1):
        hits += hit
        below = scored[count][0] if count < len(scored) else FLOOR
        f1 = 2 * hits / (count + total)
        if score > below and f1 > best_f1:  # between equal scores no threshold fits
            best_f1, best = f1, (score + below) / 2
    return best


def byte_tokenizer():
    """Its tokens are bytes: several share the characters that are not ASCII."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = {word: i for i, word in enumerate(["<s>", "</s>", "<pad>", "<unk>", *letters])}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(words, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return Tokenizer(backend)


def random_records(rng, recognizer):
    """Short and long texts; gold entities are found ones, ones that cannot be found, and repeats."""
    lengths = rng.choice([[2], [3, 0, 2], [40, 0, 3, 9, 1, 40]])
    texts = ["".join(rng.choices("Ada é中🙂\n", k=length)) for length in lengths]
    share = rng.choice([0.0, 0.01, 0.1, 0.6])
    records = []
    for text, entities in zip(texts, recognizer.predict(texts, threshold=-1e9), strict=True):
        gold = [(e.start, e.end, e.label) for e in entities if rng.random() < share]
        gold += rng.sample(gold, min(len(gold), 2))
        if rng.random() < 0.3:
            gold += [(0, 1, "planet"), (2, 2, "river"), (0, 99, "person"), (-1, 0, "place")]
            gold += [(0, 2**32 + 2, "place"), (-1, 2**32 + 1, "place"), (-(2**70), 2**70, "river")]
        keys = "start", "end", "label"
        gold = [dict(zip(keys, entity, strict=True)) for entity in gold]
        records.append({"text": text, "entities": gold})
    return records


@pytest.fixture(scope="module", params=["efficient", "full"])
def head(request):
    return request.param


@pytest.fixture(scope="module", params=["characters", "bytes"])
def recognizer(request, head, new_recognizer):
    kinds = {"characters": Tokenizer.from_characters(["Adaé中🙂"], 1), "bytes": byte_tokenizer()}
    return new_recognizer(
        head, labels=LABELS, tokenizer=kinds[request.param], max_length=10, stride=4, head_size=SIZE
    )


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    mean=st.sampled_from([0.0, -12.0, -19.0, -60.0]),
    step=st.sampled_from([None, 0.5, 2.0, 8.0]),
    chunk=st.sampled_from([50, 2**20]),
)
def test_equals_the_threshold_from_entities(recognizer, head, seed, mean, step, chunk):
    recognizer.model = RandomScores(head, seed, mean, step)
    records = random_records(random.Random(seed), recognizer)
    expected = from_entities(recognizer, records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras_ext.entities.thresholds.CHUNK", chunk)
        assert recognizer.best_threshold(records, batch_size=4) == expected


@pytest.mark.slow
def test_a_million_spans_of_equal_texts_have_the_threshold_of_one_text(head, new_recognizer):
    """They take 20 MB at most; as entities 200 MB."""
    recognizer = new_recognizer(head, labels=list("abcdefgh"), max_length=52, stride=2)
    recognizer.model = RandomScores(head, seed=0, step=2**-4, heads=8, size=16)
    gold = [{"start": 0, "end": 1, "label": "a"}, {"start": 3, "end": 9, "label": "h"}]
    record = {"text": "Ada saw Oslo" * 5, "entities": gold}
    expected = from_entities(recognizer, [record])
    tracemalloc.start()
    try:
        assert recognizer.best_threshold([record] * 120) == expected != 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40e6


def test_of_equal_f1_the_higher_threshold_counts(new_recognizer):
    """Gold, two others, gold: the F1 is 2 / 3 with one span and with all four."""

    class FourScores:
        def predict_on_batch(self, inputs):
            scores = np.full((1, 1, 5, 5), -1e30, "float32")
            scores[0, 0, [1, 2, 3, 2], [1, 3, 3, 2]] = [9.0, 5.0, 4.0, 2.0]
            return scores

    recognizer = new_recognizer("full", labels=["person"], max_length=5, stride=0)
    recognizer.model = FourScores()
    gold = [{"start": start, "end": start + 1, "label": "person"} for start in (0, 1)]
    assert recognizer.best_threshold([{"text": "Ada", "entities": gold}]) == 7.0
    assert recognizer.best_threshold([{"text": "Ada", "entities": gold[1:]}]) == (2.0 - 20.0) / 2
    assert recognizer.best_threshold([{"text": "Ada", "entities": []}]) == 0.0


def decoded_f1(candidates, records, thresholds, policy):
    """The F1 of decoding these candidates, a dict for each text, at a threshold for each label."""
    hits = predicted = total = 0
    for scores, record in zip(candidates, records, strict=True):
        above = {span: score for span, score in scores.items() if score > thresholds[span[0]]}
        given = resolve(above, policy)
        gold = {(e["label"], e["start"], e["end"]) for e in record["entities"]}
        hits += len({(LABELS[kind], start, end) for kind, start, end in given} & gold)
        predicted += len(given)
        total += len(gold)
    return 2 * hits / max(predicted + total, 1)


def candidates_of(recognizer, records):
    """The spans above -20 of each text."""
    texts = [record["text"] for record in records]
    return [
        {(LABELS.index(e.label), e.start, e.end): e.score for e in entities}
        for entities in recognizer.predict(texts, threshold=FLOOR, policy="nested")
    ]


def few_records(rng, recognizer):
    """Few tokens, so that all thresholds can be tried."""
    texts = ["".join(rng.choices("Ada é中🙂", k=k)) for k in rng.choice([[2], [3, 0, 2], [5, 3]])]
    records = []
    for text, entities in zip(texts, recognizer.predict(texts, threshold=-1e9), strict=True):
        gold = [(e.start, e.end, e.label) for e in entities if rng.random() < 0.2]
        gold += [(0, 1, "planet")] * (rng.random() < 0.3)
        keys = "start", "end", "label"
        gold = [dict(zip(keys, entity, strict=True)) for entity in gold]
        records.append({"text": text, "entities": gold})
    return records


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    mean=st.sampled_from([0.0, -4.0, -19.0]),
    step=st.sampled_from([None, 0.5, 4.0]),
    policy=st.sampled_from(["nested", "flat", "longest"]),
)
def test_no_threshold_is_better_whatever_the_policy(recognizer, head, seed, mean, step, policy):
    recognizer.model = RandomScores(head, seed, mean, step)
    recognizer.policy = "nested"
    records = few_records(random.Random(seed), recognizer)
    candidates = candidates_of(recognizer, records)
    levels = sorted({score for scores in candidates for score in scores.values()} | {-20.0})
    tried = [decoded_f1(candidates, records, 3 * [level], policy) for level in levels]
    best = recognizer.best_threshold(records, policy=policy)
    assert recognizer.policy == policy
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where nothing can be found
        assert recognizer.evaluate(records).micro.f1 == pytest.approx(max(tried), abs=1e-12)
        each = recognizer.best_threshold(records, per_label=True)
        f1 = recognizer.evaluate(records).micro.f1
    assert f1 == pytest.approx(decoded_f1(candidates, records, list(each.values()), policy))
    assert f1 >= max(tried) - 1e-12
    # No change of one label makes it better, and, where labels do not meet, no change at all.
    for kind, label in enumerate(LABELS):
        for level in levels:
            others = [*each.values()][:kind] + [level] + [*each.values()][kind + 1 :]
            assert decoded_f1(candidates, records, others, policy) <= f1 + 1e-12, (label, best)
    if policy == "nested":
        assert f1 == pytest.approx(best_of_all(candidates, records), abs=1e-12)


def best_of_all(candidates, records):
    """The best F1 of "nested", by every combination of numbers predicted of each label."""
    totals = sum(len({(*e.values(),) for e in record["entities"]}) for record in records)
    reached = {0: 0}  # predicted -> the most hits
    for kind, label in enumerate(LABELS):
        scored = [
            (score, {"start": start, "end": end, "label": label} in record["entities"])
            for scores, record in zip(candidates, records, strict=True)
            for (this, start, end), score in scores.items()
            if this == kind
        ]
        cuts = {(0, 0)}
        for level, _ in scored:
            above = [hit for score, hit in scored if score >= level]
            cuts.add((len(above), sum(above)))
        sums = [(p + n, h + m) for p, h in reached.items() for n, m in cuts]
        reached = {p: max(h for q, h in sums if q == p) for p, _ in sums}
    return max(2 * h / max(p + totals, 1) for p, h in reached.items())


def test_neighbouring_scores_are_told_apart(new_recognizer):
    """Between two neighbours in float32 there is no number: the lower one is the threshold."""
    high = np.float32(3.0)
    low = np.nextafter(high, np.float32(0.0))

    class TwoScores:
        def predict_on_batch(self, inputs):
            scores = np.full((1, 1, 5, 5), -1e30, "float32")
            scores[0, 0, [1, 2], [1, 2]] = [high, low]
            return scores

    for pair, gold in ((1, 0), (0, 1)):
        recognizer = new_recognizer("full", labels=["person"], max_length=5, stride=0)
        recognizer.model = TwoScores()
        entities = [{"start": gold, "end": gold + 1, "label": "person"}]
        for policy in ("nested", "flat", "longest"):
            recognizer.best_threshold([{"text": "Ada", "entities": entities}], policy=policy)
            scores = recognizer.evaluate([{"text": "Ada", "entities": entities}])
            assert scores.micro.predicted == 1 + gold, pair


def test_a_label_without_entities_is_not_predicted_nor_made_easier(head, new_recognizer):
    """Where all its scores are low it gets the common threshold."""
    recognizer = new_recognizer(head, labels=LABELS, max_length=10, stride=4, head_size=SIZE)
    recognizer.model = RandomScores(head, seed=3)
    text = "Ada Ada"
    first = max(recognizer.predict(text), key=lambda e: e.score * (e.label == "person"))
    gold = {"start": first.start, "end": first.end, "label": "person"}
    record = {"text": text, "entities": [gold]}
    common = recognizer.best_threshold([record])
    each = recognizer.best_threshold([record], per_label=True)
    assert min(each["place"], each["river"]) >= common
    assert {e.label for e in recognizer.predict(text)} == {"person"}
