"""Search, similarity and evaluation of sentence vectors."""

import math

import keras
import numpy as np
import pytest

from keras_ext.sentences.search import exact_best
from tests.tasks.sentences import PAIRS, SCORED, TEXTS, TRIPLETS, make_encoder


@pytest.mark.slow
@pytest.mark.parametrize("score", ["cosine", "dot"])
def test_similarity_is_all_scores(score):
    encoder = make_encoder(score=score, normalize=False)
    first, second = encoder.encode(TEXTS[:3]), encoder.encode(TEXTS)
    expected = first @ second.T
    if score == "cosine":
        lengths = [np.linalg.norm(vectors, axis=1) for vectors in (first, second)]
        expected /= np.outer(*lengths)
    found = encoder.similarity(TEXTS[:3], TEXTS)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(encoder.similarity(first, second), found, atol=1e-6)


@pytest.mark.slow
def test_search_finds_what_scores_best():
    encoder = make_encoder()
    hits = encoder.search(TEXTS[:2], TEXTS, k=3)
    scores = encoder.similarity(TEXTS[:2], TEXTS)
    for found, row in zip(hits, scores, strict=True):
        assert [hit.index for hit in found] == np.argsort(-row, kind="stable")[:3].tolist()
        assert [hit.text for hit in found] == [TEXTS[hit.index] for hit in found]
        np.testing.assert_allclose([hit.score for hit in found], np.sort(row)[::-1][:3], atol=1e-6)
    assert encoder.search(TEXTS[0], TEXTS, k=1)[0].text == TEXTS[0]


VECTORS = {  # the forms in which vectors come, from an array (m, d)
    "array": lambda vectors: vectors,
    "float64": lambda vectors: vectors.astype("float64"),
    "list of arrays": list,
    "lists of floats": lambda vectors: vectors.tolist(),
    "tensor": keras.ops.convert_to_tensor,
    "list of tensors": lambda vectors: [keras.ops.convert_to_tensor(each) for each in vectors],
    "generator": iter,
}


