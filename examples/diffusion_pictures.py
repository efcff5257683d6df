"""The pictures that `diffusion.py` writes."""

import itertools

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np


def grid(rows, path, row_names=None, column_names=None):
    """Images in rows and columns.

    Args:
        rows: (rows, columns, height, width, channels), from -1 to 1.
        path: where the PNG goes.
        row_names: names at the left, or None.
        column_names: names at the top, or None.
    """
    rows = np.clip(0.5 * np.asarray(rows) + 0.5, 0, 1)
    height, width = rows.shape[:2]
    figure, axes = plt.subplots(height, width, figsize=(0.72 * width + 1, 0.72 * height + 0.6))
    axes = np.reshape(axes, (height, width))
    for i, j in np.ndindex(height, width):
        image, axis = rows[i, j], axes[i, j]
        image = image[..., 0] if image.shape[-1] == 1 else image
        axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        if j == 0 and row_names is not None:
            axis.set_ylabel(row_names[i], rotation=0, ha="right", va="center", fontsize=9)
        if i == 0 and column_names is not None:
            axis.set_title(column_names[j], fontsize=8)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def quality_curves(curves, floor, path, label):
    """A distance against the calls of the network.

    Args:
        curves: dict from the name of a sampler to a list of pairs (calls, distance).
        floor: `keras_ext.metrics.TwoSampleFloor` of the distance.
        path: where the PNG goes.
        label: what the distance is.
    """
    figure, axis = plt.subplots(figsize=(6, 4))
    for (name, points), marker in zip(curves.items(), itertools.cycle("osd^v<>PX*"), strict=False):
        axis.plot(*zip(*points, strict=True), marker=marker, label=name)
    low, high = floor.mean - 2 * floor.std, floor.mean + 2 * floor.std
    axis.axhspan(max(low, 0), high, color="0.85", label="two sets of real images")
    axis.set(xscale="log", yscale="log", xlabel="calls of the network", ylabel=label)
    ticks = [calls for calls, _ in next(iter(curves.values()))]  # those of others are near
    axis.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=7, minor=False)
    axis.set_xticks([], minor=True)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)
