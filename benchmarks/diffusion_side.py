"""One side of diffusion_speed.py and diffusion_train.py, in a process of its own.

python diffusion_side.py '{"side": "keras_ext/graph", "jobs": ["ddim", ...], "sizes": {...}}'
"""

import importlib
import importlib.util
import json
import sys

import numpy as np
from sides import serve

DDIM_STEPS, HEUN_STEPS = 50, 20
LEARNING_RATE = 1e-4


class KerasSide:
    """Sampling and training with keras_ext on TensorFlow.

    Args:
        sizes: dict: `input_shape`, `channels`, `blocks` and `batch`.
        mode: "graph" or "XLA".
    """

    packages = ("keras", "tensorflow")

    def __init__(self, sizes, mode):
        import keras

        from keras_ext.models import UNet

        keras.utils.set_random_seed(0)
        self.xla = mode == "XLA"
        self.batch, self.shape = sizes["batch"], tuple(sizes["input_shape"])
        self.network = UNet(
            self.shape, channels=sizes["channels"], blocks_per_level=sizes["blocks"]
        )
        self.weights = self.network.count_params()
        rng = np.random.default_rng(0)
        self.noise = rng.normal(size=(self.batch, *self.shape)).astype("float32")

    def denoiser(self, x, t):
        """The network as samplers call it."""
        return self.network({"x": x, "t": t}, training=False)

    def network_alone(self):
        """50 calls of the network in a loop of the graph, and nothing else."""
        import tensorflow as tf
        from keras import ops

        @tf.function(jit_compile=self.xla, autograph=False)
        def calls(x):
            # Each call needs the one before, and another time, so that nothing can be left out.
            times = ops.linspace(1.0, 0.1, DDIM_STEPS)

            def call(i, x):
                return self.denoiser(x, ops.broadcast_to(ops.take(times, i), (self.batch,)))

            return ops.fori_loop(0, DDIM_STEPS, call, x)

        return lambda: calls(self.noise).numpy()

    def sampler_alone(self):
        """DDIM of 50 steps with a denoiser that takes no time."""
        from keras_ext.diffusion import ddim

        return self.sampling(ddim, DDIM_STEPS, lambda x, t: 0.5 * x)

    def sampling(self, sampler, steps, denoiser=None, **settings):
        """A compiled sampler of the library."""
        from keras_ext.diffusion import compiled

        sample = compiled(
            sampler,
            denoiser or self.denoiser,
            "linear_ho",
            steps,
            jit_compile=self.xla,
            variables=self.network.variables,
            **settings,
        )
        return lambda: np.array(sample(self.noise).x)

    def ddim(self):
        """DDIM of 50 steps."""
        from keras_ext.diffusion import ddim

        return self.sampling(ddim, DDIM_STEPS)

    def heun(self):
        """Heun's method of 20 steps: 39 calls."""
        from keras_ext.diffusion import ode_sample

        return self.sampling(ode_sample, HEUN_STEPS, solver="heun", end=0.0)

    def train(self):
        """A training step of `DenoisingDiffusion`, as `fit` makes it."""
        import keras

        from keras_ext.diffusion import DenoisingDiffusion

        model = DenoisingDiffusion(self.network, schedule="linear_ho", seed=0)
        model.compile(keras.optimizers.Adam(LEARNING_RATE), jit_compile=self.xla)
        images = np.clip(self.noise, -1.0, 1.0)
        return lambda: model.train_on_batch(images)


