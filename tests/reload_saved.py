"""What a saved model computes: the part that runs in a fresh process, too.

Only `import keras_ext` makes the objects known.
"""

from pathlib import Path

import keras
import numpy as np

import keras_ext  # noqa: F401


def outputs_of(model, inputs):
    """What a model computes, by name, as float32 (which holds all half precision numbers).

    A model that was compiled with a loss or a metric computes that. One with an optimizer goes on
    training: then it is all the weights and slots that count.
    """
    if "train_x" in inputs:
        train(model, inputs["train_x"][3:], inputs["train_y"][3:])
        outputs = {f"weight_{i}": weight for i, weight in enumerate(model.weights)}
        outputs |= {f"slot_{i}": slot for i, slot in enumerate(model.optimizer.variables)}
    elif "y_true" in inputs:
        y_true, y_pred = inputs["y_true"], model(inputs["y_pred"])
        outputs = model.compute_metrics(None, y_true, y_pred)
        if model.loss is not None:
            outputs["loss"] = model.compute_loss(None, y_true, y_pred)
    else:
        outputs = model(inputs)
    if isinstance(outputs, (list, tuple)):
        outputs = {str(i): output for i, output in enumerate(outputs)}
    outputs = outputs if isinstance(outputs, dict) else {"output": outputs}
    return {name: np.array(keras.ops.cast(x, "float32")) for name, x in outputs.items()}


def train(model, x, y):
    """One step with each batch."""
    for batch, target in zip(x, y, strict=True):
        model.train_on_batch(batch, target)


def write_outputs(path):
    """Loads a model and writes its outputs for the inputs that lie beside it."""
    path = Path(path)
    inputs = dict(np.load(path.with_suffix(".inputs.npz")))
    outputs = outputs_of(keras.saving.load_model(path), inputs)
    np.savez(path.with_suffix(".outputs.npz"), **outputs)
