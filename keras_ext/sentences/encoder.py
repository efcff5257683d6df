from keras_ext.ops.settings import whole
from keras_ext.sentences import evaluation as sentence_evaluation
from keras_ext.sentences import search as sentence_search
from keras_ext.sentences import vectors as sentence_vectors
from keras_ext.sentences import whitening
from keras_ext.sentences.model import check_settings, project, sentence_model
from keras_ext.sentences.training import SentenceTraining
from keras_ext.tasks.bundle import load_bundle, save_bundle, values_of
from keras_ext.tasks.compilation import default_arguments
from keras_ext.tasks.encoder import check_encoder
from keras_ext.tasks.fitting import check_fit
from keras_ext.tasks.inputs import as_texts, text_list

SETTINGS = {  # what a bundle holds
    "pooling": "a string",
    "normalize": "true or false",
    "score": "a string",
    "max_length": "a positive integer",
}


class SentenceEncoder:
    """Gives texts vectors that are alike where the texts mean alike.

        vector = normalise(pooling(encoder(tokens)))

    Args:
        encoder: functional `keras.Model` with a dict of inputs: any encoder of `keras_ext.models`,
            or a KerasHub backbone.
        tokenizer: `data.Tokenizer` whose ids the encoder embeds.
        pooling: "mean", "first_last", "cls", "max" or "last", see `layers.Pooling`.
        normalize: bool, whether vectors get length 1.
        score: "cosine" or "dot", what vectors are compared by, in training and in search.
        max_length: int, tokens of a text, the two special ones included. What comes after is not
            read, and a warning says so.

    Raises:
        ValueError: for an unknown pooling or score, or an encoder that does not fit the tokenizer
            or max_length.

    Example:

    >>> import keras_ext
    >>> texts = ["red car", "fast red car", "old tree", "very old tree"]
    >>> tokenizer = keras_ext.data.Tokenizer.from_characters(texts, min_count=1)
    >>> encoder = keras_ext.models.BertEncoder(
    ...     tokenizer.vocabulary_size, 1, 2, 16, 16, dropout=0.0, residual="pre")
    >>> sentences = SentenceEncoder(encoder, tokenizer, max_length=16)
    >>> sentences.compile(learning_rate=0.01)
    >>> pairs = [("red car", "fast red car"), ("old tree", "very old tree")]
    >>> history = sentences.fit(pairs, epochs=40, verbose=0)
    >>> sentences.search("fast red car", ["old tree", "red car"], k=1)[0].text
    'red car'

    Source: Jianlin Su, CoSENT, 2022, https://kexue.fm/archives/8847; Nils Reimers and Iryna
    Gurevych, Sentence-BERT, 2019, https://arxiv.org/abs/1908.10084
    """

    def __init__(
        self, encoder, tokenizer, pooling="mean", normalize=True, score="cosine", max_length=128
    ):
        self._set(tokenizer, pooling, normalize, score, max_length)
        self.model = sentence_model(encoder, pooling, normalize)
        check_encoder(encoder, tokenizer, max_length)

    def _set(self, tokenizer, pooling, normalize, score, max_length):
        if score not in ("cosine", "dot"):
            raise ValueError(f'The score is "cosine" or "dot". Received: {score=}')
        max_length = whole("max_length", max_length)
        if max_length < 3:
            raise ValueError(
                f"A text has two special tokens and at least one of its own. Received: {max_length=}"
            )
        self.tokenizer = tokenizer
        self.settings = {
            "pooling": pooling,
            "normalize": bool(normalize),
            "score": score,
            "max_length": max_length,
        }
        self._training = None
        self._bare = None, None

    def compile(
        self,
        loss=None,
        head=None,
        optimizer=None,
        learning_rate=None,
        weight_decay=None,
        ema_momentum=None,
        **kwargs,
    ):
        """Chooses the loss, the optimizer and Keras' other training settings.

        Args:
            loss: loss of the vectors (b, m, d) of the m texts of each example, or of what the head
                makes of them; `fit` says what its labels are. None: `losses.CoSENT` for scored
                pairs, else `losses.InfoNCE`.
            head: layer on the vectors that is there in training only, such as
                `layers.PairClassifier`, `PairScore` or `LearnableTemperature`. It needs a loss.
            optimizer: a Keras optimizer or its name, or None: AdamW, anew for each `fit`. This and
                the next three are those of `EntityRecognizer.compile`.
            learning_rate: float, the peak. Defaults to 1e-4.
            weight_decay: float. Defaults to 0.01.
            ema_momentum: float, or None for no average.
            **kwargs: other arguments of `keras.Model.compile`, such as `jit_compile`.
        """
        default = default_arguments(optimizer, learning_rate, weight_decay, ema_momentum)
        self._training = SentenceTraining(self.model, loss, head, optimizer, default, kwargs)

    def fit(
        self,
        examples,
        validation_examples=None,
        epochs=1,
        batch_size=32,
        chunk_size=None,
        callbacks=None,
        verbose="auto",
        seed=0,
        initial_epoch=0,
        **refused,
    ):
        """Trains on examples, and keeps the epoch that is best on the validation examples.

        The loss gets the scores (b,) of scored pairs; else (b,) the group of each example, those
        that share a text in one, so that `InfoNCE` does not push equal texts apart; with k negatives
        (b, 1 + k), also the group that each of them belongs to (-1: none, -2: it is left out, being
        a text of its own example). Rows that fill up a short batch have sample weight 0.

        Args:
            examples: list of `(text, text, score)`; or `(text, text)`, two that mean the same; or
                `(anchor, positive, negative, ...)`; or bare texts, their own positives (SimCSE).
            validation_examples: list, of the first three forms, or None: the last weights are kept.
                The best epoch has the highest Spearman correlation for scored pairs, the highest
                MRR for others; what `evaluate` gives is in the history.
            epochs: int.
            batch_size: int, examples in a batch: each is the negative of all others.
            chunk_size: int, examples that the encoder sees at once, whatever the size of the batch
                (`training.CachedContrastiveModel`); None: the whole batch.
            callbacks: list of Keras callbacks, or one.
            verbose: 0 silent, 1 or "auto" report and progress bar, 2 a line an epoch.
            seed: int, of the order of batches.
            initial_epoch: int, epochs that count as done, as in `EntityRecognizer.fit`.
            **refused: other arguments of Keras' `fit`; an error says what there is instead.

        Returns:
            The `History`.

        Raises:
            ValueError: for examples that do not fit together or lack a text.
            RuntimeError: if `compile` was not called, or if the loss stops being finite.
        """
        epochs, initial_epoch = check_fit(epochs, initial_epoch, refused, data="examples")
        if self._training is None:
            raise RuntimeError("Call `compile` before `fit`.")
        batch_size = whole("batch_size", batch_size)
        chunk_size = None if chunk_size is None else whole("chunk_size", chunk_size)
        parts = (examples, validation_examples, batch_size, chunk_size, seed)
        return self._training.fit(
            self, *parts, callbacks, verbose, epochs=epochs, initial_epoch=initial_epoch
        )

    def encode(self, texts, batch_size=64, normalize=None, truncate_dim=None, progress=False):
        """The vectors of texts, sorted by length and padded in batches, 8,192 texts at a time.

        Args:
            texts: a string, or a record, whose `"text"` is read; or a list, an array or another
                series of such. An empty one has a vector, too.
            batch_size: int, texts in a batch.
            normalize: bool, whether the vectors get length 1. None: as the encoder was made.
            truncate_dim: int, components that are kept, the first ones, of an encoder trained with
                `losses.Matryoshka`; None: all.
            progress: bool, whether to show a progress bar.

        Returns:
            float32 (texts, d); of one alone (d,).

        Raises:
            ValueError: for a text that is not a string, or vectors that are not finite.
        """
        texts, alone = as_texts(texts)
        vectors = sentence_vectors.encode_texts(
            self, texts, batch_size, normalize, truncate_dim, progress
        )
        return vectors[0] if alone else vectors

    def warm_up(self, lengths=None, batch_size=64):
        """Runs the model once on each shape that `encode` gives it, so that no text waits.

        On TensorFlow without `jit_compile` a batch is as long as its longest text, and a second
        shape is traced for all to come: two lengths will do. Elsewhere every batch has `batch_size`
        rows and one of few numbers of tokens (for max_length=128: 16, 32, 48, 80, 128), each of
        which compiles for seconds. A shape stays until the process ends.

        Args:
            lengths: list of numbers of tokens of the texts to come, the two special ones included;
                None for all.
            batch_size: int, as in `encode`.

        Returns:
            int, the number of shapes.

        Raises:
            ValueError: for a length that is not between 1 and `max_length`, or a batch_size below 1.
        """
        return sentence_vectors.warm_up(self, lengths, batch_size)

    def similarity(self, first, second, batch_size=64):
        """The scores of all pairs of two lists of texts.

        Args:
            first: list of strings, or their vectors (m, d).
            second: likewise, n of them.
            batch_size: int, as in `encode`.

        Returns float32 (m, n), by the encoder's `score`.
        """
        return sentence_search.similarity(self, first, second, batch_size)

    def search(self, queries, corpus, k=10, index="numpy", batch_size=64):
        """Finds the texts of a corpus that score best with queries, exactly.

        Args:
            queries: a string, a list of strings, or their vectors (m, d).
            corpus: list of strings, or their vectors (n, d) as `encode` gives them.
            k: int, number of hits. A corpus with fewer gives all it has.
            index: "numpy", or "faiss" where that library is installed (its exact `IndexFlatIP`).
            batch_size: int, as in `encode`.

        Returns:
            A list of `Hit`, best first; for a list of queries a list of such lists.

        Raises:
            ValueError: for k below 1, an empty corpus, or vectors that do not fit.
        """
        return sentence_search.search(self, queries, corpus, k, index, batch_size)

    def evaluate(self, examples, corpus=(), k=10, relevant=None, batch_size=64):
        """Scores the encoder by correlation with the labels, and by retrieval.

        Args:
            examples: list as in `fit`, without bare texts. In retrieval the first text of each that
                counts as positive looks for its second one among all but first texts.
            corpus: list of more texts to search among.
            k: int, hits that count.
            relevant: float, from which on the score of a scored pair is positive. None: the highest.
            batch_size: int, as in `encode`.

        Returns:
            `SentenceScores`.
        """
        return sentence_evaluation.evaluate(self, examples, corpus, k, relevant, batch_size)

    def whiten(self, texts, units=None, batch_size=64):
        """Puts `sentences.whitening` of texts before the normalisation. `compile` anew after it.

        Args:
            texts: list of strings, the corpus to learn it from.
            units: int, components that are kept, those of largest variance. None: all.
            batch_size: int, as in `encode`.
        """
        vectors = self.encode(text_list(texts, "texts"), batch_size, normalize=False)
        layer = whitening(vectors, units, name=f"whitening_{len(self.model.layers)}")
        self.model = project(self.model, layer, self.settings["normalize"])
        self._training = None

    def save(self, folder):
        """Writes a bundle: model, tokenizer, and pooling, normalisation and score.

        Args:
            folder: path, as in `EntityRecognizer.save`.

        Raises:
            ValueError: if the folder holds anything but a bundle, which is replaced.
            OSError: naming the folder, which is as it was, if it cannot be written.
        """
        save_bundle(folder, self)

    @classmethod
    def load(cls, folder):
        """Reads a bundle that `save` wrote; `compile` it to train on.

        Args:
            folder: path; a leading `~` is the home folder.

        Raises:
            ValueError: if the folder is not a bundle of a SentenceEncoder or is damaged; if its
                settings do not fit its model.
        """
        config, model, tokenizer = load_bundle(folder, cls.__name__, SETTINGS)
        sentences = cls.__new__(cls)
        with values_of(folder):
            sentences._set(tokenizer, **config["settings"])
            check_settings(model, config["settings"]["pooling"], config["settings"]["normalize"])
        sentences.model = model
        return sentences
