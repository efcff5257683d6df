"""The picture that the example of sentence vectors draws."""

import matplotlib
import numpy as np

matplotlib.use("Agg")  # files only, on machines without a display, too
from matplotlib import pyplot as plt

GROUPS = 6  # labels that are shown apart; more are joined into as many ranges


def label_groups(labels):
    """The labels in few groups: name -> which rows are in it, by rising label."""
    values = np.unique(labels)
    if len(values) <= GROUPS:
        return {f"{value:g}": labels == value for value in values}
    borders = np.linspace(values[0], values[-1], GROUPS)
    place = np.clip(np.searchsorted(borders, labels, side="right") - 1, 0, GROUPS - 2)
    return {
        f"{borders[i]:g} to {borders[i + 1]:g}": place == i
        for i in range(GROUPS - 1)
        if (place == i).any()
    }


def plot_scores(labels, before, after, path):
    """Draws how the cosines of each label are spread, before and after training.

    Args:
        labels: array (pairs,).
        before: cosines (pairs,) before training.
        after: the same after it.
        path: PNG file to write.
    """
    groups = label_groups(labels)
    colours = plt.get_cmap("viridis")(np.linspace(0.0, 0.92, len(groups)))
    bins = np.linspace(min(before.min(), after.min()), 1.0, 41)
    figure, axes = plt.subplots(
        len(groups),
        2,
        figsize=(9, 1 + 0.95 * len(groups)),
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    for row, (name, rows), colour in zip(axes, groups.items(), colours, strict=True):
        for axis, scores in zip(row, (before, after), strict=True):
            axis.hist(scores[rows], bins, color=colour)
            axis.axvline(np.median(scores[rows]), color="black", linewidth=1)
            axis.set_yticks([])
            axis.spines[["top", "left", "right"]].set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for axis, title in zip(axes[0], ("before training", "after training"), strict=True):
        axis.set_title(title)
    for axis in axes[-1]:
        axis.set_xlabel("cosine of the two vectors")
    figure.suptitle("Pairs of each label (line: median)", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
