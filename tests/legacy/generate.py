"""Lets bert4keras build, run and save the models of cases.py: runs in a process of its own.

    python generate.py OUTPUT_FOLDER

with TF_USE_LEGACY_KERAS=1 TF_KERAS=1 and the folder of requirements.txt first on PYTHONPATH.
"""

import sys
import time
from pathlib import Path

import cases
import heads
import numpy as np
import tensorflow as tf
import unsupported
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


def forget():
    """No case depends on those before it: names of layers and random numbers begin anew."""
    K.reset_uids()
    keras.utils.set_random_seed(0)


def write_all(output):
    """Writes a folder for each case."""
    output.mkdir(parents=True)
    for name, case in cases.ENCODERS.items():
        forget()
        write_encoder(output / name, case)
    for name in cases.HEAD_MODELS:
        forget()
        write_head(output / name, getattr(heads, name.replace("-", "_")))
    for name, layer in cases.UNSUPPORTED.items():
        forget()
        write_unsupported(output / name, getattr(unsupported, name.replace("-", "_")), layer)
    for name, source in cases.OLD_ORDER.items():
        write_old(output / name, output / source, order_before_0_11_4)
    for name, source in cases.KERAS_2_3.items():
        write_old(output / name, output / source, as_keras_2_3)


if __name__ == "__main__":
    start = time.perf_counter()
    tf.get_logger().setLevel("ERROR")
    folder = Path(sys.argv[1])
    write_all(folder)
    print(f"{len(list(folder.iterdir()))} cases in {time.perf_counter() - start:.0f} s")
