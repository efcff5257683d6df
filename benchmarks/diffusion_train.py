"""How fast is a training step beside that of the same U-Net in PyTorch and of diffusers' example?

Ours is `DenoisingDiffusion.train_on_batch`: drawing times and noise, the network, its gradient, Adam.
"""

from diffusion_speed import parsed, parser_of, run_sides, sizes_of
from sides import ratio
from timing import print_table


def main(words=None):
    """Measures and prints."""
    arguments = parsed(parser_of(__doc__), words)
    versions = {}
    for shape in arguments.shapes:
        sizes = sizes_of(shape, arguments.channels, arguments.blocks, arguments.batch)
        about = run_sides(arguments.sides, ["train"], sizes, arguments.rounds)
        reference = about[arguments.sides[0]]["seconds"][0]
        rows = []
        for name, side in about.items():
            versions.update(side["versions"])
            (seconds,) = side["seconds"]
            middle = sorted(seconds)[len(seconds) // 2]
            times = ratio(seconds, reference)
            rows.append([name, side["weights"], f"{1e3 * middle:.0f}", f"{times:.2f}"])
        columns = ["side", "weights", "a step, ms", f"times {arguments.sides[0]}"]
        title = f"{shape}, channels {arguments.channels}, b={arguments.batch}"
        print_table(title, columns, rows, arguments.rounds)
    print(", ".join(f"{name} {version}" for name, version in versions.items()) + ".")


if __name__ == "__main__":
    main()
