"""One side of `amed.py speed`, in a process of its own.

python amed_side.py '{"side": "keras_ext/graph", "jobs": ["sample", ...], "sizes": {...}}'
"""

import math

import numpy as np
from diffusion_side import KerasSide, main

STEPS, INNER_STEPS, RATE = 4, 3, 0.05
JOBS = {"sample": f"{STEPS} steps, {2 * STEPS} calls", "train": "a training step"}
SCHEDULE = "vp_continuous"
LOW, HIGH = 0.1, 20.0


class KerasAMED(KerasSide):
    """The library's sampler and trainer around its UNet, on TensorFlow."""

    def __init__(self, sizes, mode):
        from keras_ext.diffusion import AMEDPredictor

        super().__init__(sizes, mode)
        self.predictor = AMEDPredictor(STEPS)

    def sample(self):
        """`amed_sample`, compiled."""
        from keras_ext.diffusion import amed_sample, compiled

        run = compiled(
            amed_sample,
            self.denoiser,
            SCHEDULE,
            STEPS,
            predictor=self.predictor,
            denoise=False,
            jit_compile=self.xla,
            variables=self.network.variables,
        )
        return lambda: np.array(run(self.noise).x)

    def train(self):
        """A step of `AMEDTrainer`, as `fit` makes it."""
        import keras

        from keras_ext.diffusion import AMEDTrainer

        trainer = AMEDTrainer(self.denoiser, SCHEDULE, self.predictor, inner_steps=INNER_STEPS)
        trainer.compile(keras.optimizers.Adam(RATE), jit_compile=self.xla)
        return lambda: trainer.train_on_batch(self.noise)


class TorchSide:
    """The same in PyTorch, plainly: the same layers, the same calls, one update for all steps.

    Args:
        sizes: see `KerasSide`.
        kind: not looked at.
    """

    packages = ("torch",)

    def __init__(self, sizes, kind):
        import torch
        from torch_unet import UNet

        torch.manual_seed(0)
        height, width, depth = sizes["input_shape"]
        self.batch = sizes["batch"]
        self.network = UNet(depth, sizes["channels"], sizes["blocks"]).requires_grad_(False)
        self.weights = sum(weight.numel() for weight in self.network.parameters())
        self.noise = torch.randn(self.batch, depth, height, width)
        self.table = torch.zeros(STEPS, 3, requires_grad=True)
        # Not from the library: TensorFlow and PyTorch do not bear one process.
        last = math.sqrt(math.expm1(1e-3 * (LOW + 0.5 * (HIGH - LOW) * 1e-3)))
        count = STEPS * (INNER_STEPS + 1)
        fine = np.linspace(80.0 ** (1 / 7), last ** (1 / 7), count + 1) ** 7
        self.fine, self.sigma = fine.tolist(), fine[:: INNER_STEPS + 1].tolist()

    def eps(self, u, sigma):
        """The network at u and sigma, a number or a tensor of one element."""
        import torch

        sigma = torch.as_tensor(sigma)
        integral = torch.log1p(sigma**2)
        t = 2 * integral / (LOW + torch.sqrt(LOW**2 + 2 * (HIGH - LOW) * integral))
        return self.network(u * torch.rsqrt(1 + sigma**2), t.expand(self.batch))

    def step(self, i, u, direction):
        """A student's step."""
        import torch

        r, q = self.sigma[i], self.sigma[i + 1]
        z = self.table[i]
        rho = 0.01 + 0.98 * torch.sigmoid(z[0])
        c, a = 1 + 0.5 * torch.tanh(z[1]), 1 + 0.2 * torch.tanh(z[2])
        s = torch.exp(rho * math.log(q) + (1 - rho) * math.log(r))
        return u + c * (q - r) * a * self.eps(u + (s - r) * direction, a * s)

    def first(self):
        """The noise in u."""
        return self.noise * math.sqrt(1 + self.sigma[0] ** 2)

    def sample(self):
        """All steps."""
        import torch

        def run():
            with torch.inference_mode():
                u = self.first()
                for i in range(STEPS):
                    u = self.step(i, u, self.eps(u, self.sigma[i]))
                return u.numpy()

        return run

    def train(self):
        """The teacher's points, then the student's steps from them."""
        import torch

        optimizer = torch.optim.Adam([self.table], RATE)

        def step():
            optimizer.zero_grad()
            u, total = self.first(), 0.0
            for i in range(STEPS):
                with torch.no_grad():
                    goal, direction = u, self.eps(u, self.sigma[i])
                    for j in range(INNER_STEPS + 1):
                        r, q = self.fine[i * (INNER_STEPS + 1) + j :][:2]
                        d = self.eps(goal, r)
                        end = goal + (q - r) * d
                        goal = goal + (q - r) * 0.5 * (d + self.eps(end, q))
                loss = ((self.step(i, u, direction) - goal) ** 2).mean()
                loss.backward()
                total += loss.item()
                u = goal
            optimizer.step()
            return total

        return step


SIDES = {
    "keras_ext/graph": (KerasAMED, "graph"),
    "keras_ext/XLA": (KerasAMED, "XLA"),
    "PyTorch, written plainly": (TorchSide, None),
}

if __name__ == "__main__":
    main(SIDES)
