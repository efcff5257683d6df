"""One side of `quantizers.py speed`, in a process of its own; see diffusion_side.py."""

import numpy as np
from diffusion_side import main

LEVELS = [8, 5, 5, 5]
JOBS = {
    "averages": "VQ, averages",
    "dead_codes": "k-means, dead codes",
    "rotation": "rotation trick",
    "scalar": "FSQ",
}
DECAY, COMMITMENT = 0.99, 0.25


def vectors(sizes, width):
    """Inputs of a quantiser, 64 sequences."""
    shape = (64, sizes["vectors"] // 64, width)
    return np.random.default_rng(0).normal(size=shape).astype("float32")


class KerasQuantizers:
    """The layers of keras_ext on TensorFlow.

    Args:
        sizes: dict: `vectors`, how many there are, their `width`, and `codes`.
        mode: "graph" or "XLA".
    """

    packages = ("keras", "tensorflow")

    def __init__(self, sizes, mode):
        self.sizes, self.xla = sizes, mode == "XLA"
        self.weights = sizes["codes"] * sizes["width"]

    def step(self, quantizer, width):
        """Forward, backward to the inputs, and the update of the codebook."""
        import tensorflow as tf

        x = tf.constant(vectors(self.sizes, width))
        quantizer.build(x.shape)

        @tf.function(jit_compile=self.xla, autograph=False)
        def trained(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                codes, indices, loss = quantizer(
                    x, training=True, return_indices=True, return_loss=True
                )
                loss = tf.reduce_sum(codes) + loss
            return tape.gradient(loss, x), indices

        return lambda: [part.numpy() for part in trained(x)]

    def vq(self, **settings):
        """A step of vector quantisation."""
        from keras_ext.layers import VectorQuantizer

        settings = {"decay": DECAY, "commitment": COMMITMENT, **settings}
        layer = VectorQuantizer(self.sizes["codes"], self.sizes["width"], **settings)
        return self.step(layer, self.sizes["width"])

    def averages(self):
        """Averages alone."""
        return self.vq(kmeans_steps=None)

    def dead_codes(self):
        """Begun by k-means, with dead codes replaced."""
        return self.vq(threshold_dead=0.1)

    def rotation(self):
        """Averages, and the rotation trick."""
        return self.vq(kmeans_steps=None, gradient="rotation")

    def scalar(self):
        """Finite scalar quantisation."""
        from keras_ext.layers import FSQ

        return self.step(FSQ(LEVELS), len(LEVELS))


class TorchQuantizers:
    """The modules of vector-quantize-pytorch.

    Args:
        sizes: see `KerasQuantizers`.
        kind: not used.
    """

    packages = ("torch", "vector_quantize_pytorch")

    def __init__(self, sizes, kind):
        self.sizes = sizes
        self.weights = sizes["codes"] * sizes["width"]

    def step(self, quantizer, width):
        """Forward, backward to the inputs, and the update of the codebook."""
        import torch

        x = torch.from_numpy(vectors(self.sizes, width)).requires_grad_()
        quantizer.train()

        def trained():
            x.grad = None
            codes, indices, *loss = quantizer(x)
            (codes.sum() + sum(part.sum() for part in loss)).backward()
            return x.grad.numpy(), indices.numpy()

        return trained

    def vq(self, **settings):
        """A step of vector quantisation."""
        from vector_quantize_pytorch import VectorQuantize

        settings = {"decay": DECAY, "commitment_weight": COMMITMENT, **settings}
        settings = {"rotation_trick": False, **settings}
        module = VectorQuantize(
            dim=self.sizes["width"], codebook_size=self.sizes["codes"], **settings
        )
        return self.step(module, self.sizes["width"])

    def averages(self):
        """Averages alone."""
        return self.vq()

    def dead_codes(self):
        """Begun by k-means, with dead codes replaced."""
        return self.vq(kmeans_init=True, threshold_ema_dead_code=1)

    def rotation(self):
        """Averages, and the rotation trick."""
        return self.vq(rotation_trick=True)

    def scalar(self):
        """Finite scalar quantisation."""
        from vector_quantize_pytorch import FSQ

        return self.step(FSQ(LEVELS), len(LEVELS))


SIDES = {
    "keras_ext/graph": (KerasQuantizers, "graph"),
    "keras_ext/XLA": (KerasQuantizers, "XLA"),
    "vector-quantize-pytorch": (TorchQuantizers, "torch"),
}

if __name__ == "__main__":
    main(SIDES)