class TorchSide:
    """The same on PyTorch: a plain U-Net of the same layers, or the one of diffusers.

    Args:
        sizes: see `KerasSide`.
        kind: "torch" or "diffusers".
    """

    packages = ("torch", "diffusers")

    def __init__(self, sizes, kind):
        import torch

        torch.manual_seed(0)
        height, width, depth = sizes["input_shape"]
        self.batch, self.shape = sizes["batch"], (depth, height, width)
        if kind == "torch":
            from torch_unet import UNet

            self.network = UNet(depth, sizes["channels"], sizes["blocks"])
        else:
            self.network = diffusers_unet(sizes)
        self.kind = kind
        self.weights = sum(weight.numel() for weight in self.network.parameters())
        self.noise = torch.randn(self.batch, *self.shape)

    def predict(self, x, t):
        """What the network says at an integer time."""
        if self.kind == "torch":
            return self.network(x, t / 1000.0)
        return self.network(x, t).sample

    def network_alone(self):
        """50 calls of the network."""
        import torch

        def calls():
            x = self.noise
            t = torch.full((self.batch,), 999)
            with torch.inference_mode():
                for _ in range(DDIM_STEPS):
                    x = self.predict(x, t)
            return x.numpy()

        return calls

    def sampler_alone(self):
        """DDIM of 50 steps with a denoiser that takes no time."""
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
        return self.sampling(scheduler, DDIM_STEPS, lambda x, t: 0.5 * x)

    def sampling(self, scheduler, steps, predict=None):
        """The loop of diffusers' documentation."""
        import torch

        predict = predict or self.predict

        def sample():
            scheduler.set_timesteps(steps)
            x = self.noise * scheduler.init_noise_sigma
            with torch.inference_mode():
                for t in scheduler.timesteps:
                    scaled = scheduler.scale_model_input(x, t)
                    times = t.expand(self.batch)
                    x = scheduler.step(predict(scaled, times), t, x).prev_sample
            return x.numpy()

        return sample

    def ddim(self):
        """DDIM of 50 steps."""
        from diffusers import DDIMScheduler

        return self.sampling(
            DDIMScheduler(clip_sample=False, timestep_spacing="trailing"), DDIM_STEPS
        )

    def heun(self):
        """Heun's method of 20 steps: 39 calls."""
        from diffusers import HeunDiscreteScheduler

        return self.sampling(HeunDiscreteScheduler(use_karras_sigmas=True), HEUN_STEPS)

    def train(self):
        """The step of diffusers' training example: noise, prediction, mean square, Adam."""
        import torch
        from diffusers import DDPMScheduler

        scheduler = DDPMScheduler()
        optimizer = torch.optim.Adam(self.network.parameters(), LEARNING_RATE)
        images = self.noise.clamp(-1.0, 1.0)
        self.network.train()

        def step():
            noise = torch.randn_like(images)
            t = torch.randint(0, 1000, (self.batch,))
            predicted = self.predict(scheduler.add_noise(images, noise, t), t)
            loss = torch.nn.functional.mse_loss(predicted, noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return step


def diffusers_unet(sizes):
    """The `UNet2DModel` whose number of weights is nearest to that of ours."""
    import torch
    from diffusers import UNet2DModel

    height, _, depth = sizes["input_shape"]
    levels = len(sizes["channels"])

    def make(first, growth):
        return UNet2DModel(
            sample_size=height,
            in_channels=depth,
            out_channels=depth,
            layers_per_block=sizes["blocks"],
            block_out_channels=tuple(8 * round(first / 8 * growth**i) for i in range(levels)),
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            norm_num_groups=8,
            add_attention=False,
        )

    def distance(choice):
        with torch.device("meta"):
            count = sum(weight.numel() for weight in make(*choice).parameters())
        return abs(count - sizes["weights"])

    widest = sizes["channels"][0] + 8
    choices = [(first, growth) for first in range(8, widest, 8) for growth in (1.0, 1.5, 2.0)]
    return make(*min(choices, key=distance))


SIDES = {
    "keras_ext/graph": (KerasSide, "graph"),
    "keras_ext/XLA": (KerasSide, "XLA"),
    "PyTorch, the same network": (TorchSide, "torch"),
    "diffusers' UNet2DModel": (TorchSide, "diffusers"),
}


def main(sides=None):
    """Answers what it has compiled, then runs a job for each line."""
    arguments = json.loads(sys.argv[1])
    make, kind = (sides or SIDES)[arguments["side"]]
    missing = [name for name in make.packages if importlib.util.find_spec(name) is None]
    if missing:
        print(json.dumps({"missing": missing}), flush=True)
        return
    side = make(arguments["sizes"], kind)
    functions = [getattr(side, job)() for job in arguments["jobs"]]
    for function in functions:
        function()
        function()
    modules = {name: importlib.import_module(name) for name in make.packages}
    versions = {name: getattr(module, "__version__", "") for name, module in modules.items()}
    serve(functions, {"weights": side.weights, "versions": versions}, [1] * len(functions))


if __name__ == "__main__":
    main()
