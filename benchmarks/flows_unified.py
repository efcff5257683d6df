"""Unified diffusion: which rule forgives a biased restorer, and what more steps are good for.

Two tables, of restorers in closed form, without training:

- blurred random walks of 64 places, undone in 30 steps by a restorer that gives back too little of
  the short waves: the relative error of the rules "resample" and "increment", and of one step;
- masked text, a Markov chain of 4 tokens and length 6, whose restorer knows the exact probabilities
  of each token given the visible ones: how far the bigrams of samples are from those of the chain.
"""

import argparse

import numpy as np

from keras_ext import diffusion

LENGTH, SHORT = 64, 12
"""Places of a walk, and the first of its waves that count as short."""

BLUR = diffusion.forward_processes.GaussianBlur(largest=1.15 / LENGTH)
TOKENS, PLACES = 4, 6
MASK = diffusion.forward_processes.Mask(vocabulary_size=TOKENS + 1)
NEXT = 0.75
CHAIN = np.full((TOKENS, TOKENS), (1 - NEXT) / (TOKENS - 1))
CHAIN[np.arange(TOKENS), (np.arange(TOKENS) + 1) % TOKENS] = NEXT
"""Probabilities of the next token: mostly the one after; the first token is any."""


def walks(count, seed=0):
    """Random walks without their mean: (count, LENGTH) float32."""
    x = np.random.default_rng(seed).normal(size=(count, LENGTH)).cumsum(axis=1)
    return (x - x.mean(axis=1, keepdims=True)).astype("float32")


def biased_restorer(bias):
    """Undoes the blur exactly, but for a share `bias` of the short waves, which is missing."""
    wave, place = np.arange(LENGTH)[:, None], np.arange(LENGTH)
    waves = np.cos(np.pi * wave * (place + 0.5) / LENGTH)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    gains = waves.T @ (np.where(wave < SHORT, 1.0, 1.0 - bias) * waves)

    def restorer(x, t):
        blurred, _ = BLUR.sample(np.eye(LENGTH, dtype="float32"), float(t[0]))
        sharp = np.linalg.solve(np.float64(blurred).T, np.float64(x).T)  # (LENGTH, b)
        return (gains @ sharp).T.astype("float32")

    return restorer


def relative_error(bias, rule, steps, count, seed=0):
    """|restored - x0| / |x0| of blurred walks."""
    x0 = walks(count, seed)
    blurred, _ = BLUR.sample(x0, 1.0)
    result = diffusion.unified_sample(biased_restorer(bias), BLUR, blurred, steps, rule)
    return np.linalg.norm(np.array(result.x) - x0) / np.linalg.norm(x0)


def exact_logits(x, t):
    """log p of each token given those of the chain that are visible: (b, PLACES, TOKENS + 1)."""
    x = np.asarray(x)
    visible = np.eye(TOKENS + 1)[x][..., :TOKENS]
    visible = np.where((x == TOKENS)[..., None], 1.0, visible)  # what each place says alone
    before, after = np.ones_like(visible), np.ones_like(visible)
    for i in range(1, PLACES):
        before[:, i] = (before[:, i - 1] * visible[:, i - 1]) @ CHAIN
        j = PLACES - 1 - i
        after[:, j] = (after[:, j + 1] * visible[:, j + 1]) @ CHAIN.T
    with np.errstate(divide="ignore"):
        logits = np.log(before * after * visible)
    return np.pad(logits, [(0, 0), (0, 0), (0, 1)], constant_values=-np.inf).astype("float32")


def bigram_distance(x):
    """The total variation between the bigrams of texts and those of the chain."""
    x = np.asarray(x)
    found = np.zeros((TOKENS, TOKENS))
    np.add.at(found, (x[:, :-1].ravel(), x[:, 1:].ravel()), 1.0)
    return 0.5 * np.abs(found / found.sum() - CHAIN / TOKENS).sum()


def chain_texts(count, seed=0):
    """Texts of the chain itself."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, TOKENS, (count, PLACES))
    for i in range(1, PLACES):
        choices = np.cumsum(CHAIN[x[:, i - 1]], axis=1)
        x[:, i] = (rng.random((count, 1)) > choices).sum(axis=1)
    return x


def sampled_texts(count, steps, seed=0, rule=None):
    """Texts drawn by unmasking with the exact probabilities."""
    start = MASK.prior((count, PLACES))
    return diffusion.unified_sample(exact_logits, MASK, start, steps, rule, seed=seed).x


def add_arguments(parser):
    """The command line of `unified_table`."""
    parser.add_argument("--count", type=int, default=1500, help="samples")
    parser.add_argument("--seeds", type=int, default=3)


def unified_table(arguments):
    """Prints both tables: means over seeds, and in the last lines what data have."""
    seeds = range(arguments.seeds)
    count = arguments.count

    def mean(function, *words):
        values = [function(*words, seed=seed) for seed in seeds]
        return f"{np.mean(values):.3f} +- {np.std(values):.3f}"

    print(f"Blurred random walks of {LENGTH} places, {count} walks, {len(seeds)} seeds.\n")
    print("| short waves missing | resample, 30 steps | increment, 30 steps | one step |")
    print("|---|---|---|---|")
    for bias in (0.05, 0.2):
        row = [("resample", 30), ("increment", 30), ("resample", 1)]
        cells = [mean(relative_error, bias, *each, count) for each in row]
        print(f"| {bias:.0%} | {' | '.join(cells)} |")

    def distance(steps, rule, seed):
        return bigram_distance(sampled_texts(count, steps, seed, rule))

    def floor(seed):
        return bigram_distance(chain_texts(count, seed))

    print(f"\nMasked text, {count} texts of {PLACES} tokens: total variation of bigrams.\n")
    print("| steps | invert | mix | resample |")
    print("|---|---|---|---|")
    for steps in (1, 2, 4, 8, 24):
        cells = [mean(distance, steps, rule) for rule in ("invert", "mix", "resample")]
        print(f"| {steps} | {' | '.join(cells)} |")
    print(f"| texts of the chain | {mean(floor)} | | |")


def main(words=None):
    """Prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    unified_table(parser.parse_args(words))


if __name__ == "__main__":
    main()