@pytest.mark.slow
@pytest.mark.parametrize("form", VECTORS)
def test_vectors_in_any_form(form):
    encoder = make_encoder(normalize=False)
    vectors, given = encoder.encode(TEXTS), VECTORS[form]
    expected = encoder.search(TEXTS[:2], TEXTS, k=3)
    found = encoder.search(given(vectors[:2]), given(vectors), k=3)
    assert [[hit.index for hit in row] for row in found] == [
        [hit.index for hit in row] for row in expected
    ]
    scores = encoder.similarity(TEXTS[:2], TEXTS)
    np.testing.assert_allclose(
        encoder.similarity(given(vectors[:2]), given(vectors)), scores, atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("form", ["array", "float64", "lists of floats", "tensor", "generator"])
def test_one_vector_is_one_query(form):
    encoder = make_encoder()
    vectors, given = encoder.encode(TEXTS), VECTORS[form]
    hits = encoder.search(given(vectors[3]), TEXTS, k=2)
    assert [hit.text for hit in hits] == [hit.text for hit in encoder.search(TEXTS[3], TEXTS, k=2)]
    assert hits == encoder.search(vectors[3:4], TEXTS, k=2)[0]
    scores = encoder.similarity(vectors, vectors)
    np.testing.assert_allclose(encoder.similarity(given(vectors[3]), TEXTS), scores[3], atol=1e-6)
    np.testing.assert_allclose(
        encoder.similarity(TEXTS, given(vectors[3])), scores[:, 3], atol=1e-6
    )
    one = encoder.similarity(given(vectors[3]), given(vectors[2]))
    assert one.shape == () and one == pytest.approx(scores[3, 2], abs=1e-6)


@pytest.mark.slow
def test_a_vector_of_half_precision_is_a_vector():
    encoder = make_encoder()
    half = keras.ops.cast(encoder.encode("red car"), "bfloat16")
    assert encoder.search(half, TEXTS, k=1)[0].text == "red car"


@pytest.mark.slow
def test_a_corpus_of_vectors_has_no_texts():
    encoder = make_encoder()
    hits = encoder.search("red car", encoder.encode(TEXTS), k=2)
    assert hits[0].text is None and TEXTS[hits[0].index] == "red car"


@pytest.mark.slow
def test_a_corpus_smaller_than_k_gives_all():
    assert len(make_encoder().search("red", ["blue car", "tree"], k=10)) == 2


def test_faiss_finds_the_same():
    encoder = make_encoder()
    exact, by_faiss = (encoder.search(TEXTS, TEXTS, 5, index) for index in ("numpy", "faiss"))
    for one, other in zip(exact, by_faiss, strict=True):
        assert [hit.index for hit in one] == [hit.index for hit in other]
        np.testing.assert_allclose(
            [hit.score for hit in one], [hit.score for hit in other], atol=1e-5
        )


@pytest.mark.slow
def test_without_faiss_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(ImportError, match="faiss-cpu"):
        make_encoder().search("red", TEXTS, index="faiss")


def test_ties_are_in_the_order_of_the_corpus(monkeypatch):
    scores = np.random.default_rng(0).integers(0, 4, (50, 1)).astype("float32")
    for k in (1, 7, 50):
        found, places = exact_best(np.ones((3, 1), "float32"), scores, k)
        expected = np.argsort(-scores[:, 0], kind="stable")[:k]
        np.testing.assert_array_equal(places, np.tile(expected, (3, 1)))
        np.testing.assert_array_equal(found[0], scores[expected, 0])
    whole = exact_best(scores, scores, 5)
    monkeypatch.setattr("keras_ext.sentences.search.BLOCK", 100)  # two queries a block
    for part, expected in zip(exact_best(scores, scores, 5), whole, strict=True):
        np.testing.assert_array_equal(part, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("queries", "corpus", "arguments"),
    [
        ("red", [], {}),
        ("red", TEXTS, {"k": 0}),
        ("red", TEXTS, {"index": "annoy"}),
        ("red", "one text", {}),
        ("red", np.ones((3, 7), "float32"), {}),
        ("red", np.full((3, 16), np.nan, "float32"), {}),
        ("red", np.ones(16, "float32"), {}),
        (np.ones(7, "float32"), TEXTS, {}),
        (np.ones((2, 3, 16), "float32"), TEXTS, {}),
        ([np.ones(16), np.ones(7)], TEXTS, {}),
        ([np.ones(16), "red"], TEXTS, {}),
        ([1.0, None], TEXTS, {}),
        (np.float32(1.0), TEXTS, {}),
        (np.ones((2, 0)), TEXTS, {}),
        (1.0, TEXTS, {}),
    ],
)
def test_what_cannot_be_searched(queries, corpus, arguments):
    with pytest.raises(ValueError, match="Received|empty"):
        make_encoder().search(queries, corpus, **arguments)


def test_no_queries_no_hits():
    assert make_encoder().search([], TEXTS) == []


@pytest.mark.slow
def test_evaluation_of_scored_pairs():
    encoder = make_encoder()
    scores = encoder.evaluate(SCORED, k=5)
    vectors = {text: encoder.encode(text) for text in TEXTS}
    cosines = np.array([vectors[a] @ vectors[b] for a, b, _ in SCORED])
    labels = np.array([score for *_, score in SCORED])
    assert scores.pearson == pytest.approx(np.corrcoef(labels, cosines)[0, 1], abs=1e-4)
    best = max(np.mean((cosines > bar) == labels) for bar in [-2, *cosines])
    assert scores.accuracy == pytest.approx(best)
    # Retrieval by hand: what stands second, without the query itself.
    corpus = sorted({second for _, second, _ in SCORED})
    wanted = {}
    for first, second in PAIRS:
        wanted.setdefault(first, set()).add(second)
    reciprocal = []
    for query, right in wanted.items():
        others = [text for text in corpus if text != query]
        ranked = sorted(others, key=lambda text: -vectors[query] @ vectors[text])[:5]
        places = [1 / rank for rank, text in enumerate(ranked, 1) if text in right]
        reciprocal.append(max(places, default=0.0))
    assert scores.mrr == pytest.approx(np.mean(reciprocal))
    assert scores.queries == len(wanted) and scores.corpus == len(corpus)
    assert "Spearman" in str(scores) and "queries" in str(scores)


@pytest.mark.slow
def test_graded_labels_have_no_accuracy():
    graded = [(a, b, 2 * score + (a < "c")) for a, b, score in SCORED]
    scores = make_encoder().evaluate(graded)
    assert math.isnan(scores.accuracy) and "accuracy" not in str(scores)
    assert make_encoder().evaluate(graded, relevant=1.0).queries >= scores.queries


def test_only_scores_are_relevant_or_not():
    for examples in (PAIRS, TRIPLETS):
        with pytest.raises(ValueError, match="Expected scored pairs.*Received: relevant=0.5"):
            make_encoder().evaluate(examples, relevant=0.5)


def test_evaluation_of_triplets_searches_the_negatives():
    scores = make_encoder().evaluate(TRIPLETS, corpus=["red sky"])
    assert math.isnan(scores.spearman) and scores.corpus == 4 + 1 + 1


@pytest.mark.slow
def test_the_corpus_of_an_evaluation_is_any_iterable_of_texts():
    encoder, more = make_encoder(), ["red sky", "old sea"]
    found = encoder.evaluate(PAIRS, corpus=(text for text in more))
    assert found == encoder.evaluate(PAIRS, corpus=more)
    assert found.corpus == encoder.evaluate(PAIRS).corpus + 2
    with pytest.raises(ValueError, match="corpus='red sky'"):
        encoder.evaluate(PAIRS, corpus="red sky")


@pytest.mark.slow
def test_an_array_of_texts_is_searched_as_texts():
    hits = make_encoder().search("red car", np.array(TEXTS), k=1)
    assert hits[0].text == "red car"


def test_bare_texts_cannot_be_evaluated():
    with pytest.raises(ValueError, match="Bare texts"):
        make_encoder().evaluate(TEXTS)


def test_equal_labels_give_nan():
    scores = make_encoder().evaluate([(a, b, 1.0) for a, b, _ in SCORED[:5]])
    assert math.isnan(scores.spearman) and scores.accuracy == 1.0
