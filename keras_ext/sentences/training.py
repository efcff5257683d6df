"""What `SentenceEncoder.fit` adds to Keras' training: the model that is trained, groups, a report."""

from collections import Counter
from functools import partial

import numpy as np

from keras_ext.data import pad_rows
from keras_ext.losses import CoSENT, InfoNCE
from keras_ext.losses.contrastive import ABSENT, NO_GROUP
from keras_ext.sentences.model import Views
from keras_ext.tasks.compilation import Compilations, strategy_scope
from keras_ext.tasks.inputs import Batches
from keras_ext.tasks.mean_over_examples import mean_over_examples
from keras_ext.training import CachedContrastiveModel


class Training:
    """What `SentenceEncoder.compile` chose: the loss, and the models that are trained by it.

    Args:
        model: `keras.Model` from token ids to vectors.
        score: "cosine" or "dot", what vectors are compared by.
        optimizer: a Keras optimizer or its name, or None for a new default one in each `fit`.
        loss: Keras loss or its name, or None.
        head: layer, or None.
        default: what `default_arguments` gives.
        arguments: dict of other arguments of `keras.Model.compile`.

    Raises:
        ValueError: for a head without a loss.
    """

    def __init__(self, model, score, optimizer, loss, head, default, arguments):
        if head is not None and loss is None:
            raise ValueError(
                "A head changes what the loss gets. Expected a loss that takes it, such as "
                'InfoNCE(temperature=1.0, score="dot") after LearnableTemperature. '
                f"Received: {head=}, {loss=}"
            )
        self.model, self.score, self.head = model, score, head
        self.loss = None if loss is None else mean_over_examples(loss)
        # The rows that fill up a batch must not count in metrics, either.
        metrics = [
            *_as_list(arguments.get("metrics")),
            *_as_list(arguments.get("weighted_metrics")),
        ]
        arguments = {**arguments, "metrics": None, "weighted_metrics": metrics or None}
        parts = [model] if head is None else [model, head]
        self.compilations = Compilations(parts, optimizer, default, arguments)
        self.trained = {}  # by chunk_size and kind of loss: the model that is trained

    def compilation(self, texts, scored, chunk_size, callbacks):
        """The `Compilation` for examples of some texts, with scores or without."""
        loss = default_loss(scored, self.score) if self.loss is None else self.loss
        if (chunk_size, scored) not in self.trained:
            self.trained[chunk_size, scored] = self._views(texts, chunk_size)
        return self.compilations.get(self.trained[chunk_size, scored], loss, callbacks)

    def _views(self, texts, chunk_size):
        """The model that is trained: the vectors of examples of some texts, with the head."""
        with strategy_scope(self.model):
            if self.head is not None and not self.head.built:
                # Before the first batch, so that its weights can be restored.
                self.head.build((None, texts, self.model.output.shape[-1]))
            if chunk_size is None:
                return Views(self.model, self.head)
            model = CachedContrastiveModel(self.model, chunk_size, head=self.head)
            shapes = {name: each.shape for name, each in self.model.input.items()}
            model.build([shapes] * texts)
            return model


def _as_list(metrics):
    return metrics if isinstance(metrics, list) else [] if metrics is None else [metrics]


def example_batches(columns, targets, batch_size, max_length, pad_id, **order):
    """`Batches` of examples, all texts of a batch padded to one length.

    Args:
        columns: list of m lists of int32 arrays, the token ids of the texts of each example.
        targets: array (examples, ...), what the loss gets as `y_true`.
        batch_size: int, examples in a batch.
        max_length: int, tokens of the longest row.
        pad_id: int, id of the padding token.
        **order: `seed` and `replicas` of `Batches`.
    """
    lengths = np.max([[len(row) for row in column] for column in columns], axis=0)
    collated = partial(_collate, columns, targets, pad_id)
    return Batches(lengths, batch_size, max_length, collated, **order)


def _collate(columns, targets, pad_id, indices, rows, length):
    """Inputs, labels and weights of some examples; rows that are left over are padding."""
    inputs = tuple(
        pad_rows([column[index] for index in indices], rows, length, pad_id) for column in columns
    )
    labels = np.zeros((rows, *targets.shape[1:]), targets.dtype)
    labels[: len(indices)] = targets[indices]
    return inputs, labels, (np.arange(rows) < len(indices)).astype("float32")


