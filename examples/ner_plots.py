"""A picture of a training run: the learning curve, and the span scores of one sentence."""

import matplotlib.pyplot as plt
import numpy as np


def plot_training(history, recognizer, text, path):
    """Draws loss and F1 by epoch, and the best label's score of every pair of tokens.

    Args:
        history: the Keras `History` of `EntityRecognizer.fit`.
        recognizer: the `EntityRecognizer`.
        text: string, a sentence.
        path: where the PNG is written.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(15, 7.5), layout="constrained")
    epochs = range(1, len(history.history["loss"]) + 1)
    left.plot(epochs, history.history["loss"], "o-", color="tab:blue", label="training loss")
    left.set(xlabel="epoch", ylabel="training loss", title="learning curve")
    left.xaxis.get_major_locator().set_params(integer=True)
    f1_axis = left.twinx()
    f1_axis.plot(epochs, history.history["val_f1"], "s-", color="tab:orange", label="dev F1")
    f1_axis.set(ylabel="dev F1", ylim=(0, 1))
    lines = left.get_lines() + f1_axis.get_lines()
    left.legend(lines, [line.get_label() for line in lines], loc="center right")

    scores, offsets = recognizer.span_scores(text)
    best = np.ma.masked_less(scores.max(axis=0), -1e29)  # pairs whose end is before the start
    limit = np.abs(best).max()
    image = right.imshow(best, cmap="RdBu_r", vmin=-limit, vmax=limit)
    tokens = [text[start:end] for start, end in offsets]
    right.set_xticks(range(len(tokens)), tokens, rotation=90)
    right.set_yticks(range(len(tokens)), tokens)
    right.set(xlabel="end", ylabel="start", title="best score of each span")
    for label, values in zip(recognizer.labels, scores, strict=True):
        starts, ends = np.nonzero(values > 0)
        if len(starts):
            right.scatter(
                ends,
                starts,
                s=90,
                marker="s",
                facecolors="none",
                lw=2,
                label=label,
                edgecolors=f"C{recognizer.labels.index(label) + 2}",
            )
    if (scores > 0).any():
        right.legend(title="found", loc="lower left")
    figure.colorbar(image, ax=right, shrink=0.8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
