"""How the layers of an encoder are joined to the residual stream."""

import keras

from keras_ext.models.blocks import post_norm, pre_norm
from keras_ext.ops.deepnorm import deepnorm_constants

RESIDUALS = ("post", "pre", "deepnorm")


class Residual:
    """The choice of `residual` in an encoder, and what follows from it.

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

    def join(self, layer):
        """The sub-block around a layer, a function of x and the call arguments of the layer."""
        if self.kind == "pre":
            return pre_norm(layer, self.dropout, self.norm)
        return post_norm(layer, self.dropout, self.norm, self.alpha)

    def last_norm(self, x):
        """The output; it is normalised after blocks that do not end with a norm."""
        return self.norm(dtype=self.policy, name="Output-Norm")(x) if self.kind == "pre" else x


def xavier(gain):
    """The normal initializer of Xavier Glorot, of `gain` times the standard deviation."""
    return keras.initializers.VarianceScaling(gain**2, "fan_avg", "truncated_normal")
