import keras

import keras_ext
from keras_ext.data import check_records
from keras_ext.metrics import score_entities
from keras_ext.models.blocks import encoder_inputs
from keras_ext.ops.settings import whole
from keras_ext.tasks import entity_prediction, entity_threshold
from keras_ext.tasks.bundle import load_bundle, save_bundle, values_of
from keras_ext.tasks.compilation import default_arguments
from keras_ext.tasks.encoder import check_encoder, encode
from keras_ext.tasks.entity_batches import text_windows
from keras_ext.tasks.entity_training import Training
from keras_ext.tasks.span_head import HEADS, check_head

SETTINGS = {  # what a bundle holds
    "head": "a string",
    "max_length": "a positive integer",
    "stride": "an integer",
    "head_size": "a positive integer",
}


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

    def _set(self, tokenizer, labels, head, max_length, stride, head_size):
        labels = [labels] if isinstance(labels, str) else list(labels)
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(f"Labels are given, each once. Received: {labels=}")
        if not all(isinstance(label, str) for label in labels):
            raise ValueError(f"Labels are strings. Received: {labels=}")
        if head not in HEADS:
            raise ValueError(f"The head is one of {sorted(HEADS)}. Received: {head=}")
        self.tokenizer = tokenizer
        self.labels = [str(label) for label in labels]
        # JSON, in which they are saved, has no numbers of NumPy.
        max_length, stride = whole("max_length", max_length), whole("stride", stride, least=0)
        self.settings = {
            "head": head,
            "max_length": max_length,
            "stride": stride,
            "head_size": whole("head_size", head_size),
        }
        self.span_head = HEADS[head](len(labels), self.settings["head_size"])
        self._training = None
        text_windows(tokenizer, [""], max_length, stride)  # checks these two

    def compile(
        self, optimizer=None, learning_rate=None, weight_decay=None, ema_momentum=None, **kwargs
    ):
        """Chooses the optimizer and Keras' other training settings.

        Args:
            optimizer: a Keras optimizer or its name; where a layer computes in float16, it is put
                into a `GuardedLossScale`. None: AdamW, warmed up over the first tenth of the steps
                of `fit`, decayed to 0 along a cosine, the gradient of all weights clipped to norm
                1, anew for each `fit`. It has the next three, another optimizer its own.
            learning_rate: float, the peak. 1e-4, the default, suits pretrained encoders (3e-4 small
                ones such as MiniLM), 8e-4 small ones trained from scratch.
            weight_decay: float, of all weights but biases, gains of a normalisation and
                temperatures. Defaults to 0.01.
            ema_momentum: float. If given, the weights that are measured and kept are averages over
                about 1 / (1 - ema_momentum) steps.
            **kwargs: other arguments of `keras.Model.compile`, such as `jit_compile`, `metrics`
                (see `metrics.SpanF1`) or `run_eagerly`.

        Raises ValueError for an optimizer with one of the three settings, or a loss.
        """
        default = default_arguments(optimizer, learning_rate, weight_decay, ema_momentum)
        self._training = Training(self.model, self.span_head.loss(), optimizer, default, kwargs)

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
        learnt. Where those are most of them, or there are none at all, a warning says so, too. The
        F1 is of exact entities in characters, against all gold entities; it is in the history as
        `val_f1`, with `val_precision`, `val_recall` and `val_nested_f1`.

        Args:
            records: list of `{"text", "entities": [{"start", "end", "label"}]}`, offsets in
                characters, end exclusive.
            validation_records: the same, or None: the weights after the last epoch are kept.
            epochs: int.
            batch_size: int, windows in a batch.
            callbacks: list of Keras callbacks; they see `val_f1`, `CompileCounter` the batches.
            verbose: 0 silent, 1 or "auto" report and progress bar, 2 a line an epoch.
            seed: int, of the order of batches.
            on_lost: "report", or "raise" to refuse training where an entity is lost or repeated.

        Returns:
            The Keras `History`.

        Raises:
            ValueError: for malformed records, none at all, none with text, or, with
                on_lost="raise", a lost entity.
            RuntimeError: if `compile` was not called, or if the loss stops being finite; the
                weights from before that epoch are then restored.
        """
        if self._training is None:
            raise RuntimeError("Call `compile` before `fit`.")
        epochs, batch_size = whole("epochs", epochs), whole("batch_size", batch_size)
        return self._training.fit(
            self, records, validation_records, epochs, batch_size, callbacks, verbose, seed, on_lost
        )

    def evaluate(self, records, threshold=0.0, policy="nested", batch_size=32):
        """Scores predictions against records: exact entities in characters.

        Args:
            records: list of records. Every gold entity counts, also those that tokenisation or
                windows make unreachable.
            threshold: as in `predict`.
            policy: as in `predict`.
            batch_size: int, windows in a batch.

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
        return entity_prediction.predict_entities(self, list(texts), threshold, policy, batch_size)

    def best_threshold(self, records, batch_size=32):
        """The threshold with the best micro F1 on validation records, exactly.

        On texts unlike those of the training 0 is often too high.

        Args:
            records: list of records.
            batch_size: int, windows in a batch.

        Returns:
            A float for `predict` and `evaluate`; 0 if no entity is found at any threshold.
        """
        return entity_threshold.best_threshold(self, check_records(records), batch_size)

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
        return entity_prediction.warm_up(self, lengths, batch_size)

    def span_scores(self, text):
        """The scores of all pairs of tokens of a text, to look at.

        Args:
            text: a string. Of one longer than `max_length` tokens, the first window is taken.

        Returns:
            scores float32 (labels, n, n), axis 1 the start, axis 2 the end, -1e30 where the end is
            before the start; and the offsets of the n tokens, int32 (n, 2), in characters.
        """
        return entity_prediction.window_span_scores(self, text)

    def save(self, folder):
        """Writes a bundle: model, tokenizer, labels and settings, without optimizer and loss.

        Args:
            folder: path; new or empty, or of a bundle, which is replaced. It may be a mount point,
                a link (followed) or the working directory; a leading `~` is the home folder.

        Raises:
            ValueError: if the folder holds anything else.
            OSError: naming the folder, which is as it was, if it cannot be written.
        """
        save_bundle(folder, self, keras_ext.__version__, labels=self.labels)

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
            folder, cls.__name__, SETTINGS, labels="a list of strings"
        )
        recognizer = cls.__new__(cls)
        with values_of(folder):
            recognizer._set(tokenizer, config["labels"], **config["settings"])
            check_head(recognizer.span_head, model)
        recognizer.model = model
        return recognizer