def default_loss(scored, score):
    """The loss for scored pairs, or for positives alone, of vectors compared by `score`."""
    loss = CoSENT if scored else InfoNCE
    return loss(temperature=0.05 if score == "cosine" else 1.0, score=score)


def text_groups(columns):
    """The groups of examples, those that share a text, directly or by others; and of negatives.

    Args:
        columns: list of lists of texts: anchors, positives, and negatives, which join nothing.

    Returns:
        int32 (examples,), or with k columns of negatives (examples, 1 + k): the number of the group
        of each example, and for each negative that of the group whose texts it is among. -1 for an
        example whose texts stand nowhere else, and for a negative of no group. -2 for a negative
        that is the anchor or the positive of its own example.
    """
    parents = list(range(len(columns[0])))

    def root(example):
        while parents[example] != example:
            parents[example] = parents[parents[example]]
            example = parents[example]
        return example

    first = {}
    for texts in columns[:2]:
        for example, text in enumerate(texts):
            parents[root(example)] = root(first.setdefault(text, example))
    rows = []
    for texts in zip(*columns, strict=True):
        groups = [root(first[text]) if text in first else NO_GROUP for text in texts]
        left_out = [text in texts[:2] for text in texts[2:]]
        rows.append([groups[0], *np.where(left_out, ABSENT, groups[2:]).tolist()])
    counts = Counter(group for row in rows for group in row)
    groups = [[NO_GROUP if counts[one] == 1 and one >= 0 else one for one in row] for row in rows]
    return np.array(groups, "int32") if len(columns) > 2 else np.array(groups, "int32")[:, 0]


def best_measure(evaluation):
    """The name of what is largest in the best epoch.

    Args:
        evaluation: `Evaluation` of the validation examples.

    Raises:
        ValueError: for examples that do not tell.
    """
    first, second, *_ = evaluation.columns
    labels = evaluation.labels
    if labels is None:
        if np.array_equal(first, second):
            raise ValueError(
                "A text finds itself whatever the vectors. Expected validation pairs of different "
                f"texts. Received: {len(first)} pairs of equal ones"
            )
        return "val_mrr"
    if labels.min() == labels.max():
        raise ValueError(
            "Where all scores are equal nothing can be ranked. Expected validation pairs with "
            f"different scores. Received: {len(labels)} pairs with the score {labels[0]:g}"
        )
    return "val_spearman"


def report(kind, targets, cut, max_length):
    """What there is to learn from, in a line, and a line for each column with texts that are cut.

    Args:
        kind: as `data.check_examples` tells it.
        targets: scores, or the groups of examples.
        cut: list of the number of texts that are cut, of each column.
        max_length: int, tokens at which they are.
    """
    lines = [_learnt_from(kind, targets)]
    for number in filter(None, cut):
        lines.append(f"{number} of {len(targets)} texts are cut at {max_length=} tokens")
    return "\n".join(lines)


def _learnt_from(kind, targets):
    """What there is to learn from, in a line: `targets` are scores, or the groups of examples."""
    names = {"texts": "bare texts", "pairs": "pairs", "tuples": "tuples", "scored": "scored pairs"}
    line = f"training data: {len(targets)} {names[kind]}"
    if kind == "scored":
        line += f", scores {targets.min():g} to {targets.max():g}"
        if targets.min() == targets.max():
            line += ": all equal, so that there is nothing to rank"
        return line
    groups, *negatives = targets.reshape(len(targets), -1).T
    sizes = Counter(groups[groups != NO_GROUP].tolist())
    largest = max(sizes.values(), default=0)
    if largest > 1:
        line += (
            f", {sum(size for size in sizes.values() if size > 1)} of which share a text with "
            f"others (at most {largest} in a group) and are no negatives of each other"
        )
    left_out = np.array(negatives) == ABSENT  # (k, examples)
    if left_out.any():
        line += (
            f"; {left_out.any(axis=0).sum()} with a negative that is their own anchor or positive, "
            "which is left out"
        )
    if largest == len(targets) and left_out.all():
        line += ": nothing is left to tell apart"
    return line
