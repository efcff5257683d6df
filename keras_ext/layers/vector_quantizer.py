import keras
from keras import ops

from keras_ext.layers.replica_state import replica_state
from keras_ext.ops.k_means import k_means, random_rows, smoothed_means, sums_by_code
from keras_ext.ops.nearest_code import nearest_code
from keras_ext.ops.quantised import (
    GRADIENTS,
    checked_indices,
    known_or_nan,
    marked_indices,
    outputs_of,
    specs_of,
    visible_positions,
    zero_hidden,
)
from keras_ext.ops.replicas import gather_over_replicas, replica_count, sum_over_replicas
from keras_ext.ops.settings import number, one_of, share, whole
from keras_ext.ops.similarity import unit_vectors

UPDATES = ("ema", "loss")
DISTANCES = ("l2", "cosine")


@keras.saving.register_keras_serializable(package="keras_ext")
class VectorQuantizer(keras.layers.Layer):
    """Replaces each vector by the nearest of a learnt codebook.

        j = argmin_j |z - e_j|^2,  output e_j
        loss = commitment mean (z - sg(e_j))^2 + codebook_loss mean (sg(z) - e_j)^2

    with means over channels and visible positions, and sg a constant. The loss is added with
    `add_loss`. The codebook learns by the second term with update="loss"; with update="ema", where
    there is no such term, by averages in training, after search, output and loss,

        n_j <- decay n_j + (1 - decay) count_j,  m_j <- decay m_j + (1 - decay) sum of z of code j
        e_j = m_j / ((n_j + epsilon) / (N + K epsilon) N),  N = sum_j n_j

    which begin at n = 1 and m = e: from 0 a code that is seldom used would explode.

    - **Start**: the first batch of training makes the codebook, by k-means. This is the largest
      single gain over random codes.
    - **Dead codes**: after the averages, a code with n_j < threshold_dead N / K becomes a random
      vector of the batch, with n_j = N / K and m_j = n_j e_j.
    - **Gradient**: that of the output passes on to z as it is ("straight_through"), or turned and
      scaled as the code is from z ("rotation", `ops.rotation_trick`).
    - **"cosine"** makes unit vectors of z and of the codes, for search, loss, averages and output.
    - What is averaged may drift in size, as nothing holds z back but the commitment: put a
      `LayerNormalization` before it, or take "cosine".
    - All of it is float32 whatever the policy. Positions that a mask hides do not count: 0 stands in
      for what is there, which may be NaN, and gets no gradient.
    - Replicas add up counts and sums, and share the vectors that codes are made of. A graph of
      TensorFlow exchanges nothing in a branch, so that all vectors of all replicas are gathered in
      every step of training, n d floats: for the start, even after it, and for dead codes. With
      kmeans_steps=None and threshold_dead=0 nothing is; one replica never gathers.

    Args:
        codes: int, K, the size of the codebook.
        dim: int, d, the width of its vectors.
        update: "ema" or "loss". Defaults to "ema".
        decay: float in [0, 1). Defaults to 0.99.
        commitment: float, weight of the commitment. Defaults to 0.25.
        codebook_loss: float, weight of the codebook's term, for "loss". Defaults to 1.
        distance: "l2" or "cosine". Defaults to "l2".
        gradient: "straight_through" or "rotation". Defaults to "straight_through".
        kmeans_steps: int, steps of k-means at the start; None: the codebook begins random. 0: it
            begins with random vectors of the batch. Defaults to 10.
        threshold_dead: float in [0, 1), 0 leaves dead codes alone. Defaults to 0.
        epsilon: float above 0. Defaults to 1e-5.
        codebook_initializer: initializer of the codes. Defaults to "uniform".
        seed: int, of random numbers; None: a random one. Defaults to None.

    Call arguments:
        inputs: (..., d), floats.
        mask: bool, of the first axes of the inputs, such as (b, n), or None.
        training: bool, whether the codebook learns.
        return_indices: bool. Defaults to False.
        return_loss: bool, whether the loss is returned and not added. On several replicas Keras
            mixes up losses that are added by a layer whose state changes. Defaults to False.

    Returns:
        (..., d) codes, float32; with `return_indices` a tuple of these and indices (...) int32,
        which are -1 where the mask hides, and with `return_loss` the loss as the last.

    Raises:
        ValueError: for sizes below 1, an unknown choice, a number out of range, another width than
            d, and indices out of range. In a graph, which cannot raise, their codes are NaN.

    Example:

    >>> layer = VectorQuantizer(codes=16, dim=4)
    >>> z = keras.random.normal((32, 4))
    >>> codes, indices = layer(z, training=True, return_indices=True)
    >>> bool(np.all(np.array(layer.decode(indices)).shape == (32, 4)))
    True

    Source: Aaron van den Oord, Oriol Vinyals, Koray Kavukcuoglu, Neural Discrete Representation
    Learning, 2017, https://arxiv.org/abs/1711.00937; https://kexue.fm/archives/9826
    """

    def __init__(
        self,
        codes,
        dim,
        update="ema",
        decay=0.99,
        commitment=0.25,
        codebook_loss=1.0,
        distance="l2",
        gradient="straight_through",
        kmeans_steps=10,
        threshold_dead=0.0,
        epsilon=1e-5,
        codebook_initializer="uniform",
        seed=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.codes = whole("codes", codes)
        self.dim = whole("dim", dim)
        self.update = one_of("update", update, UPDATES)
        self.decay = share("decay", decay)
        self.commitment = number("commitment", commitment)
        self.codebook_loss = number("codebook_loss", codebook_loss)
        self.distance = one_of("distance", distance, DISTANCES)
        self.gradient = one_of("gradient", gradient, tuple(GRADIENTS))
        self.kmeans_steps = kmeans_steps
        if kmeans_steps is not None:
            self.kmeans_steps = whole("kmeans_steps", kmeans_steps, least=0)
        self.threshold_dead = share("threshold_dead", threshold_dead)
        self.epsilon = number("epsilon", epsilon)
        if min(self.commitment, self.codebook_loss) < 0 or self.epsilon <= 0:
            raise ValueError(
                "Expected weights of at least 0, and an epsilon above 0. "
                f"Received: {commitment=}, {codebook_loss=}, {epsilon=}"
            )
        self.codebook_initializer = keras.initializers.get(codebook_initializer)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    @property
    def num_codes(self):
        """The number of codes."""
        return self.codes

    @property
    def _redraws(self):
        """Whether codes are made of vectors of the batch."""
        return self.kmeans_steps is not None or self.threshold_dead > 0

    def build(self, input_shape):
        self._check_width(input_shape)
        shape = (self.codes, self.dim)
        self.base = replica_state(self, shape, self._first_codes, "codebook")
        self.counts = replica_state(self, (self.codes,), "ones", "counts")
        if self.update == "ema":
            self.sums = replica_state(self, shape, lambda *_, **__: ops.copy(self.base), "sums")
        else:  # Codes are base + shift: what is drawn anew is no business of the optimizer.
            self.shift = replica_state(self, shape, "zeros", "shift", trainable=True)
        if self.kmeans_steps is not None:
            self.started = replica_state(self, (), "zeros", "started")

    def _first_codes(self, shape, dtype=None):
        codes = self.codebook_initializer(shape, dtype)
        return unit_vectors(codes) if self.distance == "cosine" else codes

    def _check_width(self, shape):
        if shape[-1] != self.dim:
            raise ValueError(f"Expected vectors (..., {self.dim}). Received: shape={tuple(shape)}")

    def call(self, inputs, mask=None, training=None, return_indices=False, return_loss=False):
        z = self._vectors(zero_hidden(ops.convert_to_tensor(inputs), mask))
        rows = ops.reshape(z, (-1, self.dim))
        weights = ops.reshape(visible_positions(mask, ops.shape(z)[:-1]), (-1,))
        learning = bool(training) and self.trainable
        drawn = self._drawn(rows, weights) if learning and self._redraws else None
        if learning and self.kmeans_steps is not None:
            self._start(*drawn)
        codebook = self.codebook()
        indices = nearest_code(rows, codebook)
        codes = ops.take(codebook, indices, axis=0)
        loss = self._loss(rows, codes, weights)
        if learning:
            self._learn(ops.stop_gradient(rows), indices, weights, drawn)
        if not return_loss:
            self.add_loss(loss)
        output = GRADIENTS[self.gradient](ops.reshape(codes, ops.shape(z)), z)
        indices = marked_indices(ops.reshape(indices, ops.shape(z)[:-1]), mask)
        return outputs_of(output, indices, loss, return_indices, return_loss)

    def _vectors(self, inputs):
        """The inputs as they are compared, (..., d) float32."""
        z = ops.cast(inputs, "float32")
        self._check_width(z.shape)
        return unit_vectors(z) if self.distance == "cosine" else z

    def _loss(self, rows, codes, weights):
        """The loss of a replica: those of all have the mean over the positions of all."""
        total = ops.sum(weights)
        if (replica_count() or 1) > 1:
            total = sum_over_replicas([total])[0] / replica_count()
        scale = weights / (self.dim * ops.maximum(total, 1e-6))

        def mean(x, y):
            return ops.sum(scale * ops.sum(ops.square(x - y), -1))

        loss = self.commitment * mean(rows, ops.stop_gradient(codes))
        if self.update == "loss":
            loss += self.codebook_loss * mean(ops.stop_gradient(rows), codes)
        return loss

    def _drawn(self, rows, weights):
        """Rows of all replicas, their weights, and random numbers."""
        # In every step: there can be no collective in the branch that makes the codes of them.
        noise = keras.random.uniform(ops.shape(weights), seed=self.seed_generator, dtype="float32")
        rows, *others = gather_over_replicas((ops.stop_gradient(rows), weights, noise))
        return ops.reshape(rows, (-1, self.dim)), *others  # gathering forgets the width

    def _start(self, rows, weights, noise):
        """Makes the codebook of the first batch that has anything to see."""
        base, started = ops.copy(self.base), self.started > 0
        leave = ops.logical_or(started, ops.sum(weights) == 0)
        settings = (self.codes, self.kmeans_steps, self.distance == "cosine")
        base = ops.cond(leave, lambda: base, lambda: k_means(rows, weights, noise, *settings))
        self.base.assign(base)
        self.counts.assign(ops.where(leave, ops.copy(self.counts), 1.0))
        if self.update == "ema":
            self.sums.assign(ops.where(leave, ops.copy(self.sums), base))
        self.started.assign(ops.where(leave, ops.copy(self.started), 1.0))

    def _learn(self, rows, indices, weights, drawn):
        """Moves averages towards the batch, and with them the codes of "ema"; draws dead ones."""
        counts, sums = sum_over_replicas(list(sums_by_code(rows, weights, indices, self.codes)))
        counts, ema = self._moved(self.counts, counts), self.update == "ema"
        total = ops.sum(counts)
        base = ops.copy(self.base)
        if ema:
            sums = self._moved(self.sums, sums)
            base = smoothed_means(counts, sums, self.epsilon)
        if self.threshold_dead:
            mean = total / self.codes
            dead = ops.logical_and(counts < self.threshold_dead * mean, ops.sum(drawn[1]) > 0)
            fresh = ops.cond(ops.any(dead), lambda: random_rows(*drawn, self.codes), lambda: base)
            counts, lost = ops.where(dead, mean, counts), dead[:, None]
            sums = ops.where(lost, fresh * mean, sums)
            base = ops.where(lost, fresh if ema else fresh - ops.copy(self.shift), base)
        self.counts.assign(counts)
        self.base.assign(base)
        if ema:
            self.sums.assign(sums)

    def _moved(self, average, value):
        return self.decay * average + (1 - self.decay) * value

    def encode(self, z):
        """The indices of the codes of vectors.

        Args:
            z: (..., d) floats.

        Returns:
            (...) int32.
        """
        z = self._vectors(z)
        indices = nearest_code(ops.reshape(z, (-1, self.dim)), self.codebook())
        return ops.reshape(indices, ops.shape(z)[:-1])

    def decode(self, indices):
        """The codes of indices.

        Args:
            indices: (...) integers.

        Returns:
            (..., d) float32.
        """
        indices, known = checked_indices(indices, self.codes)
        return known_or_nan(ops.take(self.codebook(), indices, axis=0), known)

    def codebook(self):
        """All codes, (codes, d) float32; of "cosine" unit vectors."""
        if not self.built:
            self.build((None, self.dim))
        base = ops.copy(self.base)
        codebook = base + self.shift if self.update == "loss" else base
        return unit_vectors(codebook) if self.distance == "cosine" else codebook

    def compute_output_shape(self, input_shape):
        self._check_width(input_shape)
        return tuple(input_shape)

    def compute_output_spec(
        self, inputs, mask=None, training=None, return_indices=False, return_loss=False
    ):
        shape = self.compute_output_shape(inputs.shape)
        return specs_of(shape, shape[:-1], return_indices, return_loss)

    def get_config(self):
        return {
            **super().get_config(),
            "codes": self.codes,
            "dim": self.dim,
            "update": self.update,
            "decay": self.decay,
            "commitment": self.commitment,
            "codebook_loss": self.codebook_loss,
            "distance": self.distance,
            "gradient": self.gradient,
            "kmeans_steps": self.kmeans_steps,
            "threshold_dead": self.threshold_dead,
            "epsilon": self.epsilon,
            "codebook_initializer": keras.initializers.serialize(self.codebook_initializer),
            "seed": self.seed,
        }
