import keras
from keras import ops

from keras_ext.keras_internals import separate_losses
from keras_ext.layers.replica_state import replica_state
from keras_ext.ops.code_averages import (
    averaged_codebook,
    code_vectors,
    sphere,
    updated_averages,
)
from keras_ext.ops.lag_biases import toeplitz_biases, xl_biases
from keras_ext.ops.replicas import replica_count, sum_over_replicas
from keras_ext.ops.rows import project_rows
from keras_ext.ops.settings import number, one_of, share, whole
from keras_ext.ops.vq_attention import (
    linear_vq_attention,
    nearest_codes,
    quadratic_vq_attention,
)
from keras_ext.ops.vq_block import attend_block, document_runs, empty_state
from keras_ext.ops.vq_heads import join_heads, normalize_head, split_heads

METHODS = ("linear", "quadratic")
POSITION_BIASES = ("xl", "toeplitz")


@keras.saving.register_keras_serializable(package="keras_ext")
class VQAttention(keras.layers.Layer):
    """Softmax attention whose keys are codes of a codebook, so that it takes linear time.

        q, k, v = split(x W),  in each head
        q, k = normalize(q), normalize(k),  of mean 0 and variance 1, times key_size^(-1/4)
        z_j = argmin_c |k_j - e_c|^2
        weights_ij = softmax_j(q_i . e_{z_j} + bias(i - j)),  over the visible tokens j
        output_i = concat_heads(sum_j weights_ij v_j) W_o
        gated: output_i = (swish(u_i) * concat_heads(sum_j weights_ij swish(v_j))) W_o

    Tokens of one code have one score. So of those before the last two blocks a query needs to know
    only how many have each code and the mean of their values, and all takes n (2 L + codes)
    products, not n^2: with a block length L the queries of a block look at the tokens of their own
    block and the one before, and at this cache. The output is exactly that of all pairs, which
    `method="quadratic"` computes; where n is known to be at most 2 L, the linear method does, too.
    Without `causal` the sequence is gone through twice, from both ends.

    With "xl", bias(l) = (q_i + b) . (sinusoids(l) W_l) for lags |l| up to L and 0 beyond; with
    "toeplitz" it is a learned number for each lag and head.

    The codebook is no trained weight: in training, averages follow the keys, after the output,

        sum_c = decay sum_c + (1 - decay) sum_{j: z_j = c} k_j,  count_c likewise
        e_c = sum_c / max(count_c, 0.01)

    over the tokens of all replicas, always in float32, and `commitment` times the squared distance
    of the keys to their codes, its mean over the same tokens, is added to the loss. Gradients pass through a quantised key as if it
    were the key, from the queries of its block and of the next; through the cache there is none to
    keys, and none to values unless `grad_through_cache`. Queries get their full gradient.

    Args:
        heads: int, number of heads, each with a codebook of its own.
        key_size: int of at least 2, channels of queries and keys in a head.
        value_size: int, channels of a value in a head. None: `key_size`.
        codes: int, size of a codebook. Defaults to 512.
        block_length: int, L. Defaults to 512.
        causal: bool, whether a token sees only itself and those before. Defaults to True.
        gated: bool, whether there is a gate, as in a `GatedAttentionUnit`. Defaults to False.
        method: "linear", or "quadratic", the same numbers from all pairs. Defaults to "linear".
        position_bias: "xl", "toeplitz" or None. Defaults to "xl".
        commitment: number of at least 0, weight of the commitment loss. Defaults to 1e-4.
        decay: number in [0, 1), of the codebook's averages. Defaults to 0.99.
        grad_through_cache: bool, whether values get their full gradient. Defaults to False.
        kernel_initializer: initializer of the kernels. Defaults to "glorot_uniform".

    Call arguments:
        inputs: (b, n, d).
        mask: (b, n) bool, true = token. Others are seen by none. None: all are tokens.
        segment_ids: (b, n) int, for documents that are packed in a row: where it changes, also at a
            hidden token, another begins, and no token sees one of another document. None: each row
            is one document.
        training: bool, whether the codebook follows and the commitment loss is added.

    Returns:
        (b, n, d) in the compute dtype. A token that may see none gives 0.

    Raises:
        ValueError: for sizes that are no ints of at least 1 (`key_size` 2), an unknown choice, a
            number out of its range, and for `step` without `causal`.

    Example:

    >>> import numpy as np
    >>> layer = VQAttention(heads=2, key_size=8, codes=16, block_length=4)
    >>> x = np.random.default_rng(0).normal(size=(1, 10, 6)).astype("float32")
    >>> whole = layer(x)
    >>> first, state = layer.step(x[:, :7], layer.initial_state(1))
    >>> last, state = layer.step(x[:, 7:], state)
    >>> np.allclose(np.concatenate([first, last], axis=1), whole, atol=1e-5)
    True

    Source: Lucas D. Lingle, Transformer-VQ: Linear-Time Transformers via Vector Quantization, 2023,
    https://arxiv.org/abs/2309.16354; https://kexue.fm/archives/9844
    """

    def __init__(
        self,
        heads,
        key_size,
        value_size=None,
        codes=512,
        block_length=512,
        causal=True,
        gated=False,
        method="linear",
        position_bias="xl",
        commitment=1e-4,
        decay=0.99,
        grad_through_cache=False,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        separate_losses(self)
        self.heads = whole("heads", heads)
        # Of one channel, a normalised key would be 0.
        self.key_size = whole("key_size", key_size, least=2)
        self.value_size = None if value_size is None else whole("value_size", value_size)
        self.codes = whole("codes", codes)
        self.block_length = whole("block_length", block_length)
        self.causal = causal
        self.gated = gated
        self.method = one_of("method", method, METHODS)
        self.position_bias = position_bias
        if position_bias is not None:
            one_of("position_bias", position_bias, POSITION_BIASES)
        self.commitment = number("commitment", commitment)
        if self.commitment < 0:
            raise ValueError(f"Expected a commitment of at least 0. Received: {commitment=}")
        self.decay = share("decay", decay)
        self.grad_through_cache = grad_through_cache
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self._value_size = self.value_size or self.key_size
        # The dtype of scores and sums.
        self._wide = "float64" if self.compute_dtype == "float64" else "float32"
        sizes = [*[self.key_size] * 2, *[self._value_size] * (2 if gated else 1)]
        self._sizes = [self.heads * size for size in sizes]
        self.input_dense = self._dense(sum(self._sizes), "input")
        self.supports_masking = True

    def _dense(self, units, name):
        start = self.kernel_initializer.clone()
        return keras.layers.Dense(units, None, False, start, dtype=self.dtype_policy, name=name)

    def build(self, input_shape):
        self.input_dense.build(input_shape)
        # Its width is the width of the input, known only here.
        self.output_dense = self._dense(input_shape[-1], "output")
        self.output_dense.build((*input_shape[:-1], self.heads * self._value_size))
        if self.position_bias == "xl":
            channels = self.key_size + self.key_size % 2  # a sine and a cosine of each angle
            shape = (channels, self.heads * self.key_size)
            kernel = self.kernel_initializer.clone()
            self.lag_kernel = self.add_weight(shape, kernel, name="lag_kernel")
            query = (self.heads, 1, self.key_size)
            self.lag_query = self.add_weight(query, "zeros", name="lag_query_bias")
        elif self.position_bias == "toeplitz":
            shape = (self.heads, 1, (1 if self.causal else 2) * self.block_length + 1)
            self.lag_bias = self.add_weight(shape, "zeros", name="lag_bias")
        shape = (self.heads, self.codes, self.key_size)
        self.code_sums = replica_state(self, shape, sphere, "code_sums")
        self.code_counts = replica_state(self, shape[:2], "ones", "code_counts")

    def codebook(self):
        """The codes of each head, float32 (heads, codes, key_size)."""
        return averaged_codebook(ops.copy(self.code_sums), ops.copy(self.code_counts))

    def call(self, inputs, mask=None, segment_ids=None, training=None):
        document = ops.zeros(ops.shape(inputs)[:2], "int32")
        if segment_ids is not None:
            document = document_runs(segment_ids)
        codebook = self.codebook()
        tokens, key, gate = self._tokens(inputs, mask, document, codebook)
        arguments = (tokens, *self._shared(codebook), self.block_length)
        length = inputs.shape[1]
        if self.method == "quadratic" or (length is not None and length <= 2 * self.block_length):
            gathered = quadratic_vq_attention(*arguments)
        else:
            gathered = linear_vq_attention(*arguments, self.grad_through_cache)
        if training and self.trainable:
            self._follow(key, tokens)
        return self._output(gathered, gate)

    def initial_state(self, batch_size):
        """What `step` needs before the first token.

        Args:
            batch_size: int.

        Returns:
            Dict of tensors of fixed shapes, `ops.vq_block`'s and the last `segment` (b,).
        """
        sizes = (self.heads, self.codes, self.block_length, self.key_size, self._value_size)
        state = empty_state(batch_size, *sizes, self._wide)
        return {**state, "segment": ops.zeros((batch_size,), "int32")}

    def step(self, inputs, state, mask=None, segment_ids=None):
        """The outputs of the next tokens, those that a call on all tokens gives.

        Args:
            inputs: (b, t, d), one token or some; memory is that of t (t + L + codes) scores.
            state: dict, as of `initial_state` or the step before.
            mask: (b, t) bool, true = token. None: all are tokens.
            segment_ids: (b, t) int, as those of a call. None: the document goes on.

        Returns:
            (b, t, d) in the compute dtype, and the state after these tokens.

        Raises:
            ValueError: without `causal`, and for a layer without weights.
        """
        if not self.causal or not self.built:
            raise ValueError(
                "Tokens can come one after the other only where none sees a later one, in a layer "
                f"that has its weights. Received: causal={self.causal}, built={self.built}"
            )
        last, segment = state["document"][:, -1:], state["segment"]
        if segment_ids is None:
            document = ops.broadcast_to(last, ops.shape(inputs)[:2])
        else:
            segment_ids = ops.cast(segment_ids, "int32")
            document = last + document_runs(segment_ids, segment)
            segment = segment_ids[:, -1]
        codebook = self.codebook()
        tokens, _, gate = self._tokens(inputs, mask, document, codebook)
        shared, _ = self._shared(codebook)
        state, (numerator, denominator, _) = attend_block(state, tokens, shared)
        gathered = numerator / ops.where(denominator > 0, denominator, 1)
        return self._output(gathered, gate), {**state, "segment": segment}

    def _tokens(self, inputs, mask, document, codebook):
        """The tokens as `attend_block` takes them, keys before they are quantised, and the gate."""
        inputs = ops.cast(inputs, self.compute_dtype)
        visible = ops.ones(ops.shape(inputs)[:2], "bool")
        if mask is not None:
            visible = ops.cast(mask, "bool")
            # Not a number at a hidden token would be one in the gradient of all; of numbers its
            # query is made.
            kept = ops.expand_dims(visible, -1) | ops.isfinite(inputs)
            inputs = ops.where(kept, inputs, 0)
        projected = project_rows(self.input_dense, inputs)
        ends = [sum(self._sizes[: i + 1]) for i in range(len(self._sizes) - 1)]
        query, key, value, *gate = ops.split(projected, ends, axis=-1)
        value = ops.silu(value) if self.gated else value
        split = (split_heads(x, self.heads, self._wide) for x in (query, key, value))
        query, key, value = split
        query, key = normalize_head(query), normalize_head(key)
        code = nearest_codes(key, codebook, self.block_length)
        quantised = code_vectors(ops.cast(codebook, self._wide), code)
        tokens = {
            "query": query,
            # The code in value, the key in gradient.
            "key": quantised + (key - ops.stop_gradient(key)),
            "code": code,
            "value": value,
            "visible": visible,
            "document": document,
        }
        return tokens, key, gate

    def _follow(self, key, tokens):
        """Moves the codebook towards the keys, and adds the loss that moves keys towards it."""
        averages, rows = (self.code_sums, self.code_counts), (tokens["code"], tokens["visible"])
        values = updated_averages(*map(ops.copy, averages), key, *rows, self.decay)
        for average, value in zip(averages, values, strict=True):
            average.assign(value)
        shown = ops.cast(tokens["visible"], self._wide)
        away = ops.sum(ops.square(key - ops.stop_gradient(tokens["key"])), (1, 3))  # (b, n)
        # Keras takes the mean of the losses of all replicas: here it is that over all tokens.
        (count,) = sum_over_replicas([ops.sum(shown)])
        count = count / (replica_count() or 1)
        self.add_loss(self.commitment * ops.sum(away * shown) / ops.where(count > 0, count, 1))

    def _shared(self, codebook):
        """The codebook and the biases for the tokens before a query, and for those after it."""
        codebook = {"codebook": ops.cast(codebook, self._wide)}
        before = {**codebook, **self._biases(1)}
        return before, None if self.causal else {**codebook, **self._biases(-1)}

    def _biases(self, sign):
        """The biases of the lags L, ..., 0 times a sign, as `attend_block` takes them."""
        if self.position_bias is None:
            return {}
        if self.position_bias == "toeplitz":
            return toeplitz_biases(ops.cast(self.lag_bias, self._wide), self.block_length, sign)
        weights = (ops.cast(weight, self._wide) for weight in (self.lag_kernel, self.lag_query))
        return xl_biases(*weights, self.block_length, sign)

    def _output(self, gathered, gate):
        """The output of what each head has gathered, (b, h, n, value_size)."""
        mixed = join_heads(gathered, self.compute_dtype)
        if self.gated:
            mixed = ops.silu(gate[0]) * mixed
        return project_rows(self.output_dense, mixed)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "heads": self.heads,
            "key_size": self.key_size,
            "value_size": self.value_size,
            "codes": self.codes,
            "block_length": self.block_length,
            "causal": self.causal,
            "gated": self.gated,
            "method": self.method,
            "position_bias": self.position_bias,
            "commitment": self.commitment,
            "decay": self.decay,
            "grad_through_cache": self.grad_through_cache,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
