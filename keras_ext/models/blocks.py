"""The parts that the graphs of the encoders have in common."""

from dataclasses import dataclass
from functools import partial

import keras

from keras_ext import activations
from keras_ext.layers.attention_mask import AttentionMask
from keras_ext.layers.drop_token import DropToken
from keras_ext.layers.multi_head_self_attention import MultiHeadSelfAttention
from keras_ext.ops.deepnorm import deepnorm_constants

RESIDUALS = ("post", "pre", "deepnorm")


def encoder_inputs(num_segments=2, custom_position_ids=False):
    """The inputs of an encoder, by name.

    Args:
        num_segments: int; 0: there is no input `segment_ids`.
        custom_position_ids: bool, whether `position_ids` are an input, too.

    Returns:
        Dict of `keras.Input`s: `token_ids` and `segment_ids` (b, n) int32, `padding_mask` (b, n)
        bool, true = token, `position_ids` (b, n) float32: positions may be fractions.
    """
    dtypes = {"token_ids": "int32", "segment_ids": "int32", "padding_mask": "bool"}
    if not num_segments:
        del dtypes["segment_ids"]
    if custom_position_ids:
        # Keras casts to the dtype of an input without a word. As int32 fractions would be cut; the
        # integers below 2^24 are float32 numbers.
        dtypes["position_ids"] = "float32"
    return {name: keras.Input((None,), dtype=dtype, name=name) for name, dtype in dtypes.items()}


def key_mask(inputs, column_dropout=0.0):
    """The tokens that attention may see: all, or in training a random share of them.

    Args:
        inputs: dict of the encoder's inputs.
        column_dropout: float in [0, 1), the share that no query sees, in no layer.

    Returns:
        (b, n) bool.

    Raises:
        ValueError: for a share outside of [0, 1).
    """
    mask = inputs["padding_mask"]
    if (
        not column_dropout
    ):  # a layer of random numbers would change those of all that are made later
        return mask
    drop = DropToken(column_dropout, mode="mask", name="Attention-Column-Dropout")
    return drop(inputs["token_ids"], mask=mask)[2]


def check_heads(hidden_dim, num_heads, head_size=None):
    """The channels of a head: `head_size`, or the width divided by the number of heads.

    Raises:
        ValueError: if they do not divide the width.
    """
    if num_heads < 1 or (head_size is None and hidden_dim % num_heads):
        raise ValueError(
            f"The number of heads must divide the width. Received: {hidden_dim=}, {num_heads=}"
        )
    return hidden_dim // num_heads if head_size is None else head_size


def attention_mask(inputs, application):
    """Which tokens see which, beside padding: None for an encoder.

    Args:
        inputs: dict of the encoder's inputs.
        application: "encoder", "lm" or "unilm".

    Returns:
        None, (1, n, n) or (b, n, n) bool.

    Raises:
        ValueError: for another application, or "unilm" without segments.
    """
    if application not in ("encoder", "lm", "unilm"):
        raise ValueError(
            f"Expected an application 'encoder', 'lm' or 'unilm'. Received: {application=}"
        )
    if application == "unilm" and "segment_ids" not in inputs:
        raise ValueError(
            "UniLM tells source and target apart by their segments. "
            f"Received: {application=}, num_segments=0"
        )
    if application == "encoder":
        return None
    name = {"lm": "Attention-LM-Mask", "unilm": "Attention-UniLM-Mask"}[application]
    ids = inputs["token_ids" if application == "lm" else "segment_ids"]
    return AttentionMask(application, name=name)(ids)


@dataclass(frozen=True, eq=False)
class Block:
    """One block of an encoder, as it stands in its graph.

    Attributes:
        layers: tuple of its layers, for each branch the layer itself first, then the dropout, the
            sum and the norm that join it to the residual stream. Blocks that share their weights
            have the same.
        output: symbolic tensor (b, n, d).
    """

    layers: tuple
    output: keras.KerasTensor


