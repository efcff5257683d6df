"""Does the memory of sampling grow with the steps, or that of training with those of the schedule?

Peaks of processes of their own, above what a built model holds.
"""

import argparse

import keras
import numpy as np
from memory import peak_memory
from timing import print_table

from keras_ext.diffusion import CustomSchedule, DenoisingDiffusion
from keras_ext.models import UNet


def model_of(shape, schedule):
    """A model of images, compiled."""
    keras.utils.set_random_seed(0)
    model = DenoisingDiffusion(UNet(shape), schedule, seed=0)
    model.compile("adam")
    return model


def sampling(sampler, steps, batch, shape):
    """A function that draws a batch in a number of steps."""
    model = model_of(shape, "cosine")
    return lambda: model.sample(batch, sampler, steps, seed=0).x


def training(steps, batch, shape):
    """A function that trains on a batch, with a schedule of a number of steps."""
    angles = np.linspace(0.0, 0.49 * np.pi, steps + 1)
    model = model_of(shape, CustomSchedule(np.cos(angles), np.sin(angles)))
    images = np.random.default_rng(0).uniform(-1.0, 1.0, (batch, *shape)).astype("float32")
    return lambda: model.train_on_batch(images)


def main(words=None):
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--shape", nargs=3, type=int, default=[8, 8, 1])
    parser.add_argument("--steps", nargs="+", type=int, default=[10, 100, 1000])
    parser.add_argument("--schedules", nargs="+", type=int, default=[100, 1000, 100_000])
    parser.add_argument("--samplers", nargs="+", default=["ddim", "ddpm", "heun"])
    arguments = parser.parse_args(words)
    shape, rows = tuple(arguments.shape), []
    for sampler in arguments.samplers:
        needed = [
            peak_memory(sampling, sampler, steps, arguments.batch, shape)
            for steps in arguments.steps
        ]
        rows.append((f"sampling, {sampler}", "steps", arguments.steps, needed))
    needed = [peak_memory(training, steps, arguments.batch, shape) for steps in arguments.schedules]
    rows.append(("training", "steps of the schedule", arguments.schedules, needed))
    table = [
        [job, what, ", ".join(map(str, counts)), ", ".join(f"{each:.0f}" for each in megabytes)]
        + [f"{megabytes[-1] / megabytes[0]:.2f}"]
        for job, what, counts, megabytes in rows
    ]
    title = f"{shape}, b={arguments.batch}: peak memory"
    print_table(title, ["job", "of", "counts", "MB", "last to first"], table)


if __name__ == "__main__":
    main()
