"""How fast does keras_ext sample beside diffusers on PyTorch, and what does a sampler itself cost?

DDIM of 50 steps and Heun's method of 20, on the same network in PyTorch and on the `UNet2DModel` of
diffusers with as many weights, each in a process of its own, in turn. What the sampler costs is
measured twice: DDIM against as many calls of the network, a small difference of large times, and
DDIM with a denoiser that takes no time against these calls.
"""

import argparse

from diffusion_side import DDIM_STEPS, SIDES, KerasSide
from sides import Side, compare, ratio
from timing import BACKEND, print_table

JOBS = {"network_alone": f"network, {DDIM_STEPS} calls", "ddim": "DDIM, 50", "heun": "Heun, 20"}
ALONE = "sampler_alone"


def sizes_of(text, channels, blocks, batch):
    """Sizes of the data and the networks, with the number of weights of ours."""
    sizes = {
        "input_shape": [int(part) for part in text.split("x")],
        "channels": channels,
        "blocks": blocks,
        "batch": batch,
    }
    return {**sizes, "weights": KerasSide(sizes, "graph").weights}


def run_sides(names, jobs, sizes, rounds):
    """What `sides.compare` gives for the sides."""
    started = [
        Side("diffusion_side.py", name, {"side": name, "jobs": jobs, "sizes": sizes})
        for name in names
    ]
    return compare(started, jobs, rounds)


def parser_of(text):
    """The arguments of both scripts."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shapes", nargs="+", default=["8x8x1", "32x32x3"], metavar="HxWxC")
    parser.add_argument("--channels", nargs="+", type=int, default=[32, 64])
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), metavar="SIDE")
    return parser


def parsed(parser, words=None):
    """The arguments, on the backend that the scripts run on."""
    arguments = parser.parse_args(words)
    if BACKEND != "tensorflow":
        parser.error(f"Keras must run on TensorFlow. Received: KERAS_BACKEND={BACKEND}")
    return arguments


def main(words=None):
    """Measures and prints."""
    arguments = parsed(parser_of(__doc__), words)
    jobs, versions = [*JOBS, ALONE], {}
    for shape in arguments.shapes:
        sizes = sizes_of(shape, arguments.channels, arguments.blocks, arguments.batch)
        about = run_sides(arguments.sides, jobs, sizes, arguments.rounds)
        reference = about[arguments.sides[0]]["seconds"]
        rows = []
        for name, side in about.items():
            versions.update(side["versions"])
            cells = [name, side["weights"]]
            for job, seconds in enumerate(side["seconds"][: len(JOBS)]):
                cells += [f"{arguments.batch / sorted(seconds)[len(seconds) // 2]:.1f}"]
                cells += [f"{1 / ratio(seconds, reference[job]):.2f}"]
            network = side["seconds"][0]
            beyond = ratio(side["seconds"][jobs.index("ddim")], network) - 1
            alone = ratio(side["seconds"][jobs.index(ALONE)], network)
            rows.append([*cells, f"{100 * beyond:.1f} %", f"{100 * alone:.1f} %"])
        columns = ["side", "weights"]
        for title in JOBS.values():
            columns += [f"{title}: images/s", f"times {arguments.sides[0]}"]
        print_table(
            f"{shape}, channels {arguments.channels}, b={arguments.batch}",
            [*columns, "DDIM beyond the network", "DDIM without a network"],
            rows,
            arguments.rounds,
        )
    print(", ".join(f"{name} {version}" for name, version in versions.items()) + ".")


if __name__ == "__main__":
    main()
