"""What `SentenceEncoder.fit` adds to Keras' training: examples as batches, groups, a measure."""

from collections import Counter
from collections.abc import Iterator

import keras
import numpy as np

from keras_ext.data import check_examples
from keras_ext.losses import CoSENT, InfoNCE
from keras_ext.losses.contrastive import ABSENT, NO_GROUP
from keras_ext.sentences.evaluation import evaluate, measures
from keras_ext.sentences.inputs import ExampleBatches, token_rows
from keras_ext.sentences.model import Views
from keras_ext.sentences.vectors import remembering
from keras_ext.tasks.compilation import Compilations, guarded, replicas_of, strategy_scope
from keras_ext.tasks.fitting import fit_and_keep
from keras_ext.tasks.inputs import as_callbacks
from keras_ext.tasks.mean_over_examples import mean_over_examples
from keras_ext.training import CachedContrastiveModel


class SentenceTraining:
    """What `SentenceEncoder.compile` chose, and what its `fit` does with it.

    Args:
        model: `keras.Model` from token ids to vectors.
        loss: Keras loss or its name, or None.
        head: layer, or None.
        optimizer: a Keras optimizer or its name, or None for a new default one in each `fit`.
        default: what `default_arguments` gives.
        arguments: dict of other arguments of `keras.Model.compile`.
    """

    def __init__(self, model, loss, head, optimizer, default, arguments):
        if head is not None and loss is None:
            raise ValueError(
                "A head changes what the loss gets. Expected a loss that takes it, such as "
                'InfoNCE(temperature=1.0, score="dot") after LearnableTemperature. '
                f"Received: {head=}, {loss=}"
            )
        self.model = model
        self.loss = None if loss is None else mean_over_examples(loss)
        self.head = head
        # The rows that fill up a batch must not count in metrics, either.
        metrics = [
            *_as_list(arguments.get("metrics")),
            *_as_list(arguments.get("weighted_metrics")),
        ]
        arguments = {**arguments, "metrics": None, "weighted_metrics": metrics or None}
        if optimizer is not None:
            # Once, so that the loss scale is kept from one model that is trained to the next.
            optimizer = keras.optimizers.get(optimizer)
            if arguments.get("auto_scale_loss", True):
                optimizer = guarded(optimizer, model)
        self.compilations = Compilations(optimizer, default, arguments)
        self.trained = {}  # by chunk_size and kind of loss: the model that is trained

    def fit(
        self,
        encoder,
        examples,
        validation_examples,
        batch_size,
        chunk_size,
        seed,
        callbacks,
        verbose,
        **epochs,
    ):
        """`SentenceEncoder.fit`, which describes the arguments."""
        callbacks = as_callbacks(callbacks)
        if isinstance(validation_examples, Iterator):
            validation_examples = list(validation_examples)  # they are read after each epoch
        kind, columns, labels = check_examples(examples)
        best = None if validation_examples is None else _best_by(validation_examples)
        targets = text_groups(columns) if labels is None else labels
        if verbose:
            print(_report(kind, targets))  # noqa: T201, the report is for the user
        max_length = encoder.settings["max_length"]
        rows = []
        for texts in columns:
            of_column, cut = token_rows(encoder.tokenizer, texts, max_length)
            rows.append(of_column)
            if verbose and cut:
                print(f"{cut} of {len(texts)} texts are cut at {max_length=} tokens")  # noqa: T201
        if kind == "texts":
            rows = 2 * rows
        batches = ExampleBatches(
            rows,
            targets,
            batch_size,
            max_length,
            encoder.tokenizer.pad_id,
            seed=seed,
            replicas=replicas_of(self.model),
        )
        scored = labels is not None
        model = self._trained(chunk_size, scored, texts=len(rows))
        loss = default_loss(scored, encoder.settings["score"]) if self.loss is None else self.loss
        compilation = self.compilations.get(model, loss, callbacks)
        tokenize = remembering(encoder)

        def measure():
            arguments = {"corpus": (), "k": 10, "relevant": None, "batch_size": 2 * batch_size}
            scores = evaluate(encoder, validation_examples, **arguments, tokenize=tokenize)
            return measures(scores, "val_")

        measured = None if best is None else measure
        return fit_and_keep(compilation, batches, callbacks, verbose, measured, best, **epochs)

    def _trained(self, chunk_size, scored, texts):
        """The model that is trained: the vectors of examples of some texts, with the head."""
        if (chunk_size, scored) not in self.trained:
            with strategy_scope(self.model):
                if self.head is not None and not self.head.built:
                    # Before the first batch, so that its weights can be restored.
                    self.head.build((None, texts, self.model.output.shape[-1]))
                if chunk_size is None:
                    model = Views(self.model, self.head)
                else:
                    model = CachedContrastiveModel(self.model, chunk_size, head=self.head)
                    shapes = {name: each.shape for name, each in self.model.input.items()}
                    model.build([shapes] * texts)
            self.trained[chunk_size, scored] = model
        return self.trained[chunk_size, scored]


def _as_list(metrics):
    return metrics if isinstance(metrics, list) else [] if metrics is None else [metrics]


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


def _best_by(examples):
    """The name of what is largest in the best epoch."""
    kind, columns, labels = check_examples(examples)
    if kind == "texts":
        raise ValueError(
            "Bare texts do not tell which vectors are good. Expected pairs, scored pairs or "
            f"(anchor, positive, negative) for validation. Received: {len(examples)} texts"
        )
    if kind != "scored":
        if columns[0] == columns[1]:
            raise ValueError(
                "A text finds itself whatever the vectors. Expected validation pairs of different "
                f"texts. Received: {len(columns[0])} pairs of equal ones"
            )
        return "val_mrr"
    if labels.min() == labels.max():
        raise ValueError(
            "Where all scores are equal nothing can be ranked. Expected validation pairs with "
            f"different scores. Received: {len(labels)} pairs with the score {labels[0]:g}"
        )
    return "val_spearman"


def _report(kind, targets):
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
