"""Tiger in NumPy and float64, from its formulas: as it was published, and as it is here."""

import re

import numpy as np


def published(weights, micro_steps, rate, steps, beta=0.965, weight_decay=0.01, shrink_ratio=0.99):
    """The published update: momentum and weights are written in every micro-step.

    Args:
        weights: dict of arrays by name.
        micro_steps: list of dicts of gradients.
        rate: function of the number of micro-steps so far.
        steps: int, k, micro-steps in a window.
        beta: float.
        weight_decay: float.
        shrink_ratio: float.

    Yields:
        After each micro-step the weights.
    """
    weights = {name: value.astype("float64") for name, value in weights.items()}
    momentums = {name: np.zeros(value.shape) for name, value in weights.items()}
    for t, gradients in enumerate(micro_steps):
        for name, v in weights.items():
            bad = np.isnan(gradients[name]).any()
            gradient = 0.0 if bad else gradients[name].astype("float64")
            decay = 1.0 if bad or t % steps else beta
            m = momentums[name] = decay * momentums[name] + (1 - beta) / steps * gradient
            eta, decays = rate(t), True
            if re.search("bias|beta|gamma", name):
                eta, decays = 0.5 * eta, False
            elif "embeddings" in name:
                eta = eta * np.sqrt(np.mean(v**2, axis=-1, keepdims=True))
            else:
                eta = eta * np.sqrt(np.mean(v**2))
            center = 1.0 if "gamma" in name else 0.0
            if bad:
                weights[name] = (v - center) * shrink_ratio + center
            elif (t + 1) % steps == 0:
                weights[name] = v - eta * (np.sign(m) + weight_decay * decays * v)
        yield dict(weights)


def ours(
    weights,
    micro_steps,
    rate,
    steps,
    beta=0.965,
    weight_decay=0.01,
    shrink_ratio=0.99,
    min_rms=1e-3,
    nonfinite="skip",
    nonfinite_scope="variable",
    lazy_rows=False,
):
    """The update of keras_ext: all of it at the end of a window, from the gradients kept till then.

    Args:
        weights: dict of arrays by name.
        micro_steps: list of dicts of gradients, whole windows.
        rate: function of the number of updates so far.
        steps: int, k, micro-steps in a window.
        beta: float.
        weight_decay: float.
        shrink_ratio: float.
        min_rms: float.
        nonfinite: "shrink" or "skip".
        nonfinite_scope: "variable" or "global".
        lazy_rows: bool.

    Yields:
        After each window the weights.
    """
    weights = {name: value.astype("float64") for name, value in weights.items()}
    momentums = {name: np.zeros(value.shape) for name, value in weights.items()}
    for update in range(len(micro_steps) // steps):
        window = micro_steps[update * steps : (update + 1) * steps]
        for name, v in weights.items():
            judged = [[name] if nonfinite_scope == "variable" else list(weights) for _ in window]
            good = [
                gradients[name].astype("float64")
                for gradients, names in zip(window, judged, strict=True)
                if all(np.isfinite(gradients[each]).all() for each in names)
            ]
            center = 1.0 if name in ("gamma", "scale") else 0.0
            if not good:
                if nonfinite == "shrink":
                    weights[name] = center + shrink_ratio * (v - center)
                continue
            m = momentums[name] = beta * momentums[name] + (1 - beta) * sum(good) / steps
            vector = name in ("bias", "beta", "gamma", "scale") or v.ndim <= 1
            axis = -1 if name == "embeddings" else None
            rms = np.sqrt(np.mean(v**2, axis=axis, keepdims=True))
            eta = rate(update) * (0.5 if vector else np.maximum(rms, min_rms))
            if lazy_rows and name == "embeddings":
                eta = eta * np.any([np.any(g != 0, axis=-1, keepdims=True) for g in good], axis=0)
            weights[name] = v - eta * (np.sign(m) + (0.0 if vector else weight_decay) * v)
        yield dict(weights)
