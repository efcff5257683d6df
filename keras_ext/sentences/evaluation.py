"""How good sentence vectors are: correlation with labels, and retrieval."""

import math
from dataclasses import asdict, dataclass

import keras
import numpy as np

from keras_ext.data import check_examples
from keras_ext.metrics import best_threshold, pearson, retrieval_scores, spearman
from keras_ext.ops.settings import whole
from keras_ext.sentences.search import exact_best
from keras_ext.sentences.vectors import (
    comparable,
    fill_vectors,
    row_batches,
    token_rows,
    warn_of_cut,
)
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
        sentence_encoder: the `SentenceEncoder`.
        examples: list of examples as in `SentenceEncoder.evaluate`.
        prefix: str, before the names in the logs: `val_spearman`, `val_mrr` and so on.
        batch_size: int, as in `SentenceEncoder.evaluate`.
        **kwargs: `corpus`, `k` and `relevant` of `SentenceEncoder.evaluate`.

    Example:

    ```python
    callback = SentenceEvaluation(sentence_encoder, other, prefix="other_")
    sentence_encoder.fit(train, dev, callbacks=[callback])
    ```
    """

    def __init__(self, sentence_encoder, examples, prefix="val_", batch_size=64, **kwargs):
        super().__init__()
        self.sentence_encoder = sentence_encoder
        self.evaluation = Evaluation(examples, **kwargs)
        self.prefix = prefix
        self.batch_size = whole("batch_size", batch_size)
        self.measure = None

    def on_epoch_end(self, epoch, logs=None):
        if logs is None:
            return
        if self.measure is None:  # not before: `compile` says which shapes there are
            tokenizer, settings = self.sentence_encoder.tokenizer, self.sentence_encoder.settings
            texts, sizes = self.evaluation.texts, (self.batch_size, settings["max_length"])
            rows, cut = token_rows(tokenizer, texts, settings["max_length"])
            warn_of_cut(sum(cut), len(texts), settings["max_length"])
            batches = row_batches(self.sentence_encoder.model, rows, *sizes, tokenizer.pad_id)
            self.measure = Measure(self.evaluation, batches, settings["score"])
        logs.update(self.measure(self.sentence_encoder.model, self.prefix))


class Measure:
    """Evaluates the vectors of a model after each epoch, from batches that are made once.

    Args:
        evaluation: `Evaluation`.
        batches: what `row_batches` gives for its texts.
        score: "cosine" or "dot".
    """

    def __init__(self, evaluation, batches, score):
        self.evaluation, self.batches, self.score = evaluation, list(batches), score

    def __call__(self, model, prefix="val_"):
        """The figures that are numbers, for the logs."""
        texts = self.evaluation.texts
        vectors = np.empty((len(texts), model.output.shape[-1]), "float32")
        fill_vectors(vectors, model, self.batches, texts)
        scores = self.evaluation.scores(comparable(vectors, self.score))
        names = ("spearman", "pearson", "accuracy", "mrr", "recall", "ndcg")
        values = {f"{prefix}{name}": getattr(scores, name) for name in names}
        return {name: value for name, value in values.items() if not math.isnan(value)}


class Evaluation:
    """What examples ask of vectors: which are to be alike, and what is searched for what.

    Args:
        examples: as in `SentenceEncoder.evaluate`.
        corpus: likewise.
        k: likewise.
        relevant: likewise.

    `kind` and `labels` are those of `data.check_examples`; `texts` are all texts, each once, and
    `columns` the places of those of the examples among them.
    """

    def __init__(self, examples, corpus=(), k=10, relevant=None):
        self.kind, columns, self.labels = check_examples(examples)
        self.k = whole("k", k)
        if self.kind == "texts":
            raise ValueError(
                "Bare texts cannot be evaluated: nothing says which of them belong together. "
                "Expected pairs, scored pairs or (anchor, positive, negative). Received: "
                f"{len(columns[0])} texts"
            )
        if relevant is not None and self.labels is None:
            raise ValueError(
                "Only scores can be relevant or not: all other examples are. Expected scored pairs, "
                f"or no `relevant`. Received: {relevant=}, {len(columns[0])} {self.kind}"
            )
        self.relevant = relevant
        columns = [*columns, text_list(corpus, "corpus")]
        places = {}
        for texts in columns:
            for text in texts:
                places.setdefault(text, len(places))
        self.texts = list(places)
        *self.columns, self.corpus = [
            np.array([places[text] for text in texts], "int64") for texts in columns
        ]

    def scores(self, vectors):
        """`SentenceScores` of the texts' vectors (n, d), whose inner products are scores."""
        first, second, *_ = self.columns
        scores = np.sum(vectors[first] * vectors[second], axis=1)
        found = {"examples": len(scores)}
        positive, labels = np.ones(len(scores), bool), self.labels
        if labels is not None:
            positive = labels >= (labels.max() if self.relevant is None else self.relevant)
            found |= {"spearman": spearman(labels, scores), "pearson": pearson(labels, scores)}
            if np.isin(labels, (0.0, 1.0)).all():
                found["threshold"], found["accuracy"] = best_threshold(labels, scores)
        searched = np.unique(np.concatenate([*self.columns[1:], self.corpus]))
        found |= _retrieval(vectors, first[positive], second[positive], searched, self.k)
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
