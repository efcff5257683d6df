import keras

from keras_ext.models.blocks import keep_arguments, kept_config
from keras_ext.models.denoising import (
    check_classes,
    check_dropout,
    denoiser_inputs,
    embed_condition,
)
from keras_ext.ops.settings import whole


@keras.saving.register_keras_serializable(package="keras_ext")
class MLPDenoiser(keras.Model):
    """A network that tells noise from data, for vectors: points, tables, features.

        x = P x
        x = x + W_2 dropout(swish(W_1 LayerNorm(x) + W_c c)),  num_layers times
        output = Q swish(LayerNorm(x))

    where c is what `TimeEmbedding` and an embedding of the class give, and each product but that has
    a bias. W_2 and Q begin as 0, and so does the output.

    A functional model.

    Args:
        input_dim: int, the length of a vector.
        hidden_dim: int, even: width of the blocks. Defaults to 128.
        num_layers: int, number of blocks. Defaults to 3.
        num_classes: int; None: there is no input `label`.
        dropout: float in [0, 1). Defaults to 0.
        dtype: dtype policy of the layers; norms and what is told of time and class are float32 in each.

    Inputs, a dict:
        x: (b, input_dim) float32.
        t: (b,) float32, the time: 0 data, 1 noise.
        label: (b,) int32 from 0 to `num_classes`, which stands for no class. Only with
            `num_classes`.

    Returns:
        (b, input_dim) in the compute dtype.

    Raises:
        ValueError: for an odd `hidden_dim`, or a number out of its range.

    Example:

    >>> import numpy as np
    >>> network = MLPDenoiser(2, hidden_dim=16)
    >>> batch = {"x": np.ones((3, 2), "float32"), "t": np.array([0.0, 0.5, 1.0], "float32")}
    >>> tuple(network(batch).shape)
    (3, 2)

    Source: Jonathan Ho, Ajay Jain, Pieter Abbeel, Denoising Diffusion Probabilistic Models, 2020,
    https://arxiv.org/abs/2006.11239
    """

    def __init__(
        self,
        input_dim,
        hidden_dim=128,
        num_layers=3,
        num_classes=None,
        dropout=0.0,
        dtype=None,
        name=None,
        trainable=True,
    ):
        input_dim, hidden_dim = whole("input_dim", input_dim), whole("hidden_dim", hidden_dim)
        num_layers = whole("num_layers", num_layers)
        num_classes = check_classes(num_classes)
        dropout = check_dropout(dropout)
        arguments = dict(locals())
        policy = keras.dtype_policies.get(dtype)

        def dense(units, name, **choices):
            return keras.layers.Dense(units, dtype=policy, name=name, **choices)

        def norm(name):
            return keras.layers.LayerNormalization(epsilon=1e-5, dtype=policy, name=name)

        def swish(name):
            return keras.layers.Activation("swish", dtype=policy, name=name)

        # === Functional model ===
        inputs = denoiser_inputs((input_dim,), num_classes)
        condition = embed_condition(inputs, hidden_dim, num_classes)
        x = dense(hidden_dim, "Input-Dense")(inputs["x"])
        for i in range(num_layers):
            block = f"Block-{i}"
            y = dense(hidden_dim, f"{block}-Dense-0")(norm(f"{block}-Norm")(x))
            told = dense(hidden_dim, f"{block}-Condition", use_bias=False)(condition)
            y = keras.layers.Add(dtype=policy, name=f"{block}-Condition-Add")([y, told])
            y = swish(f"{block}-Swish")(y)
            y = keras.layers.Dropout(dropout, dtype=policy, name=f"{block}-Dropout")(y)
            y = dense(hidden_dim, f"{block}-Dense-1", kernel_initializer="zeros")(y)
            x = keras.layers.Add(dtype=policy, name=f"{block}-Add")([x, y])
        x = swish("Output-Swish")(norm("Output-Norm")(x))
        x = dense(input_dim, "Output-Dense", kernel_initializer="zeros")(x)
        super().__init__(inputs, x, name=name)
        keep_arguments(self, arguments)

    def get_config(self):
        return kept_config(self)
