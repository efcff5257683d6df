"""Are our samples those of diffusers' schedulers, and where do they differ?

A mixture of Gaussians whose noise prediction is known in closed form is sampled by diffusers' DDIM,
Euler, Heun and DPM++ 2M on its grids of times, and by ours on the same knots; and on ours where its
grid and its steps disagree.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from mixture import Mixture

COUNT, TRAINED = 256, 1000
# Scheduler, its arguments, and by what we sample.
SCHEDULERS = {
    "DDIM": ("DDIMScheduler", {"clip_sample": False}, "ddim"),
    "Euler": ("EulerDiscreteScheduler", {}, "euler"),
    "Heun": ("HeunDiscreteScheduler", {}, "heun"),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"final_sigmas_type": "zero"}, "dpmpp_2m"),
}
SPACINGS = {"DDIM": ["trailing", "leading", "linspace"]}
STEPS = (10, 30, 50)  # 30 does not divide 1000


def start():
    """The noise that both sides begin with, standard normal."""
    return np.random.default_rng(0).normal(size=(COUNT, 2))


def predicted(alphas_cumprod, x, t):
    """The expected noise at an integer time of diffusers, which counts from 0."""
    alpha, beta = np.sqrt(alphas_cumprod[t]), np.sqrt(1 - alphas_cumprod[t])
    return Mixture().eps(x, np.full(len(x), alpha), np.full(len(x), beta))


def diffusers_side(path):
    """Writes what diffusers' schedulers give, with the times at which they call the network."""
    import diffusers
    import torch

    found = {"version": diffusers.__version__}
    for name, (scheduler, arguments, _) in SCHEDULERS.items():
        for spacing in SPACINGS.get(name, ["trailing", "linspace"]):
            for steps in STEPS:
                sampler = getattr(diffusers, scheduler)(
                    beta_start=1e-4, beta_end=0.02, timestep_spacing=spacing, **arguments
                )
                sampler.set_timesteps(steps)
                cumulated = sampler.alphas_cumprod.numpy().astype("float64")
                x = torch.tensor(start()) * float(sampler.init_noise_sigma)
                for t in sampler.timesteps:
                    scaled = sampler.scale_model_input(x, t).numpy()
                    # Euler and Heun stand between the integers: their own sigma tells where.
                    value = predicted(interpolated(cumulated), scaled, float(t))
                    x = sampler.step(torch.tensor(value), t, x).prev_sample
                times = list(dict.fromkeys(float(t) for t in sampler.timesteps))
                found[f"{name}/{spacing}/{steps}/x"] = x.numpy()
                found[f"{name}/{spacing}/{steps}/times"] = np.array(times)
    np.savez(path, **found)


def missed(name, times):
    """How many hops of diffusers end elsewhere than where the next one begins.

    DDIM computes the end of a hop by a stride, and does not look at its grid.
    """
    if name != "DDIM":
        return 0
    ends = times - TRAINED // len(times)
    return int(np.sum(ends[:-1] != times[1:]) + (ends[-1] >= 0))


class interpolated:
    """Cumulated alphas between the integers, as diffusers interpolates sigma: linearly."""

    def __init__(self, cumulated):
        self.sigma = np.sqrt((1 - cumulated) / cumulated)

    def __getitem__(self, t):
        sigma = np.interp(t, np.arange(len(self.sigma)), self.sigma)
        return 1 / (1 + sigma**2)


def ours(kind, times):
    """What our sampler gives on the knots at which diffusers calls the network, and then 0."""
    from keras_ext import diffusion

    schedule = diffusion.schedules.get("linear_ho")
    knots = [*((times + 1) / TRAINED), 0.0]
    denoiser = Mixture().denoiser(schedule, xp=np)
    noise = start().astype("float32")
    arguments = {"steps": len(times), "spacing": knots}
    if kind == "ddim":
        return np.array(diffusion.ddim(denoiser, schedule, noise, **arguments).x)
    # diffusers begins in u = x / alpha with noise of its own size, sqrt(sigma^2 + 1): x itself.
    arguments |= {"solver": kind, "start": knots[0], "end": 0.0}
    return np.array(diffusion.ode_sample(denoiser, schedule, noise, **arguments).x)


def main(words=None):
    """Compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--diffusers", help="write that side's samples to this file, and end")
    arguments = parser.parse_args(words)
    if arguments.diffusers:
        return diffusers_side(arguments.diffusers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "diffusers.npz"
        command = [sys.executable, __file__, "--diffusers", str(path)]
        # PyTorch and TensorFlow do not get on in one process.
        subprocess.run(command, check=True, env={**os.environ, "KERAS_BACKEND": "torch"})
        with np.load(path) as file:
            found = dict(file)
    print(f"diffusers {found.pop('version')}, {COUNT} samples of five Gaussians.\n")
    print(
        "| scheduler | spacing | steps | median difference | largest | hops that miss the next knot |"
    )
    print("|---|---|---|---|---|---|")
    for key in [key for key in found if key.endswith("/x")]:
        name, spacing, steps, _ = key.split("/")
        times = found[key.replace("/x", "/times")]
        difference = np.abs(found[key] - ours(SCHEDULERS[name][2], times)).max(axis=1)
        print(
            f"| {name} | {spacing} | {steps} | {np.median(difference):.1e} "
            f"| {difference.max():.1e} | {missed(name, times)} |"
        )


if __name__ == "__main__":
    main()
