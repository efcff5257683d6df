"""Processes that degrade data, for `UnifiedDiffusion`, by their names."""

import keras

from keras_ext.diffusion.forward_processes.fade import Fade
from keras_ext.diffusion.forward_processes.forward_process import ForwardProcess
from keras_ext.diffusion.forward_processes.gaussian_blur import GaussianBlur
from keras_ext.diffusion.forward_processes.gaussian_noise import GaussianNoise
from keras_ext.diffusion.forward_processes.interpolate import Interpolate
from keras_ext.diffusion.forward_processes.mask import Mask
from keras_ext.diffusion.forward_processes.pixelate import Pixelate
from keras_ext.diffusion.forward_processes.random_replace import RandomReplace

__all__ = [
    "NAMES",
    "Fade",
    "ForwardProcess",
    "GaussianBlur",
    "GaussianNoise",
    "Interpolate",
    "Mask",
    "Pixelate",
    "RandomReplace",
    "get",
]

NAMES = {
    "gaussian_noise": GaussianNoise,
    "gaussian_blur": GaussianBlur,
    "pixelate": Pixelate,
    "mask": Mask,
    "random_replace": RandomReplace,
    "fade": Fade,
    "interpolate": Interpolate,
}
"""Name -> class."""


def get(process, **arguments):
    """A process, by its name, by its serialised config, or itself.

    Args:
        process: a `ForwardProcess`, a name of `NAMES`, or what
            `keras.saving.serialize_keras_object` gives of a process.
        **arguments: of the class, for a name.

    Returns:
        A `ForwardProcess`.

    Raises:
        ValueError: for anything else, and a name without an argument that its class needs.

    Example:

    >>> get("mask", vocabulary_size=30)
    Mask(vocabulary_size=30, mask_id=29)
    >>> get(keras.saving.serialize_keras_object(get("pixelate"))) == get("pixelate")
    True
    """
    if isinstance(process, dict):
        process = keras.saving.deserialize_keras_object(process)
    if isinstance(process, str) and process in NAMES:
        if process == "random_replace" and "vocabulary_size" not in arguments:
            raise ValueError(
                "Expected RandomReplace(vocabulary_size=...): how many tokens there are is not "
                f"known. Received: process={process!r}"
            )
        return NAMES[process](**arguments)
    if not isinstance(process, ForwardProcess) or arguments:
        raise ValueError(
            f"Expected a ForwardProcess, its config, or a name of {', '.join(NAMES)} with its "
            f"arguments. Received: process={process!r}, arguments={arguments}"
        )
    return process
