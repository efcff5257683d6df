"""Finite scalar against vector quantisation: how good are the codes, and how fast are they?

    python quantizers.py digits    8 x 8 digits as 4 tokens, by the number of codes
    python quantizers.py speed     one training step, beside vector-quantize-pytorch

Both quantisers of a row have the same number of codes, encoder, decoder and steps.
"""

import argparse
import math
import time

import numpy as np
from quantizer_side import JOBS, SIDES
from sides import Side, compare, ratio
from timing import print_table

LEVELS = {
    "2^4": [5, 3],
    "2^6": [8, 8],
    "2^8": [8, 6, 5],
    "2^9": [8, 8, 8],
    "2^10": [8, 5, 5, 5],
    "2^11": [8, 8, 6, 5],
    "2^12": [7, 5, 5, 5, 5],
}
"""About how many codes -> levels of FSQ, whose product is the number of codes."""

TOKENS, WIDTH = 4, 16


def quantizers():
    """Name -> function of the levels and a seed that gives a quantiser."""
    from keras_ext.layers import FSQ, VectorQuantizer

    def vq(**settings):
        return lambda levels, seed: VectorQuantizer(math.prod(levels), WIDTH, seed=seed, **settings)

    return {
        "FSQ": lambda levels, seed: FSQ(levels),
        "FSQ, sigmoid": lambda levels, seed: FSQ(levels, "sigmoid"),
        "VQ": vq(kmeans_steps=None),
        "VQ, k-means": vq(),
        "VQ, k-means, dead codes": vq(threshold_dead=0.1),
    }


def autoencoder(quantizer, hidden):
    """An autoencoder of 64 pixels with dense layers."""
    import keras

    from keras_ext.training import AutoencoderVQ

    dense = keras.layers.Dense
    encoder = [
        keras.Input((64,)),
        dense(hidden, "gelu"),
        dense(TOKENS * WIDTH),
        keras.layers.Reshape((TOKENS, WIDTH)),
    ]
    decoder = [
        keras.Input((TOKENS, WIDTH)),
        keras.layers.Flatten(),
        dense(hidden, "gelu"),
        dense(64),
    ]
    return AutoencoderVQ(keras.Sequential(encoder), quantizer, keras.Sequential(decoder))


def measured(make, levels, seed, arguments):
    """Error on held-out digits, usage and perplexity on all, of one training."""
    import keras
    from sklearn.datasets import load_digits

    keras.utils.set_random_seed(seed)
    images = (load_digits().data / 8.0 - 1.0).astype("float32")
    images = images[np.random.default_rng(seed).permutation(len(images))]
    test, train = images[:300], images[300:]
    model = autoencoder(make(levels, seed), arguments.hidden)
    steps = arguments.epochs * -(-len(train) // arguments.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    model.compile(keras.optimizers.Adam(rate), metrics=["mse"])
    model.fit(train, epochs=arguments.epochs, batch_size=arguments.batch_size, verbose=0)
    error = model.evaluate(test, verbose=0, return_dict=True)["mse"]
    codes = model.evaluate(images, verbose=0, return_dict=True)
    return error, 100 * codes["usage"], codes["perplexity"]


def digits(arguments):
    """Trains and prints three tables: error, usage, perplexity."""
    makers, start = quantizers(), time.perf_counter()
    results = {
        (size, name): np.array(
            [measured(make, LEVELS[size], seed, arguments) for seed in arguments.seeds]
        )
        for size in arguments.codes
        for name, make in makers.items()
    }
    settings = f"{arguments.epochs} epochs, width {arguments.hidden}, seeds {arguments.seeds}"
    titles = ("mean squared error on 300 held-out digits", "usage in per cent", "perplexity")
    for i, (title, places) in enumerate(zip(titles, (4, 0, 0), strict=True)):
        rows = []
        for size in arguments.codes:
            row = [size, math.prod(LEVELS[size])]
            for name in makers:
                values = results[size, name][:, i]
                row.append(f"{values.mean():.{places}f} ± {values.std():.{places}f}")
            rows.append(row)
        print_table(f"Digits, {settings}: {title}", ["about", "codes", *makers], rows)
    for size in arguments.codes:
        gap = results[size, "FSQ"][:, 0] - results[size, "VQ, k-means, dead codes"][:, 0]
        print(f"{size}: FSQ minus the best VQ, by seed: {', '.join(f'{x:+.4f}' for x in gap)}")
    print(f"\n{time.perf_counter() - start:.0f} s in all.")


def speed(arguments):
    """Times a training step of each quantiser alone, and prints the ratio."""
    sizes = {name: getattr(arguments, name) for name in ("vectors", "width", "codes")}
    started = [
        Side("quantizer_side.py", name, {"side": name, "jobs": list(JOBS), "sizes": sizes})
        for name in SIDES
    ]
    about = compare(started, list(JOBS), arguments.rounds)
    reference = list(about.values())[-1]["seconds"]
    rows = []
    for name, side in about.items():
        cells = [name]
        for mine, last in zip(side["seconds"], reference, strict=True):
            cells += [f"{1000 * sorted(mine)[len(mine) // 2]:.2f}", f"{ratio(last, mine):.2f}"]
        rows.append(cells)
    headers = [part for title in JOBS.values() for part in (f"{title}: ms", "times the last")]
    print_table(
        f"Forward, backward and update: {sizes}", ["side", *headers], rows, arguments.rounds
    )


def main(words=None):
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tables = parser.add_subparsers(dest="table", required=True)
    table = tables.add_parser("digits")
    table.add_argument("--codes", nargs="+", choices=LEVELS, default=list(LEVELS), metavar="2^N")
    table.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    table.add_argument("--epochs", type=int, default=60)
    table.add_argument("--hidden", type=int, default=128)
    table.add_argument("--batch-size", type=int, default=64)
    table = tables.add_parser("speed")
    table.add_argument("--rounds", type=int, default=15)
    table.add_argument("--vectors", type=int, default=4096)
    table.add_argument("--width", type=int, default=64)
    table.add_argument("--codes", type=int, default=512)
    arguments = parser.parse_args(words)
    {"digits": digits, "speed": speed}[arguments.table](arguments)


if __name__ == "__main__":
    main()
