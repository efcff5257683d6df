"""Weights, gradients and runs of the tests of Tiger."""

import keras
import numpy as np

from tests.optimizers.steps import stepper, values

SHAPES = {"kernel": (3, 2), "embeddings": (4, 2), "gamma": (3,), "bias": (2,)}


def start(*names):
    """Weights by name, all within (-1, 1)."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    return {name: (0.3 * weights[name]).astype("float32") for name in names or SHAPES}


def variables_of(weights):
    return [keras.Variable(value, name=name) for name, value in weights.items()]


def random_gradients(weights, count, seed=1):
    rng = np.random.default_rng(seed)
    return [
        {name: rng.normal(size=value.shape).astype("float32") for name, value in weights.items()}
        for _ in range(count)
    ]


def exact_gradients(weights, count, seed=1):
    """Gradients whose sums are exact in float32."""
    rng = np.random.default_rng(seed)
    return [
        {name: rng.integers(-8, 9, v.shape).astype("float32") / 8 for name, v in weights.items()}
        for _ in range(count)
    ]


def spoil(gradients, where, names, bad=np.nan):
    """Puts a bad entry into the gradients of some micro-steps."""
    for t in where:
        for name in names:
            gradients[t][name].flat[t % gradients[t][name].size] = bad
    return gradients


def run(optimizer, weights, micro_steps, xla=False):
    """The weights, by name, after each micro-step."""
    variables = variables_of(weights)
    step = stepper(optimizer, variables, jit_compile=xla)
    found = []
    for gradients in micro_steps:
        step(list(gradients.values()))
        found.append(dict(zip(weights, values(variables), strict=True)))
    return found


def last(optimizer, weights, micro_steps, xla=False):
    return list(run(optimizer, weights, micro_steps, xla)[-1].values())
