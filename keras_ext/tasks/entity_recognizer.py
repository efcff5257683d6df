import keras
import numpy as np

import keras_ext
from keras_ext.data import Tokenizer, check_records, make_windows, merge_windows, plan, resolve
from keras_ext.layers import EfficientGlobalPointer, GlobalPointer
from keras_ext.losses import FactoredGlobalPointerCrossentropy, GlobalPointerCrossentropy
from keras_ext.metrics import score_entities
from keras_ext.ops import decode_factored_spans, decode_spans
from keras_ext.tasks.bundle import load_bundle, save_bundle
from keras_ext.tasks.encoder import check_encoder, encode, encoder_inputs
from keras_ext.tasks.entity import Entity
from keras_ext.tasks.entity_batches import EntityBatches
from keras_ext.tasks.entity_training import BestEpoch, StopOnNonFinite, default_optimizer

HEADS = ("efficient", "full")


class EntityRecognizer:
    """Finds named entities, nested ones too, in texts of any length.

    A tokenizer cuts the text, an encoder reads it, a GlobalPointer scores every pair of tokens as
    start and end of an entity of each label, and the pairs above the threshold are given back as
    characters of the text. Texts longer than `max_length` tokens are read in windows that overlap
    by `stride` tokens and put together again.

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
    ...     intermediate_dim=16, embedding_dim=8, dropout=0.0)
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
        labels = list(labels)
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(f"Labels are given, each once. Received: {labels=}")
        if head not in HEADS:
            raise ValueError(f"The head is one of {HEADS}. Received: {head=}")
        check_encoder(encoder, tokenizer, max_length)
        self._set(tokenizer, labels, head, max_length, stride, head_size)
        inputs = encoder_inputs()
        hidden = encode(encoder, inputs)
        arguments = {"heads": len(labels), "head_size": head_size, "dtype": encoder.dtype_policy}
        if head == "efficient":
            layer = EfficientGlobalPointer(**arguments, factored=True, name="span_scores")
        else:
            layer = GlobalPointer(**arguments, name="span_scores")
        self.model = keras.Model(inputs, layer(hidden, mask=inputs["padding_mask"]))

    def _set(self, tokenizer, labels, head, max_length, stride, head_size):
        self.tokenizer = tokenizer
        self.labels = labels
        self.head = head
        self.max_length = max_length
        self.stride = stride
        self.head_size = head_size
        self._compile_arguments = None
        make_windows(tokenizer.encode(""), 0, max_length, stride, 0, 0)  # checks the two numbers

    def compile(
        self, optimizer=None, learning_rate=1e-4, weight_decay=0.01, ema_momentum=None, **kwargs
    ):
        """Chooses the optimizer and Keras' other training settings.

        Args:
            optimizer: a Keras optimizer or its name. None: AdamW whose learning rate warms up over
                the first tenth of the steps that `fit` will make and then decays to 0 along a
                cosine, with gradients clipped to norm 1; each `fit` starts a new one.
            learning_rate: float, the peak. 1e-4 suits pretrained encoders, 8e-4 small ones
                trained from scratch. Only for `optimizer=None`.
            weight_decay: float, of all weights but biases and normalisation. Only for
                `optimizer=None`.
            ema_momentum: float, or None. If given, the weights that are measured and kept are
                averages over about 1 / (1 - ema_momentum) steps. Only for `optimizer=None`.
            **kwargs: other arguments of `keras.Model.compile`, such as `jit_compile`, `metrics`
                or `run_eagerly`. Metrics see span labels and scores: see `metrics.SpanF1`.
        """
        unknown = {"loss", "loss_weights"} & set(kwargs)
        if unknown:
            raise ValueError(f"The head fixes the loss. Received: {sorted(unknown)}")
        reduction = "mean_with_sample_weight"  # the rows that fill up a batch count not at all
        if self.head == "efficient":
            loss = FactoredGlobalPointerCrossentropy(
                len(self.labels), self.head_size, reduction=reduction
            )
        else:
            loss = GlobalPointerCrossentropy(reduction=reduction)
        self._compile_arguments = {"loss": loss, **kwargs}
        self._default = None
        if optimizer is None:
            self._default = {
                "learning_rate": learning_rate,
                "weight_decay": weight_decay,
                "ema_momentum": ema_momentum,
            }
        else:
            self.model.compile(optimizer=optimizer, **self._compile_arguments)

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
    ):
        """Trains on records, and keeps the epoch with the best F1 on the validation records.

        Before training a report says how many entities there are and which of them cannot be
        learnt. The F1 is of exact entities in characters, against all gold entities; it is in the
        history as `val_f1`, with `val_precision`, `val_recall` and `val_nested_f1`.

        Args:
            records: list of `{"text", "entities": [{"start", "end", "label"}]}`, offsets in
                characters, end exclusive.
            validation_records: the same, or None: the weights after the last epoch are kept.
            epochs: int.
            batch_size: int, windows in a batch.
            callbacks: list of Keras callbacks; they see `val_f1`.
            verbose: 0 silent, 1 or "auto" report and progress bar, 2 a line an epoch.
            seed: int, of the order of batches.
            on_lost: "report", or "raise" to refuse training where an entity cannot be learnt.

        Returns:
            The Keras `History`.

        Raises:
            ValueError: for malformed records, none at all, none with text, or, with
                on_lost="raise", a lost entity.
            RuntimeError: if `compile` was not called, or if the loss stops being finite; the best
                weights so far are then restored.
        """
        if self._compile_arguments is None:
            raise RuntimeError("Call `compile` before `fit`.")
        if on_lost not in ("report", "raise"):
            raise ValueError(f'Expected "report" or "raise". Received: {on_lost=}')
        batches, report = self._training_batches(records, batch_size, seed)
        if verbose:
            print(f"training data\n{report}")  # noqa: T201, the report is for the user
        if on_lost == "raise":
            report.raise_if_lost()
        if self._default is not None:
            optimizer = default_optimizer(steps=epochs * len(batches), **self._default)
            self.model.compile(optimizer=optimizer, **self._compile_arguments)
        ours = [StopOnNonFinite()]
        if validation_records is not None:
            validation_records = check_records(validation_records, "validation_records")
            ours += BestEpoch.callbacks(self, validation_records, 2 * batch_size)
        return self.model.fit(
            batches,
            epochs=epochs,
            callbacks=[*ours, *(callbacks or [])],
            verbose=verbose,
            shuffle=False,
        )

    def _training_batches(self, records, batch_size, seed):
        records = check_records(records)
        windows, spans, report = plan(
            records, self.tokenizer, self.labels, self.max_length, self.stride
        )
        if not windows:
            raise ValueError(
                f"There is no text to train on: all texts are empty. Received: {len(records)=}"
            )
        arguments = (batch_size, self.max_length, self.tokenizer.pad_id)
        return EntityBatches(windows, spans, *arguments, seed=seed), report

    def evaluate(self, records, threshold=0.0, policy="nested", batch_size=32):
        """Scores predictions against records: exact entities in characters.

        Args:
            records: list of records. Every gold entity counts, also those that tokenisation or
                windows make unreachable.
            threshold: as in `predict`.
            policy: as in `predict`.
            batch_size: int.

        Returns:
            `metrics.EntityScores`: micro, macro, per label, nested and flat entities apart.
        """
        records = check_records(records)
        texts = [record["text"] for record in records]
        predicted = self.predict(texts, threshold, policy, batch_size)
        return score_entities([record["entities"] for record in records], predicted)

    def predict(self, texts, threshold=0.0, policy="nested", batch_size=32):
        """Finds the entities in texts.

        Args:
            texts: a string, or a list of strings of any length.
            threshold: float, the score above which a span is an entity; or a dict from label to
                float (0 for labels not in it). The probability of an entity is about
                sigmoid(2 * score).
            policy: "nested" gives all entities, "flat" the best-scored ones that do not overlap,
                "longest" the longest ones that do not overlap.
            batch_size: int, windows in a batch.

        Returns:
            A list of `Entity`, sorted by start, longer ones first; for a list of texts, a list of
            such lists.

        Raises:
            ValueError: for a text that is not a string, an unknown label or policy, or if the
                model gives scores that are not finite.
        """
        if isinstance(texts, str):
            return self.predict([texts], threshold, policy, batch_size)[0]
        texts = list(texts)
        resolve({}, policy)
        thresholds = self._thresholds(threshold)
        windows = self._windows(texts)
        found = [None] * len(windows)
        for indices, scores in self._batch_scores(windows, batch_size):
            for index, decoded in zip(indices, self._decode(scores, thresholds), strict=True):
                found[index] = decoded
        merged = merge_windows(windows, found, len(texts))
        return [
            [
                Entity(start, end, self.labels[kind], text[start:end], score)
                for (kind, start, end), score in resolve(entities, policy).items()
            ]
            for text, entities in zip(texts, merged, strict=True)
        ]

    def _windows(self, texts):
        ends = self.tokenizer.start_id, self.tokenizer.end_id
        return [
            window
            for document, encoding in enumerate(self.tokenizer.encode_batch(texts))
            for window in make_windows(encoding, document, self.max_length, self.stride, *ends)
        ]

    def _batch_scores(self, windows, batch_size):
        """Yields the indices of some windows and the model's scores of them."""
        # A few texts make a batch of few rows; powers of two keep the number of shapes small.
        rows = min(batch_size, 1 << max(len(windows) - 1, 0).bit_length())
        batches = EntityBatches(windows, None, rows, self.max_length, self.tokenizer.pad_id)
        for number, (_, _, indices) in enumerate(batches.batches):
            inputs, _, _ = batches[number]
            scores = np.asarray(self.model.predict_on_batch(inputs), "float32")[: len(indices)]
            for index, row in zip(indices, scores, strict=True):
                if not np.isfinite(row).all():
                    raise ValueError(
                        "The model gives scores that are not finite; its weights are damaged. "
                        f"Received: text {windows[index].document}"
                    )
            yield indices, scores

    def _decode(self, scores, thresholds):
        if self.head == "efficient":
            return decode_factored_spans(scores, len(self.labels), self.head_size, thresholds)
        return decode_spans(scores, thresholds)

    def _thresholds(self, threshold):
        if not isinstance(threshold, dict):
            return np.full(len(self.labels), threshold, "float32")
        unknown = sorted(set(threshold) - set(self.labels))
        if unknown:
            raise ValueError(
                f"Thresholds name labels among {self.labels}. Received: unknown labels {unknown}"
            )
        return np.array([threshold.get(label, 0.0) for label in self.labels], "float32")

    def save(self, folder):
        """Writes a bundle: the model, the tokenizer, the labels and settings, in one folder.

        Args:
            folder: path; a new or empty folder, or one that holds a bundle, which is replaced.

        Raises:
            ValueError: if the folder holds anything else.
        """
        settings = {
            "head": self.head,
            "max_length": self.max_length,
            "stride": self.stride,
            "head_size": self.head_size,
        }
        save_bundle(
            folder,
            type(self).__name__,
            self.model,
            self.tokenizer,
            self.labels,
            settings,
            keras_ext.__version__,
        )

    @classmethod
    def load(cls, folder):
        """Reads a bundle that `save` wrote.

        Args:
            folder: path.

        Returns:
            An `EntityRecognizer` with the same predictions. `compile` it to train on.

        Raises:
            ValueError: if the folder is not a bundle of an EntityRecognizer or is damaged.
        """
        config, model, tokenizer = load_bundle(folder, cls.__name__)
        recognizer = cls.__new__(cls)
        recognizer._set(Tokenizer.from_file(tokenizer), config["labels"], **config["settings"])
        recognizer.model = keras.models.load_model(model, compile=False)
        return recognizer
