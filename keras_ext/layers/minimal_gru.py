import keras
from keras import ops

from keras_ext import activations
from keras_ext.ops.linear_recurrence import linear_recurrence
from keras_ext.ops.settings import whole


@keras.saving.register_keras_serializable(package="keras_ext")
class MinimalGRU(keras.layers.Layer):
    """A gated recurrent layer whose gates come from the input alone: all steps are one scan.

        z_t = sigmoid(u_t W_z + b_z),  c_t = f(u_t W_c + b_c),  h_t = (1 - z_t) h_{t-1} + z_t c_t

    As h_{t-1} is in no gate, the recurrence is linear, and `ops.linear_recurrence` has all states
    in O(log n) operations one after the other; nothing is iterated, as `ParallelRNN` does for cells
    that are not linear. The recurrence is computed in float32, or float64, whatever the policy.

    Args:
        units: int, width of the state.
        activation: name or function f. None: c_t is linear, as in the paper.
        use_bias: bool.
        kernel_initializer: of the kernel (k, 2 units), which is W_z and W_c.
        return_sequences: bool, whether all outputs are returned, or the last.
        return_state: bool, whether the last state is returned, too.

    Call arguments:
        inputs: (b, n, k).
        mask: (b, n) bool, true = token. A step that is none keeps the state, and gives it again;
            its inputs are not read, and may be NaN.
        initial_state: (b, units), h_0, or a list of it. None: zeros.

    Returns:
        (b, n, units), or (b, units), in the compute dtype; with `return_state` also (b, units).

    Raises:
        ValueError: for `units` that are no int of at least 1, or inputs that are not of rank 3.

    Example:

    >>> import numpy as np
    >>> layer, x = MinimalGRU(4), np.ones((2, 5, 3), "float32")
    >>> outputs = layer(x)
    >>> state = layer.initial_state(2)
    >>> for t in range(5):
    ...     output, state = layer.step(x[:, t], state)
    >>> np.allclose(outputs[:, -1], output, atol=1e-6)
    True

    Source: Leo Feng, Frederick Tung, Mohamed Osama Ahmed, Yoshua Bengio and Hossein Hajimirsadeghi,
    Were RNNs all we needed?, 2024, https://arxiv.org/abs/2410.01201
    """

    def __init__(
        self,
        units,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        return_sequences=True,
        return_state=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = whole("units", units)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.project = keras.layers.Dense(
            2 * self.units,
            use_bias=use_bias,
            kernel_initializer=self.kernel_initializer,
            dtype=self.dtype_policy,
            name="project",
        )
        self.supports_masking = True

    def build(self, inputs_shape, initial_state_shape=None):
        _check_rank(inputs_shape)
        self.project.build(inputs_shape)

    def call(self, inputs, mask=None, initial_state=None):
        if mask is not None:
            mask = ops.cast(mask, "bool")[..., None]
            # Before the kernel, too: NaN times a gradient of zero would be NaN.
            inputs = ops.where(mask, inputs, 0)
        z, c = self._gates(inputs)
        if mask is not None:
            z, c = (ops.where(mask, x, 0) for x in (z, c))
        if initial_state is None:
            initial_state = ops.zeros_like(z[:, 0])
        elif isinstance(initial_state, (list, tuple)):
            (initial_state,) = initial_state
        z, c = ops.swapaxes(z, 0, 1), ops.swapaxes(c, 0, 1)
        states = linear_recurrence(1 - z, z * c, initial_state)
        states = ops.cast(states, self.compute_dtype)
        last = states[-1]
        outputs = ops.swapaxes(states, 0, 1) if self.return_sequences else last
        return (outputs, last) if self.return_state else outputs

    def initial_state(self, batch_size):
        """Zeros, (b, units)."""
        return ops.zeros((batch_size, self.units), self._dtype_of_recurrence())

    def step(self, inputs, state):
        """One step, for inputs that come one by one.

        Args:
            inputs: (b, k).
            state: (b, units), of `initial_state`, or of the step before.

        Returns:
            (b, units) in the compute dtype, and the new state.
        """
        z, c = self._gates(ops.cast(inputs, self.compute_dtype))
        state = (1 - z) * ops.cast(state, z.dtype) + z * c
        return ops.cast(state, self.compute_dtype), state

    def _gates(self, inputs):
        dtype = self._dtype_of_recurrence()
        z, c = ops.split(ops.cast(self.project(inputs), dtype), 2, axis=-1)
        return ops.sigmoid(z), self.activation(c)

    def _dtype_of_recurrence(self):
        return "float64" if self.compute_dtype == "float64" else "float32"

    def compute_mask(self, inputs, mask=None):
        mask = mask if self.return_sequences else None
        return [mask, None] if self.return_state else mask

    def compute_output_shape(self, inputs_shape, initial_state_shape=None):
        _check_rank(inputs_shape)
        last = (inputs_shape[0], self.units)
        outputs = (*inputs_shape[:2], self.units) if self.return_sequences else last
        return (outputs, last) if self.return_state else outputs

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
        }


def _check_rank(shape):
    if len(shape) != 3:
        raise ValueError(f"Expected inputs of (b, n, k). Received: shape={tuple(shape)}")
