"""Lets bert4keras build, run and save the models of cases.py: runs in a process of its own.

    python generate.py OUTPUT_FOLDER HALF

with TF_USE_LEGACY_KERAS=1 TF_KERAS=1 and the folder of requirements.txt first on PYTHONPATH.
"""

import functools
import sys
import time
from pathlib import Path

import cases
import heads
import numpy as np
import tensorflow as tf
import unsupported
import user_models
from bert4keras.backend import K, keras
from encoders import write_encoder
from inputs import draw_inputs
from other_files import as_keras_2_3, order_before_0_11_4, write_old
from saving import draw_weights, generator, save_model, write_case


def write_head(folder, build):
    """Writes the folder of a whole model; a compiled one is trained for one step."""
    folder.mkdir()
    rng = generator(folder.name)
    model = build()
    draw_weights(model, rng)
    arrays = draw_inputs(model, rng, vocabulary=30)
    if model.optimizer:
        model.train_on_batch(list(arrays.values()), np.zeros_like(arrays["token_ids"]))
    save_model(folder, model, arrays)
    write_case(folder, kind="head", outputs=model.output_names, checkpoint=False)


def write_unsupported(folder, build, layer):
    """Writes a model without its outputs."""
    folder.mkdir()
    model = build()
    draw_weights(model, generator(folder.name))
    model.save(str(folder / "model.h5"))
    write_case(folder, kind="unsupported", layer=layer)


def write_user_model(folder, build):
    """Writes the folder of a model of user_models.py."""
    folder.mkdir()
    rng = generator(folder.name)
    model = build()
    draw_weights(model, rng)
    for weight in model.weights:
        if "moving_variance" in weight.name:
            weight.assign(weight**2)
    save_model(folder, model, user_models.draw(model, rng))
    write_case(folder, kind="user")


def forget():
    """No case depends on those before it: names of layers and random numbers begin anew."""
    K.reset_uids()
    keras.utils.set_random_seed(0)


def writers(output):
    """What writes the folder of each case, by its name."""

    def built(module, name):
        return getattr(module, name.replace("-", "_"))

    write = {name: (write_encoder, case) for name, case in cases.ENCODERS.items()}
    write |= {name: (write_head, built(heads, name)) for name in cases.HEAD_MODELS}
    write |= {name: (write_user_model, built(user_models, name)) for name in cases.USER_MODELS}
    for name, layer in cases.UNSUPPORTED.items():
        write[name] = (write_unsupported, built(unsupported, name), layer)
    return {
        name: functools.partial(function, output / name, *arguments)
        for name, (function, *arguments) in write.items()
    }


def write_half(output, half):
    """Writes the folders of a half of the cases, 0 or 1, and those rewritten out of them.

    Returns:
        How many there are.
    """
    output.mkdir(parents=True, exist_ok=True)
    written = dict(list(writers(output).items())[half::2])
    for write in written.values():
        forget()
        write()
    count = len(written)
    for rewritten, rewrite in (
        (cases.OLD_ORDER, order_before_0_11_4),
        (cases.KERAS_2_3, as_keras_2_3),
    ):
        for name, source in rewritten.items():
            if source in written:
                write_old(output / name, output / source, rewrite)
                count += 1
    return count


if __name__ == "__main__":
    start = time.perf_counter()
    tf.get_logger().setLevel("ERROR")
    count = write_half(Path(sys.argv[1]), int(sys.argv[2]))
    print(f"{count} cases in {time.perf_counter() - start:.0f} s")