class Residual:
    """How the layers of an encoder are joined to the residual stream, and what follows from it.

        "post":      x = norm(x + dropout(layer(x)))
        "pre":       x = x + dropout(layer(norm(x))),  no norm of the embeddings, one of the output
        "deepnorm":  x = norm(alpha x + dropout(layer(x))),  kernels of the branches times beta

    alpha and beta are the paper's `deepnorm_constants`; kernels begin as Xavier's there.

    Args:
        kind: "post", "pre" or "deepnorm".
        num_layers: number of blocks of two layers each.
        dropout: float in [0, 1).
        norm: function of a name and a dtype policy that gives the normalisation.
        initializer: function that gives a new initializer of a kernel, where it is not Xavier's.
        policy: dtype policy of the layers.

    Raises:
        ValueError: for another `kind`.
    """

    def __init__(self, kind, num_layers, dropout, norm, initializer, policy):
        if kind not in RESIDUALS:
            raise ValueError(f"Expected a residual of {RESIDUALS}. Received: residual={kind!r}")
        self.kind = kind
        self.dropout = dropout
        self.norm = norm
        self.initializer = initializer
        self.policy = policy
        self.alpha, self.beta = deepnorm_constants(num_layers) if kind == "deepnorm" else (1.0, 1.0)

    def attention_kernels(self):
        """The arguments of an attention layer that say how its kernels begin."""
        if self.kind != "deepnorm":
            return {"kernel_initializer": self.initializer()}
        return {"kernel_initializer": xavier(1.0), "value_initializer": xavier(self.beta)}

    def branch_kernel(self):
        """The initializer of the other kernels in the branches."""
        return xavier(self.beta) if self.kind == "deepnorm" else self.initializer()

    def first_norm(self, x):
        """The normalised embeddings; they stay as they are before blocks that begin with a norm."""
        return x if self.kind == "pre" else self.norm(dtype=self.policy, name="Embedding-Norm")(x)

    def join(self, *layers):
        """The block of some layers, each joined to the residual stream.

        Args:
            *layers: layers, (b, n, d) to (b, n, d).

        Returns:
            A function of x (b, n, d) and the call arguments of the first layer that gives a
            `Block`. Called again, it shares all layers.
        """
        branches = [(layer, *self._joints(layer.name)) for layer in layers]

        def block(x, **call_arguments):
            for branch in branches:
                x = self.branch(branch, x, **call_arguments)
                call_arguments = {}
            return Block(sum(branches, ()), x)

        return block

    def last_norm(self, x):
        """The output; it is normalised after blocks that do not end with a norm."""
        return self.norm(dtype=self.policy, name="Output-Norm")(x) if self.kind == "pre" else x

    def _joints(self, name):
        # alpha, rounded to bfloat16, would be off by up to 0.2 %, the same way in every block.
        sum_policy = self.policy if self.alpha == 1.0 else "float32"
        return (
            keras.layers.Dropout(self.dropout, dtype=self.policy, name=f"{name}-Dropout"),
            keras.layers.Add(dtype=sum_policy, name=f"{name}-Add"),
            self.norm(dtype=self.policy, name=f"{name}-Norm"),
        )

    def branch(self, layers, x, **call_arguments):
        """`x` after one branch of a block.

        Args:
            layers: the layer, or a function in its place, and its dropout, sum and norm.
            x: (b, n, d).
            **call_arguments: those of the layer.

        Returns:
            (b, n, d).
        """
        layer, drop, add, norm = layers
        if self.kind == "pre":
            return add([x, drop(layer(norm(x), **call_arguments))])
        y = drop(layer(x, **call_arguments))
        x = x if self.alpha == 1.0 else self.alpha * keras.ops.cast(x, "float32")
        return norm(add([x, y]))


