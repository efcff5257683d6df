from functools import partial

import keras
import numpy as np

from keras_ext.data import check_examples
from keras_ext.ops.settings import whole
from keras_ext.sentences import sentence_transformers_folder, training, vectors
from keras_ext.sentences.evaluation import Evaluation, Measure
from keras_ext.sentences.model import check_settings, project, sentence_model, unnormalized
from keras_ext.sentences.search import INDEXES, check_dimensions, find, texts_or_vectors
from keras_ext.sentences.whitening import whitening
from keras_ext.tasks.bundle import load_bundle, save_bundle, values_of
from keras_ext.tasks.compilation import check_order, default_arguments, replicas_of
from keras_ext.tasks.encoder import check_encoder
from keras_ext.tasks.fitting import check_fit, fit_and_keep
from keras_ext.tasks.inputs import (
    as_callbacks,
    as_texts,
    text_list,
    warm_up,
    warm_up_lengths,
)

WINDOW = 8192  # texts that are tokenised and sorted at once: what bounds the memory
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
        optimizer=None,
        loss=None,
        head=None,
        learning_rate=None,
        weight_decay=None,
        ema_momentum=None,
        **kwargs,
    ):
        """Chooses the optimizer, the loss and Keras' other training settings.

        Args:
            optimizer: a Keras optimizer or its name, or None: AdamW, anew for each `fit`. This and
                the last three are those of `EntityRecognizer.compile`.
            loss: loss of the vectors (b, m, d) of the m texts of each example, or of what the head
                makes of them; `fit` says what its labels are. None: `losses.CoSENT` for scored
                pairs, else `losses.InfoNCE`.
            head: layer on the vectors that is there in training only, such as
                `layers.PairClassifier`, `PairScore` or `LearnableTemperature`. It needs a loss.
            learning_rate: float, the peak. Defaults to 1e-4.
            weight_decay: float. Defaults to 0.01.
            ema_momentum: float, or None for no average.
            **kwargs: other arguments of `keras.Model.compile`, such as `jit_compile`.

        Raises:
            ValueError: for an optimizer with one of the three settings, a head without a loss, or
                optimizer and loss in the wrong order.
        """
        check_order(optimizer, loss)
        default = default_arguments(optimizer, learning_rate, weight_decay, ema_momentum)
        chosen = optimizer, loss, head, default, kwargs
        self._training = training.Training(self.model, self.settings["score"], *chosen)

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
        callbacks = as_callbacks(callbacks)
        sizes = self.settings["max_length"], self.tokenizer.pad_id
        kind, columns, labels = check_examples(examples)
        evaluation, best, measure = None, None, None
        if validation_examples is not None:
            evaluation = Evaluation(validation_examples)
            best = training.best_measure(evaluation)
        targets = training.text_groups(columns) if labels is None else labels
        texts = [*columns, [] if evaluation is None else evaluation.texts]
        (*columns, dev), (*cut, cut_dev) = vectors.column_rows(self.tokenizer, texts, sizes[0])
        if verbose:
            print(training.report(kind, targets, cut, sizes[0]))  # noqa: T201, it is for the user
        if evaluation is not None:
            vectors.warn_of_cut(cut_dev, len(dev), sizes[0])
            made = vectors.row_batches(self.model, dev, 2 * batch_size, *sizes)
            measure = partial(Measure(evaluation, made, self.settings["score"]), self.model)
        columns = 2 * columns if kind == "texts" else columns
        order = {"seed": seed, "replicas": replicas_of(self.model)}
        batches = training.example_batches(columns, targets, batch_size, *sizes, **order)
        scored = labels is not None
        compilation = self._training.compilation(len(columns), scored, chunk_size, callbacks)
        return fit_and_keep(
            compilation, batches, callbacks, verbose, measure, best, epochs, initial_epoch
        )

    def encode(self, texts, batch_size=64, normalize=None, truncate_dim=None, progress=False):
        """The vectors of texts, sorted by length and padded in batches, 8,192 texts at a time.

        Args:
            texts: a string, or a record, whose `"text"` is read; or a list, an array or another
                series of such. An empty one has a vector, too.
            batch_size: int, texts in a batch.
            normalize: bool, whether the vectors get length 1. None: as `normalize` of the
                `SentenceEncoder` says.
            truncate_dim: int, components that are kept, the first ones, of vectors trained with
                `losses.Matryoshka`; None: all.
            progress: bool, whether to show a progress bar.

        Returns:
            float32 (texts, d); of one alone (d,).

        Raises:
            ValueError: for a text that is not a string, or vectors that are not finite.
        """
        texts, alone = as_texts(texts)
        width, batch_size = self.model.output.shape[-1], whole("batch_size", batch_size)
        size = width if truncate_dim is None else whole("truncate_dim", truncate_dim)
        if size > width:
            raise ValueError(
                f"Expected a truncate_dim from 1 to {width}, the dimension of the vectors. "
                f"Received: {truncate_dim=}"
            )
        normalizes = self.settings["normalize"]
        normalize = normalizes if normalize is None else normalize
        model = self.model if normalize else self._bare_model()
        found, cut = np.empty((len(texts), size), "float32"), 0
        bar = keras.utils.Progbar(len(texts), unit_name="text") if progress and texts else None
        max_length, pad_id = self.settings["max_length"], self.tokenizer.pad_id
        for first in range(0, len(texts), WINDOW):
            window, part = texts[first : first + WINDOW], found[first : first + WINDOW]
            rows, cut_here = vectors.token_rows(self.tokenizer, window, max_length)
            batches = vectors.row_batches(model, rows, batch_size, max_length, pad_id)
            vectors.fill_vectors(part, model, batches, window, bar)
            if normalize and (size < width or not normalizes):
                part[:] = vectors.unit_rows(part)
            cut += sum(cut_here)
        vectors.warn_of_cut(cut, len(texts), max_length)
        return found[0] if alone else found

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
        batch_size, max_length = whole("batch_size", batch_size), self.settings["max_length"]
        shapes = {
            vectors.batch_shape(self.model, rows, length, batch_size, max_length)
            for length in warm_up_lengths(lengths, max_length)
            for rows in (1, batch_size)
        }
        return warm_up(self.model, shapes)

    def similarity(self, first, second, batch_size=64):
        """The scores of all pairs of two lists of texts.

        Args:
            first: list of strings, or their vectors (m, d) as `encode` gives them: an array, a
                tensor, a list of vectors. Or one vector (d,).
            second: likewise, n of them.
            batch_size: int, as in `encode`.

        Returns:
            float32 (m, n), by the chosen `score`; without the axis of a vector that was alone.

        Raises:
            ValueError: for one text alone, or vectors that do not fit.
        """
        first, one = texts_or_vectors(first, "first", text_alone=False)
        second, other = texts_or_vectors(second, "second", text_alone=False)
        first, second = self._comparable(first, batch_size), self._comparable(second, batch_size)
        check_dimensions(first, second)
        return (first[0] if one else first) @ (second[0] if other else second).T

    def search(self, queries, corpus, k=10, index="numpy", batch_size=64):
        """Finds the texts of a corpus that score best with queries, exactly.

        Args:
            queries: a string, a list of strings, or vectors as `encode` gives them: (d,) of one
                query, (m, d) of several, as an array, a tensor, or a list.
            corpus: list of strings, or their vectors (n, d).
            k: int, number of hits. A corpus with fewer gives all it has.
            index: "numpy", or "faiss" where that library is installed (its exact `IndexFlatIP`).
            batch_size: int, as in `encode`.

        Returns:
            A list of `Hit`, best first; for several queries a list of such lists.

        Raises:
            ValueError: for k below 1, an empty corpus, or vectors that do not fit.
        """
        k = whole("k", k)
        if index not in INDEXES:
            raise ValueError(f'Expected the index "numpy" or "faiss". Received: {index=}')
        queries, alone = texts_or_vectors(queries, "queries")
        corpus, one = texts_or_vectors(corpus, "corpus", text_alone=False)
        if one or not len(corpus):
            raise ValueError(
                "There is nothing to search in: the corpus is empty, or one vector. Expected texts, "
                f"or vectors (n, d). Received: corpus={corpus!r:.80}"
            )
        texts = [None] * len(corpus) if isinstance(corpus, np.ndarray) else corpus
        corpus = self._comparable(corpus, batch_size)
        queries = self._comparable(queries, batch_size)
        hits = find(queries, corpus, texts, min(k, len(corpus)), index)
        return hits[0] if alone else hits

    def evaluate(self, examples, corpus=(), k=10, relevant=None, batch_size=64):
        """Scores the vectors by correlation with the labels, and by retrieval.

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
        evaluation = Evaluation(examples, corpus, k, relevant)
        return evaluation.scores(self._comparable(evaluation.texts, batch_size))

    def whiten(self, texts, units=None, batch_size=64):
        """Puts `sentences.whitening` of texts before the normalisation. `compile` anew after it.

        Args:
            texts: list of strings, the corpus to learn it from.
            units: int, components that are kept, those of largest variance. None: all.
            batch_size: int, as in `encode`.
        """
        found = self.encode(text_list(texts, "texts"), batch_size, normalize=False)
        layer = whitening(found, units, name=f"whitening_{len(self.model.layers)}")
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

    @classmethod
    def from_huggingface(cls, folder, dtype=None, max_length=None):
        """Reads a folder of the sentence-transformers library.

        The encoder inside is a BERT, ALBERT, ELECTRA or RoFormer
        (`checkpoints.encoder_from_huggingface`). `modules.json` says what stands there: pooling,
        projections (its Dense), normalisation, the length at which texts are cut and the similarity
        are taken over.

        Args:
            folder: path, with `modules.json`, `config.json`, `model.safetensors`, and
                `tokenizer.json` or `vocab.txt`.
            dtype: dtype policy of the encoder, or its name. Defaults to the global policy.
            max_length: int, tokens at which texts are cut. None: that of the folder.

        Returns:
            A `SentenceEncoder` that gives the same vectors.

        Raises:
            ValueError: if the folder holds another kind of encoder, module, pooling, activation or
                similarity, a default prompt, or a tokenizer that splits Chinese into words first
                (that of RoFormers whose vocabulary holds such words), which are not known here.

        Example:

        ```python
        sentences = SentenceEncoder.from_huggingface("all-MiniLM-L6-v2", dtype="mixed_bfloat16")
        sentences.similarity(["How old are you?"], ["What is your age?"])
        ```
        """
        parts, projections = sentence_transformers_folder.read_folder(folder, dtype, max_length)
        sentences = cls(**parts)
        for dense in projections:
            sentences.model = project(sentences.model, dense, parts["normalize"])
        return sentences

    def _bare_model(self):
        """The model without its normalisation; it is kept, for it compiles."""
        if self._bare[0] is not self.model:
            self._bare = self.model, unnormalized(self.model, self.settings["normalize"])
        return self._bare[1]

    def _comparable(self, given, batch_size):
        """Texts or vectors as vectors whose inner products are scores."""
        if not isinstance(given, np.ndarray):
            given = self.encode(given, batch_size)
        return vectors.comparable(given, self.settings["score"])
