import keras
import numpy as np
from keras import ops

from keras_ext.layers.fold_mlm_mask_embedding import checked_split
from keras_ext.ops.random_tokens import choose_tokens, count_true, fraction
from keras_ext.ops.settings import whole


@keras.saving.register_keras_serializable(package="keras_ext")
class MaskTokens(keras.layers.Layer):
    """Hides random tokens, to be guessed: the inputs, targets and weights of a masked language model.

    Of the m tokens of a row exactly ceil(rate m) are selected, all sets of that size alike (not each
    token by itself: a row is never without). A selected token i becomes, with split = (a, b, c),

        with probability a    the id of the mask
        with probability b    i: it stays, and is guessed all the same
        with probability c    a random id, all alike

    Ids in `exclude_ids` and padding are never selected, and no random id is one of `exclude_ids`.

    Args:
        mask_id: int, the id of the mask.
        vocabulary_size: int, number of ids.
        rate: float in (0, 1], taken as the nearest fraction with a denominator up to 10000. BERT's
            is 0.15; sequences of pixels or bytes, where neighbours tell much, bear 0.5. Defaults to
            0.5.
        split: three probabilities that sum to 1. (1, 0, 0) masks all that is selected. Defaults to
            BERT's (0.8, 0.1, 0.1).
        exclude_ids: ids that stay as they are, such as those of padding, [CLS] and [SEP]. Defaults
            to (0,).
        seed: int, of the random numbers. None: another one each time. Defaults to None.

    Call arguments:
        inputs: (b, n) int, token ids.
        mask: (b, n) bool, true = token. None: all but `exclude_ids`.
        training: bool. True draws anew at each call. Without it the same is selected for every
            batch of the same shape, so that evaluations can be compared: in a pipeline of data
            write `training=True`.

    Returns:
        ids (b, n) int32, the targets (b, n) int32, which are the inputs, and weights (b, n) float32,
        1 for what was selected, 0 elsewhere: what Keras' `fit` takes as `(x, y, sample_weight)`.

    Raises:
        ValueError: for a rate outside of (0, 1], a `split` that are not three probabilities, ids out
            of the vocabulary, and if none would be left for random ids.

    Example:

    >>> import numpy as np
    >>> mask_tokens = MaskTokens(mask_id=9, vocabulary_size=10, split=(1, 0, 0), seed=0)
    >>> ids = np.array([[3, 4, 5, 6, 0, 0]])
    >>> masked, targets, weights = mask_tokens(ids, training=True)
    >>> int(np.sum(weights)), int(np.sum(np.array(masked) == 9)), np.array(masked)[0, 4:].tolist()
    (2, 2, [0, 0])

    Source: Jacob Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers for
    Language Understanding, 2018, https://arxiv.org/abs/1810.04805
    """

    def __init__(
        self,
        mask_id,
        vocabulary_size,
        rate=0.5,
        split=(0.8, 0.1, 0.1),
        exclude_ids=(0,),
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self._share = fraction("rate", rate, least=True)
        self.vocabulary_size = whole("vocabulary_size", vocabulary_size)
        self.mask_id = whole("mask_id", mask_id, least=0)
        self.rate = rate
        self.split = list(checked_split(split))
        self.exclude_ids = [whole("exclude_ids", i, least=0) for i in exclude_ids]
        self.seed = seed
        if max(self.mask_id, *self.exclude_ids, 0) >= self.vocabulary_size:
            raise ValueError(
                "Expected ids below vocabulary_size. "
                f"Received: {mask_id=}, {exclude_ids=}, {vocabulary_size=}"
            )
        ids = np.arange(self.vocabulary_size, dtype="int32")
        self._ordinary_ids = np.setdiff1d(ids, self.exclude_ids).astype("int32")
        if not len(self._ordinary_ids):
            raise ValueError(f"Expected ids that are not excluded. Received: {exclude_ids=}")
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def call(self, inputs, mask=None, training=None):
        ids = ops.cast(inputs, "int32")
        candidates = self.is_ordinary(ids)
        if mask is not None:
            candidates = ops.logical_and(candidates, ops.cast(mask, "bool"))
        noise = self._noise(ops.shape(ids), training)  # (3, b, n)
        numerator, denominator = self._share
        counts = (count_true(candidates) * numerator + denominator - 1) // denominator
        selected = choose_tokens(noise[0], candidates, counts)
        masked, kept, _ = self.split
        choices = len(self._ordinary_ids)
        index = ops.minimum(ops.cast(noise[2] * choices, "int32"), choices - 1)
        other = ops.take(ops.convert_to_tensor(self._ordinary_ids), index)
        other = ops.where(noise[1] < masked + kept, ids, other)
        other = ops.where(noise[1] < masked, self.mask_id, other)
        return ops.where(selected, other, ids), ids, ops.cast(selected, "float32")

    def is_ordinary(self, ids):
        """Where ids are none of `exclude_ids`, bool of their shape."""
        ordinary = ops.ones_like(ids, "bool")
        for each in self.exclude_ids:
            ordinary = ops.logical_and(ordinary, ids != each)
        return ordinary

    def _noise(self, shape, training):
        seed = self.seed_generator if training else self.seed or 0
        return keras.random.uniform((3, *shape), dtype="float32", seed=seed)

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def compute_output_shape(self, input_shape):
        return (tuple(input_shape),) * 3

    def compute_output_spec(self, inputs, mask=None, training=None):
        return tuple(keras.KerasTensor(inputs.shape, t) for t in ("int32", "int32", "float32"))

    def get_config(self):
        return {
            **super().get_config(),
            "mask_id": self.mask_id,
            "vocabulary_size": self.vocabulary_size,
            "rate": self.rate,
            "split": self.split,
            "exclude_ids": self.exclude_ids,
            "seed": self.seed,
        }