def xavier(gain):
    """The normal initializer of Xavier Glorot, of `gain` times the standard deviation."""
    return keras.initializers.VarianceScaling(gain**2, "fan_avg", "truncated_normal")


def self_attention(hidden_dim, num_heads, head_size, key_size, dropout, **choices):
    """What `transformer_block` takes as `attention`.

    Args:
        hidden_dim: int, width of the blocks.
        num_heads: int, attention heads.
        head_size: int, channels of a head, or None (`check_heads`).
        key_size: int, channels of a query and a key in a head. None: those of a head.
        dropout: float in [0, 1), on the attention weights.
        **choices: other arguments of `MultiHeadSelfAttention`.

    Raises:
        ValueError: if `num_heads` does not divide `hidden_dim`.
    """
    channels = check_heads(hidden_dim, num_heads, head_size)
    return partial(
        MultiHeadSelfAttention,
        num_heads,
        channels,
        key_size,
        hidden_dim,
        attention_dropout=dropout,
        **choices,
    )


def transformer_block(name, residual, attention, feed_forward):
    """The block of attention and feed-forward.

    Args:
        name: that of the block, such as "Transformer-0", with which its layers' begin.
        residual: `Residual`, which joins them and says how their kernels begin.
        attention: function of the other arguments of a layer (`functools.partial`) that gives the
            `MultiHeadSelfAttention`.
        feed_forward: the same for the `FeedForward`.

    Returns:
        A function, as of `Residual.join`.
    """
    policy = residual.policy
    attend = attention(
        **residual.attention_kernels(), dtype=policy, name=f"{name}-MultiHeadSelfAttention"
    )
    transform = feed_forward(
        kernel_initializer=residual.branch_kernel(), dtype=policy, name=f"{name}-FeedForward"
    )
    return residual.join(attend, transform)


def transformer_blocks(num_layers, residual, attention, feed_forward):
    """The blocks "Transformer-0", "Transformer-1", ..., each with layers of its own.

    A generator, which makes the layers of a block only after `stack` has called the block before
    it and so drawn its weights: a seed gives each encoder the weights that it always gave.
    """
    for i in range(num_layers):
        yield transformer_block(f"Transformer-{i}", residual, attention, feed_forward)


def stack(x, blocks, residual, **call_arguments):
    """What blocks give, one after the other, and the norm at their end, if there is one.

    Args:
        x: (b, n, d) tensor of the graph.
        blocks: iterable of functions, as of `Residual.join`.
        residual: `Residual`, which has joined their layers.
        **call_arguments: those of the first layer of each block.

    Returns:
        (b, n, d), and tuple of `Block`.
    """
    passed = []
    for block in blocks:
        passed.append(block(x, **call_arguments))
        x = passed[-1].output
    # A tuple, in which Keras looks for no layers: a list would be watched and wrapped.
    return residual.last_norm(x), tuple(passed)


def keep_arguments(model, arguments):
    """Keeps what an encoder was made with, as its attributes and as what `kept_config` gives.

    Args:
        model: the encoder, after `keras.Model.__init__`.
        arguments: dict, a copy of what `locals()` gave before `__init__` had any other names: so no
            argument can be forgotten.
    """
    model.dtype_policy = keras.dtype_policies.get(arguments["dtype"])
    model.trainable = arguments["trainable"]
    # Keras keeps these three itself, and Python adds the others.
    known = ("dtype", "trainable", "name", "self", "__class__")
    model._argument_names = tuple(name for name in arguments if name not in known)
    for name in model._argument_names:
        setattr(model, name, arguments[name])


def kept_config(model):
    """The config of an encoder: the arguments it was made with."""
    config = {name: getattr(model, name) for name in model._argument_names}
    if "activation" in config:
        config["activation"] = activations.serialize(model.activation)
    return {
        **config,
        "dtype": keras.dtype_policies.serialize(model.dtype_policy),
        "name": model.name,
        "trainable": model.trainable,
    }
