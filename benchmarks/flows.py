"""How good are flows, how straight, and how fast?

    python flows.py rectified     five Gaussians: rectified flow, before and after reflow
    python flows.py poisson       Poisson flow: the exact field and trained networks
    python flows.py unified       blurred walks and masked text, by the rules of the steps
    python flows.py speed         a training step and sampling, beside PyTorch

Distances stand beside their floor: what two sets of data have between them.
"""

import argparse

import flows_poisson
import flows_unified
from flow_speed import speed
from rectified_tables import rectified

TABLES = {
    "rectified": rectified,
    "poisson": (flows_poisson.add_arguments, flows_poisson.poisson_table),
    "unified": (flows_unified.add_arguments, flows_unified.unified_table),
    "speed": speed,
}
"""Name -> pair of a function that adds arguments to a parser, and one that measures and prints."""


def main(words=None):
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tables = parser.add_subparsers(dest="table", required=True)
    for name, (add_arguments, _) in TABLES.items():
        add_arguments(tables.add_parser(name))
    arguments = parser.parse_args(words)
    TABLES[arguments.table][1](arguments)


if __name__ == "__main__":
    main()
