"""How good sentence vectors are: correlation with labels, and retrieval."""

import math
from dataclasses import asdict, dataclass

import keras
import numpy as np

from keras_ext.data import check_examples
from keras_ext.metrics import best_threshold, pearson, retrieval_scores, spearman
from keras_ext.ops.settings import whole
from keras_ext.sentences.search import comparable, exact_best
from keras_ext.sentences.vectors import encode_texts, remembering
from keras_ext.tasks.inputs import text_list


@dataclass(frozen=True)
class SentenceScores:
    """What `SentenceEncoder.evaluate` measures; NaN where the examples do not tell.

    Args:
        examples: number of examples.
        spearman: rank correlation of scores and labels.
        pearson: linear correlation of scores and labels.
        accuracy: of "score above `threshold`" for labels 0 and 1, at the best threshold.
        threshold: that threshold.
        mrr: mean of 1 / rank of the first right hit, 0 where there is none among k.
        recall: mean share of the right texts that are among the first k.
        ndcg: mean normalised discounted gain of the first k.
        k: hits that count.
        queries: number of queries of the retrieval.
        corpus: number of texts that are searched.

    Example:

    >>> print(SentenceScores(examples=2, spearman=0.75, pearson=0.5))
    2 examples: Spearman 0.7500, Pearson 0.5000
    """

    examples: int
    spearman: float = math.nan
    pearson: float = math.nan
    accuracy: float = math.nan
    threshold: float = math.nan
    mrr: float = math.nan
    recall: float = math.nan
    ndcg: float = math.nan
    k: int = 0
    queries: int = 0
    corpus: int = 0

    def to_dict(self):
        """The fields as a new dict of plain values, ready for JSON."""
        return asdict(self)

    def __str__(self):
        parts = {
            "Spearman": self.spearman,
            "Pearson": self.pearson,
            "accuracy": self.accuracy,
            f"MRR@{self.k}": self.mrr,
            f"recall@{self.k}": self.recall,
            f"nDCG@{self.k}": self.ndcg,
        }
        shown = [f"{name} {value:.4f}" for name, value in parts.items() if not math.isnan(value)]
        if self.queries:
            shown[-1] += f" ({self.queries} queries, {self.corpus} texts)"
        return f"{self.examples} examples: {', '.join(shown)}"


class SentenceEvaluation(keras.callbacks.Callback):
    """Evaluates a `SentenceEncoder` after each epoch, for the logs.

    `SentenceEncoder.fit` measures its validation examples by itself; this is for more of them, and
    for trainings of one's own. To be seen by others it has to stand before them in the list.

    Args:
        encoder: the `SentenceEncoder`.
        examples: list of examples as in `SentenceEncoder.evaluate`.
        prefix: str, before the names in the logs: `val_spearman`, `val_mrr` and so on.
        **kwargs: other arguments of `SentenceEncoder.evaluate`.

    Example:

    ```python
    encoder.fit(train, dev, callbacks=[SentenceEvaluation(encoder, other, prefix="other_")])
    ```
    """

    def __init__(self, encoder, examples, prefix="val_", **kwargs):
        super().__init__()
        self.encoder = encoder
        self.examples = examples
        self.prefix = prefix
        defaults = {"corpus": (), "k": 10, "relevant": None, "batch_size": 64}
        self.arguments = {**defaults, "tokenize": remembering(encoder), **kwargs}

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            scores = evaluate(self.encoder, self.examples, **self.arguments)
            logs.update(measures(scores, self.prefix))


def measures(scores, prefix):
    """The figures of `SentenceScores` that are numbers, for the logs of Keras."""
    names = ("spearman", "pearson", "accuracy", "mrr", "recall", "ndcg")
    values = {f"{prefix}{name}": getattr(scores, name) for name in names}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def evaluate(encoder, examples, corpus, k, relevant, batch_size, tokenize=None):
    """`SentenceEncoder.evaluate`, which describes the arguments; `tokenize` as in `encode_texts`."""
    kind, columns, labels = check_examples(examples)
    k = whole("k", k)
    if kind == "texts":
        raise ValueError(
            "Bare texts cannot be evaluated: nothing says which of them belong together. Expected "
            f"pairs, scored pairs or (anchor, positive, negative). Received: {len(columns[0])} texts"
        )
    if relevant is not None and labels is None:
        raise ValueError(
            "Only scores can be relevant or not: all other examples are. Expected scored pairs, or "
            f"no `relevant`. Received: {relevant=}, {len(columns[0])} {kind}"
        )
    corpus = text_list(corpus, "corpus")
    # Each text once, whatever columns it stands in.
    places = {}
    for texts in [*columns, corpus]:
        for text in texts:
            places.setdefault(text, len(places))
    vectors = encode_texts(encoder, list(places), batch_size, None, None, False, tokenize)
    vectors = comparable(vectors, encoder.settings["score"])
    *columns, others = [
        np.array([places[text] for text in texts], "int64") for texts in [*columns, corpus]
    ]
    scores = np.sum(vectors[columns[0]] * vectors[columns[1]], axis=1)
    found = {"examples": len(scores)}
    positive = np.ones(len(scores), bool)
    if labels is not None:
        positive = labels >= (labels.max() if relevant is None else relevant)
        found |= {"spearman": spearman(labels, scores), "pearson": pearson(labels, scores)}
        if np.isin(labels, (0.0, 1.0)).all():
            found["threshold"], found["accuracy"] = best_threshold(labels, scores)
    searched = np.unique(np.concatenate([*columns[1:], others]))
    found |= _retrieval(vectors, columns[0][positive], columns[1][positive], searched, k)
    return SentenceScores(**found)


def _retrieval(vectors, queries, targets, corpus, k):
    """The figures of retrieval, of rows of `vectors` by their number."""
    wanted = {}
    for query, target in zip(queries, targets, strict=True):
        wanted.setdefault(int(query), set()).add(int(target))
    # A text that looks for itself finds itself; that says nothing.
    wanted = {query: found - {query} for query, found in wanted.items() if found - {query}}
    if not wanted:
        return {}
    rows = np.array(list(wanted))
    _, best = exact_best(vectors[rows], vectors[corpus], min(k + 1, len(corpus)))
    ranked = [
        [place for place in corpus[hits].tolist() if place != query][:k]
        for query, hits in zip(rows.tolist(), best, strict=True)
    ]
    scores = retrieval_scores(ranked, list(wanted.values()), k)
    return {
        "mrr": scores.mrr,
        "recall": scores.recall,
        "ndcg": scores.ndcg,
        "k": k,
        "queries": scores.queries,
        "corpus": len(corpus),
    }
