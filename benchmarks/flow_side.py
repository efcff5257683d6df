"""One side of `flows.py speed`, in a process of its own; see diffusion_side.py."""

import numpy as np
from diffusion_side import LEARNING_RATE, KerasSide, TorchSide, main

EULER_STEPS, HEUN_STEPS = 50, 25


class KerasFlow(KerasSide):
    """Rectified flow with keras_ext on TensorFlow."""

    def model(self):
        """A `RectifiedFlow`, compiled."""
        import keras

        from keras_ext.diffusion import RectifiedFlow

        model = RectifiedFlow(self.network, seed=0)
        model.compile(keras.optimizers.Adam(LEARNING_RATE), jit_compile=self.xla)
        return model

    def euler(self):
        """Euler's method of 50 steps."""
        model = self.model()
        return lambda: np.asarray(model.sample(self.noise, EULER_STEPS).x)

    def heun(self):
        """Heun's method of 25 steps: as many calls."""
        model = self.model()
        return lambda: np.asarray(model.sample(self.noise, HEUN_STEPS, "heun").x)

    def train(self):
        """A training step, as `fit` makes it."""
        model, images = self.model(), np.clip(self.noise, -1.0, 1.0)
        return lambda: model.train_on_batch(images)


class TorchFlow(TorchSide):
    """The same in PyTorch, written plainly."""

    packages = ("torch",)

    def euler(self):
        """x <- x - v / steps."""
        import torch

        def sample():
            x = self.noise
            with torch.inference_mode():
                for i in range(EULER_STEPS):
                    t = torch.full((self.batch,), 1 - i / EULER_STEPS)
                    x = x - self.network(x, t) / EULER_STEPS
            return x.numpy()

        return sample

    def heun(self):
        """A step with the velocity where it begins, one with the mean of that and where it ends."""
        import torch

        def sample():
            x, h = self.noise, 1 / HEUN_STEPS
            with torch.inference_mode():
                for i in range(HEUN_STEPS):
                    t = torch.full((self.batch,), 1 - i * h)
                    first = self.network(x, t)
                    second = self.network(x - h * first, t - h)
                    x = x - 0.5 * h * (first + second)
            return x.numpy()

        return sample

    def train(self):
        """Times, noise, the line between, the mean square of the error, Adam."""
        import torch

        optimizer = torch.optim.Adam(self.network.parameters(), LEARNING_RATE)
        images = self.noise.clamp(-1.0, 1.0)
        self.network.train()

        def step():
            noise, t = torch.randn_like(images), torch.rand(self.batch)
            along = t[:, None, None, None]
            predicted = self.network((1 - along) * images + along * noise, t)
            loss = torch.nn.functional.mse_loss(predicted, noise - images)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return step


SIDES = {
    "keras_ext/graph": (KerasFlow, "graph"),
    "keras_ext/XLA": (KerasFlow, "XLA"),
    "PyTorch, written plainly": (TorchFlow, "torch"),
}

if __name__ == "__main__":
    main(SIDES)
