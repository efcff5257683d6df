from itertools import product

import keras
import numpy as np

from keras_ext.data import plan
from keras_ext.data.records import trimmed_entities
from keras_ext.entities import decoding, training
from keras_ext.entities.merged_scores import MergedScores
from keras_ext.entities.thresholds import best_threshold
from keras_ext.metrics import score_entities
from keras_ext.models.blocks import encoder_inputs
from keras_ext.ops.settings import whole
from keras_ext.tasks.bundle import load_bundle, save_bundle, values_of
from keras_ext.tasks.compilation import Compilations, check_order, default_arguments, replicas_of
from keras_ext.tasks.encoder import check_encoder, encode
from keras_ext.tasks.fitting import check_fit, fit_and_keep
from keras_ext.tasks.inputs import as_callbacks, as_records, as_texts, warm_up, warm_up_lengths

SETTINGS = {  # what a bundle holds
    "head": "a string",
    "max_length": "a positive integer",
    "stride": "an integer",
    "head_size": "a positive integer",
}
LATER_SETTINGS = {
    "threshold": "a number or an object of numbers",
    "policy": "a string or null",
}


class EntityRecognizer:
    """Finds named entities, nested ones too, in texts of any length.

    A tokenizer cuts the text, an encoder reads it, a GlobalPointer scores every pair of tokens as
    start and end of an entity of each label, and the pairs above the threshold are given back as
    characters of the text. Texts longer than `max_length` tokens are read in windows that overlap
    by `stride` tokens and put together again.

    The `threshold` (0 at first) and the `policy` ("nested" at first) that it reads its scores with
    are attributes, kept in the bundle: `fit` chooses the policy, `best_threshold` sets both.

    Args:
        encoder: functional `keras.Model` with a dict of inputs: `BertEncoder`, `RoFormerEncoder`,
            `BigramRoFormerEncoder`, or a KerasHub backbone.
        tokenizer: `data.Tokenizer` whose ids the encoder embeds.
        labels: list of label names.
        head: "efficient" (`EfficientGlobalPointer`, factored: its cost hardly grows with the
            number of labels) or "full" (`GlobalPointer`).
        max_length: int, tokens of a window, the two special ones included.
        stride: int, tokens that consecutive windows share. An entity longer than that can fall
            between two windows; the report of `fit` counts those.
        head_size: int, the width of query and key.

    Raises:
        ValueError: for labels that are empty or repeated, an unknown head, or an encoder that does
            not fit the tokenizer or max_length.

    Example:

    >>> import keras_ext
    >>> records = [{"text": "Ada met Bo", "entities": [{"start": 0, "end": 3, "label": "person"}]}]
    >>> tokenizer = keras_ext.data.Tokenizer.from_characters(["Ada met Bo"], min_count=1)
    >>> encoder = keras_ext.models.BigramRoFormerEncoder(
    ...     tokenizer.vocabulary_size, bigram_buckets=50, num_layers=1, num_heads=2, hidden_dim=16,
    ...     intermediate_dim=16, embedding_dim=8, dropout=0.0,
    ...     token_dropout=0.0)
    >>> recognizer = EntityRecognizer(encoder, tokenizer, ["person"], max_length=16, stride=4)
    >>> recognizer.compile(learning_rate=0.01)
    >>> history = recognizer.fit(records, epochs=60, verbose=0)
    >>> [(e.text, e.label) for e in recognizer.predict("Ada met Bo")]
    [('Ada', 'person')]

    Source: Jianlin Su et al., Global Pointer: Novel Efficient Span-based Approach for Named
    Entity Recognition, 2022, https://arxiv.org/abs/2208.03054
    """

    def __init__(
        self, encoder, tokenizer, labels, head="efficient", max_length=128, stride=32, head_size=64
    ):
        self._set(tokenizer, labels, head, max_length, stride, head_size)
        inputs = encoder_inputs()
        hidden = encode(encoder, inputs)
        check_encoder(encoder, tokenizer, max_length)
        scores = self.span_head.layer(encoder.dtype_policy)(hidden, mask=inputs["padding_mask"])
        self.model = keras.Model(inputs, scores)

    def _set(
        self, tokenizer, labels, head, max_length, stride, head_size, threshold=0.0, policy=None
    ):
        self.tokenizer, self.labels = tokenizer, decoding.check_labels(labels)
        if head not in decoding.HEADS:
            raise ValueError(f"The head is one of {sorted(decoding.HEADS)}. Received: {head=}")
        # JSON, in which they are saved, has no numbers of NumPy.
        max_length, stride = whole("max_length", max_length), whole("stride", stride, least=0)
        self.settings = {
            "head": head,
            "max_length": max_length,
            "stride": stride,
            "head_size": whole("head_size", head_size),
        }
        self.threshold = threshold
        self.settings["policy"] = policy if policy is None else decoding.check_policy(policy)
        self._policy_from_data = False
        self.span_head = decoding.HEADS[head](len(self.labels), self.settings["head_size"])
        self._compilations = None
        self._windows([""])  # checks max_length and stride

    @property
    def threshold(self):
        """float, or dict from label to float: the scores above which a span is an entity."""
        return self.settings["threshold"]

    @threshold.setter
    def threshold(self, threshold):
        self.settings["threshold"] = decoding.check_threshold(threshold, self.labels)

    @property
    def policy(self):
        """ "nested", "flat" or "longest": which entities are given where some overlap."""
        return self.settings["policy"] or "nested"

    @policy.setter
    def policy(self, policy):
        self.settings["policy"] = decoding.check_policy(policy)
        self._policy_from_data = False

    def compile(
        self,
        optimizer=None,
        loss=None,
        learning_rate=None,
        weight_decay=None,
        ema_momentum=None,
        **kwargs,
    ):
        """Chooses the optimizer and Keras' other training settings.

        Args:
            optimizer: a Keras optimizer or its name; where a layer computes in float16, it is put
                into a `GuardedLossScale`. None: AdamW, warmed up over the first tenth of the steps
                of `fit`, decayed to 0 along a cosine, the gradient of all weights clipped to norm
                1, anew for each `fit`. It has the last three, another optimizer its own.
            loss: loss of gold spans (b, k, 3), `type, start, end` padded with -1, and the scores of
                the head; its `call` gives (b,). None: `losses.FactoredGlobalPointerCrossentropy`,
                or, for the "full" head, `losses.GlobalPointerCrossentropy`.
            learning_rate: float, the peak. 1e-4, the default, suits pretrained encoders (3e-4 small
                ones such as MiniLM), 8e-4 small ones trained from scratch.
            weight_decay: float, of all weights but biases, gains of a normalisation and
                temperatures. Defaults to 0.01.
            ema_momentum: float. If given, the weights that are measured and kept are averages over
                about 1 / (1 - ema_momentum) steps.
            **kwargs: other arguments of `keras.Model.compile`, such as `jit_compile`, `metrics`
                (see `metrics.SpanF1`) or `run_eagerly`.

        Raises:
            ValueError: for an optimizer with one of the three settings, a loss of something else,
                or both in the wrong order.
        """
        check_order(optimizer, loss)
        if "loss_weights" in kwargs:
            raise ValueError(f"There is one loss. Received: loss_weights={kwargs['loss_weights']}")
        default = default_arguments(optimizer, learning_rate, weight_decay, ema_momentum)
        loss = training.span_loss(self.span_head, loss)
        compilations = Compilations([self.model], optimizer, default, kwargs)
        if optimizer is not None:
            compilations.get(self.model, loss)
        self._loss, self._compilations = loss, compilations  # both, or what was chosen before

    def fit(
        self,
        records,
        validation_records=None,
        epochs=5,
        batch_size=16,
        callbacks=None,
        verbose="auto",
        seed=0,
        on_lost="report",
        policy=None,
        initial_epoch=0,
        **refused,
    ):
        """Trains on records, and keeps the epoch with the best F1 on the validation records.

        Before training a report says how many entities there are and which of them cannot be
        learnt. Where those are most of them, or there are none at all, a warning says so, too. The
        F1 is of exact entities in characters, against all gold entities, at the kept threshold and
        policy; it is in the history as `val_f1`, with `val_precision`, `val_recall`,
        `val_nested_f1`, and `val_loss`, the mean loss of the windows.

        Args:
            records: list of `{"text", "entities": [{"start", "end", "label"}]}`, offsets in
                characters, end exclusive; a generator is listed once.
            validation_records: the same, or None: the weights after the last epoch are kept.
            epochs: int.
            batch_size: int, windows in a batch.
            callbacks: list of Keras callbacks, or one; they see `val_f1`, `CompileCounter` the
                batches.
            verbose: 0 silent, 1 or "auto" report and progress bar, 2 a line an epoch.
            seed: int, of the order of batches.
            on_lost: "report", or "raise" to refuse training where an entity is lost or repeated.
            policy: as in `predict`, kept for later predictions. None: the one that was chosen
                before, here, by `best_threshold` or in the bundle; else "flat" where no entity of
                the records overlaps another, "nested" where some do.
            initial_epoch: int, epochs that count as done: the default optimizer goes on, with the
                rate of that epoch, where else it begins anew.
            **refused: other arguments of Keras' `fit`; an error says what there is instead.

        Returns:
            The Keras `History`.

        Raises:
            ValueError: for malformed records, none at all, none with text, or, with
                on_lost="raise", a lost entity.
            RuntimeError: if `compile` was not called, or if the loss stops being finite; the
                weights from before that epoch are then restored.
        """
        epochs, initial_epoch = check_fit(epochs, initial_epoch, refused, data="records")
        if self._compilations is None:
            raise RuntimeError("Call `compile` before `fit`.")
        batch_size, callbacks = whole("batch_size", batch_size), as_callbacks(callbacks)
        if on_lost not in ("report", "raise"):
            raise ValueError(f'Expected "report" or "raise". Received: {on_lost=}')
        windows, spans, report = self._plan(as_records(records))
        training.check_report(report, on_lost, verbose)
        chosen = None if self._policy_from_data else self.settings["policy"]
        self.policy, line = training.choose_policy(chosen, policy, report)
        self._policy_from_data = chosen is None and policy is None
        if verbose:
            print(line)  # noqa: T201, the report is for the user
        replicas = replicas_of(self.model)
        batches = self._batches(windows, spans, batch_size, seed=seed, replicas=replicas)
        validation = None
        if validation_records is not None:
            dev = as_records(validation_records, "validation_records")
            windows, spans, report = self._plan(dev)
            training.check_validation_report(report, verbose)
            parts = dev, windows, self._batches(windows, spans, 2 * batch_size), self._reading
            validation = training.Validation(self.model, self._loss, *parts)
        compilation = self._compilations.get(self.model, self._loss, callbacks)
        history = fit_and_keep(
            compilation, batches, callbacks, verbose, validation, "val_f1", epochs, initial_epoch
        )
        if validation is not None and validation.in_vain:
            training.warn_of_nothing(self.threshold)
        return history

    def evaluate(self, records, threshold=None, policy=None, batch_size=32):
        """Scores predictions against records: exact entities in characters.

        Args:
            records: list of records. Every gold entity counts, also those that tokenisation or
                windows make unreachable.
            threshold: as in `predict`.
            policy: as in `predict`.
            batch_size: int, windows in a batch.

        Returns:
            `metrics.EntityScores`: micro, macro, per label, nested and flat entities apart. A
            warning comes where nothing scores above the threshold.
        """
        records = as_records(records)
        texts = [record["text"] for record in records]
        predicted = self.predict(texts, threshold, policy, batch_size)
        scores = score_entities([trimmed_entities(record) for record in records], predicted)
        if scores.micro.gold and not scores.micro.predicted:
            training.warn_of_nothing(self.threshold if threshold is None else threshold)
        return scores

    def predict(self, texts, threshold=None, policy=None, batch_size=32):
        """Finds the entities in texts.

        Args:
            texts: a string of any length, or a record, whose `"text"` is read; or a list, an array
                or another series of such.
            threshold: float, the score above which a span is an entity; or a dict from label to
                float (0 for labels not in it). None: the recogniser's own.
            policy: "nested" gives all entities, "flat" the best-scored ones that do not overlap,
                "longest" the longest ones that do not overlap. None: the recogniser's own.
            batch_size: int, windows in a batch.

        Returns:
            A list of `Entity`, sorted by start, longer ones first; for several texts, a list of
            such lists.

        Raises:
            ValueError: for a text that is not a string, an unknown label or policy, a threshold
                that is NaN, or if the model gives scores that are not finite.
        """
        texts, alone = as_texts(texts)
        reading = self._reading(threshold, policy)  # checks these before the work is done
        windows = self._windows(texts)
        found = reading.entities(texts, windows, self._scores(windows, batch_size))
        return found[0] if alone else found

    def best_threshold(self, records, policy=None, per_label=False, batch_size=32):
        """Finds the threshold with the best micro F1 on validation records, exactly, and keeps it.

        The recogniser keeps it with the policy, for `predict`, `evaluate` and the bundle. On texts
        unlike those of the training 0 is often too high. Of equally good ones the highest counts.

        Args:
            records: list of records.
            policy: as in `predict`: the best threshold is another one for each.
            per_label: bool, whether each label gets its own: for "nested" those that are best
                together, exactly; for the others, where labels stand in each other's way, the best
                common one is changed label by label, to the best for it, until no change of one
                label raises the F1. A label that is best not predicted gets its highest score, or
                the common threshold if that is higher.
            batch_size: int, windows in a batch.

        Returns:
            A float, or a dict from label to float, above -20; 0 if no entity is found at any
            threshold.
        """
        records = as_records(records)
        policy = decoding.check_policy(self.policy if policy is None else policy)
        windows = self._windows([record["text"] for record in records])
        spans = MergedScores(self.span_head, windows, self._scores(windows, batch_size))
        threshold = best_threshold(spans, records, self.labels, policy, per_label)
        self.threshold, self.policy = threshold, policy
        return threshold

    def warm_up(self, lengths=None, batch_size=32):
        """Runs the model once on each shape that `predict` gives it, so that no text waits.

        A batch has one of few numbers of tokens (for max_length=128: 16, 32, 48, 80, 128) and a
        power of two of rows, up to `batch_size`. The first batch of a shape is traced; with
        `jit_compile`, and on JAX, it is compiled, which takes seconds. A shape stays until the
        process ends or the model is compiled anew: warm up after `compile` and `fit`.

        Args:
            lengths: list of numbers of tokens of the texts to come, the two special ones included;
                None for all.
            batch_size: int, as in `predict`.

        Returns:
            int, the number of shapes.

        Raises:
            ValueError: for a length that is not between 1 and `max_length`, or a batch_size below 1.
        """
        batch_size = whole("batch_size", batch_size)
        rows = {min(1 << power, batch_size) for power in range(batch_size.bit_length() + 1)}
        lengths = warm_up_lengths(lengths, self.settings["max_length"])
        return warm_up(self.model, product(rows, lengths))

    def span_scores(self, text):
        """The scores of all pairs of tokens of a text, to look at.

        Args:
            text: a string, or a record. Of one longer than `max_length` tokens, the first window is taken.

        Returns:
            scores float32 (labels, n, n), axis 1 the start, axis 2 the end, -1e30 where the end is
            before the start; and the offsets of the n tokens, int32 (n, 2), in characters.
        """
        (text,), _ = as_texts([text], "text")
        windows = self._windows([text])[:1]
        if not windows:
            return np.zeros((len(self.labels), 0, 0), "float32"), np.zeros((0, 2), "int32")
        ((_, _, scores),) = self._scores(windows, batch_size=1)
        inner = slice(1, len(windows[0].ids) - 1)  # without the special tokens
        return self.span_head.dense(scores)[0, :, inner, inner], windows[0].offsets[inner]

    def save(self, folder):
        """Writes a bundle: model, tokenizer, labels and settings, without optimizer and loss.

        The settings hold threshold and policy.

        Args:
            folder: path; new or empty, or of a bundle, which is replaced. It may be a mount point,
                a link (followed) or the working directory; a leading `~` is the home folder.

        Raises:
            ValueError: if the folder holds anything else.
            OSError: naming the folder, which is as it was, if it cannot be written.
        """
        save_bundle(folder, self, labels=self.labels)

    @classmethod
    def load(cls, folder):
        """Reads a bundle that `save` wrote; it predicts the same. `compile` it to train on.

        Args:
            folder: path; a leading `~` is the home folder.

        Raises:
            ValueError: if the folder is not a bundle of an EntityRecognizer or is damaged; if its
                labels do not fit its model.
        """
        config, model, tokenizer = load_bundle(
            folder, cls.__name__, SETTINGS, LATER_SETTINGS, labels="a list of strings"
        )
        recognizer = cls.__new__(cls)
        with values_of(folder):
            recognizer._set(tokenizer, config["labels"], **config["settings"])
            decoding.check_head(recognizer.span_head, model)
        recognizer.model = model
        return recognizer

    def _reading(self, threshold=None, policy=None):
        """How scores are read: as the recogniser keeps it, where nothing else is given."""
        threshold = self.threshold if threshold is None else threshold
        policy = self.policy if policy is None else policy
        return decoding.Reading(self.span_head, self.labels, threshold, policy)

    @property
    def _sizes(self):
        return {name: self.settings[name] for name in ("max_length", "stride")}

    def _windows(self, texts):
        return decoding.text_windows(self.tokenizer, texts, **self._sizes)

    def _plan(self, records):
        """Windows of the texts of records, their gold spans, and the report on both."""
        return plan(records, self.tokenizer, self.labels, **self._sizes)

    def _batches(self, windows, spans, batch_size, **order):
        sizes = batch_size, self.settings["max_length"]
        return decoding.window_batches(windows, spans, *sizes, self.tokenizer.pad_id, **order)

    def _scores(self, windows, batch_size):
        """The scores of windows: indices of some, no labels, and their scores, batch by batch."""
        batch_size = whole("batch_size", batch_size)
        # A few texts make a batch of few rows; powers of two keep the number of shapes small.
        rows = min(batch_size, 1 << max(len(windows) - 1, 0).bit_length())
        batches = self._batches(windows, None, rows)
        return decoding.window_scores(self.model, windows, batches.made())
