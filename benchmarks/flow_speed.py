"""A training step of rectified flow and its sampling, beside the same in PyTorch."""

from flow_side import EULER_STEPS, HEUN_STEPS, SIDES
from sides import Side, compare, ratio
from timing import print_table

JOBS = {
    "train": "training step",
    "euler": f"Euler, {EULER_STEPS}",
    "heun": f"Heun, {HEUN_STEPS}",
}


def arguments_of(parser):
    """The arguments of the table."""
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shapes", nargs="+", default=["8x8x1", "32x32x3"], metavar="HxWxC")
    parser.add_argument("--channels", nargs="+", type=int, default=[32, 64])
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), metavar="SIDE")


def measure(arguments):
    """Measures and prints."""
    for shape in arguments.shapes:
        sizes = {
            "input_shape": [int(part) for part in shape.split("x")],
            "channels": arguments.channels,
            "blocks": arguments.blocks,
            "batch": arguments.batch,
        }
        started = [
            Side("flow_side.py", name, {"side": name, "jobs": list(JOBS), "sizes": sizes})
            for name in arguments.sides
        ]
        about = compare(started, list(JOBS), arguments.rounds)
        reference = about[arguments.sides[-1] if len(about) == len(started) else next(iter(about))]
        rows, columns = [], ["side", "weights"]
        for title in JOBS.values():
            columns += [f"{title}: images/s", "times the last"]
        for name, side in about.items():
            cells = [name, side["weights"]]
            for job, seconds in enumerate(side["seconds"]):
                cells += [f"{arguments.batch / sorted(seconds)[len(seconds) // 2]:.1f}"]
                cells += [f"{ratio(reference['seconds'][job], seconds):.2f}"]
            rows.append(cells)
        print_table(
            f"{shape}, channels {arguments.channels}, b={arguments.batch}",
            columns,
            rows,
            arguments.rounds,
        )


speed = (arguments_of, measure)
