"""Which sampler is best at few network calls, and when does the optimal variance help?

    python diffusion_quality.py mixture     five Gaussians, whose denoiser is known: samplers alone
    python diffusion_quality.py digits      8 x 8 digits, a trained network

DDPM with both variances, with the one estimated from data, with a covariance for each state, exact or
learnt by NPR and SN heads (whose own calls are not counted), with half of the calls as Langevin
steps, DDIM with and without, Heun and DPM++ 2M. Distances stand beside their floor: what two sets of data have between them. Below it there is
nothing to see.
"""

import argparse

import numpy as np
from mixture import Mixture
from timing import print_table

CALLS = (5, 10, 20, 50)
SCHEDULE = "cosine"


def samplers(variance, covariances):
    """Name -> function (denoiser, noise, calls, prediction, seed) that gives samples.

    Args:
        variance: `ReverseVariance`.
        covariances: name -> an object with `covariance(x, t, x0)`.
    """
    from keras_ext import diffusion
    from keras_ext.diffusion import Langevin, compiled, ddim, ddpm, ode_sample, sde_sample

    def hops(sampler, **settings):
        def sample(denoiser, noise, calls, prediction, seed):
            run = compiled(sampler, denoiser, SCHEDULE, calls, prediction=prediction, **settings)
            return run(noise, seed).x

        return sample

    schedule = diffusion.schedules.get(SCHEDULE)
    # Where there is hardly more than noise, which is what a model's own `sample` begins with: at 1,
    # the cosine's sigma is 20,000.
    start = min(1.0, float(schedule.t_of_sigma(80.0)))

    def solver(name, calls_a_step):
        def sample(denoiser, noise, calls, prediction, seed):
            # The last call is that of the step to the data.
            steps = max((calls - 1) // calls_a_step, 1)
            settings = {"solver": name, "prediction": prediction, "start": start}
            run = compiled(ode_sample, denoiser, SCHEDULE, steps, **settings)
            return run(noise).x

        return sample

    def corrected(denoiser, noise, calls, prediction, seed):
        settings = {"prediction": prediction, "corrector": Langevin(), "end": 0.0}
        return compiled(sde_sample, denoiser, SCHEDULE, calls // 2, **settings)(noise, seed).x

    return {
        "DDPM, small": hops(ddpm),
        "DDPM, big": hops(ddpm, variance="big"),
        "DDPM, analytic": hops(ddpm, variance=variance),
        "DDPM, Langevin": corrected,
        "DDIM": hops(ddim),
        "DDIM, analytic": hops(ddim, variance=variance),
        "Heun": solver("heun", 2),
        "DPM++ 2M": solver("dpmpp_2m", 1),
        **{f"DDPM, {name}": hops(ddpm, variance=each) for name, each in covariances.items()},
        **{f"DDIM, {name}": hops(ddim, variance=each) for name, each in covariances.items()},
    }


class ExactCovariance:
    """The diagonal of the mixture's posterior covariance, as a sampler asks for it."""

    def __init__(self, mixture, schedule):
        self.mixture, self.schedule = mixture, schedule

    def covariance(self, x, t, x0):
        """(b, 2): the variance of the data given x."""
        from keras import ops

        alpha, beta = self.schedule.alpha_bar(t), self.schedule.beta_bar(t)
        return ops.diagonal(
            self.mixture.posterior_covariance(x, alpha, beta, ops), axis1=1, axis2=2
        )


def learnt(head, denoiser, kind, data, epochs, **settings):
    """A `ReverseCovariance`, trained."""
    import keras

    from keras_ext.diffusion import ReverseCovariance

    model = ReverseCovariance(head, denoiser, SCHEDULE, kind, "v", seed=0, **settings)
    steps = epochs * -(-len(data) // 256)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, steps)))
    model.fit(data, batch_size=256, epochs=epochs, verbose=0)
    return model


def mixture_table(arguments):
    """Sliced Wasserstein distances on the mixture, over seeds."""
    from keras_ext import diffusion
    from keras_ext.diffusion import estimate_reverse_variance
    from keras_ext.metrics import sliced_wasserstein, two_sample_floor
    from keras_ext.models import MLPDenoiser

    mixture, schedule = Mixture(), diffusion.schedules.get(SCHEDULE)
    count = arguments.count
    denoiser = mixture.denoiser(schedule, "v")
    variance = estimate_reverse_variance(
        denoiser, schedule, mixture.sample(4000).astype("float32"), prediction="v", seed=0
    )
    floor = two_sample_floor(
        sliced_wasserstein, mixture.sample(4 * count), sizes=(count, count), repeats=10
    )
    rows = []
    covariances = {"exact covariance": ExactCovariance(mixture, schedule)}
    data = mixture.sample(10 * count, seed=7).astype("float32")
    for kind in ("npr", "sn"):
        head = MLPDenoiser(2, hidden_dim=64, num_layers=2)
        covariances[f"{kind.upper()} head"] = learnt(head, denoiser, kind, data, 4)
    for name, sample in samplers(variance, covariances).items():
        cells = []
        for calls in arguments.calls:
            distances = []
            for seed in arguments.seeds:
                rng = np.random.default_rng(seed)
                noise = rng.normal(size=(count, 2)).astype("float32")
                x = np.array(sample(denoiser, noise, calls, "v", seed))
                distances.append(sliced_wasserstein(x, mixture.sample(count, seed + 100)))
            cells.append(f"{np.mean(distances):.3f} ± {np.std(distances):.3f}")
        rows.append([name, *cells])
    title = f"Five Gaussians, {count} samples, seeds {arguments.seeds}: sliced Wasserstein"
    print_table(title, ["sampler", *(f"{calls} calls" for calls in arguments.calls)], rows)
    print(f"Floor: {floor.mean:.3f} ± {floor.std:.3f}.\n")


def digits_and_features():
    """Digits (n, 8, 8, 1) in [-1, 1], and what a classifier of them sees in images, (n, 64)."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    images = (images / 8.0 - 1.0).astype("float32").reshape(-1, 8, 8, 1)
    judge = MLPClassifier((64,), max_iter=400, random_state=0).fit(
        images.reshape(len(images), -1), labels
    )

    def features(x):
        """(n, 64): what the hidden layer of a classifier of digits gives."""
        x = np.asarray(x, "float64").reshape(len(x), -1)
        return np.maximum(x @ judge.coefs_[0] + judge.intercepts_[0], 0.0)

    return images, features


def digits_table(arguments):
    """Frechet distances of a classifier's features on digits, over networks of several seeds."""
    import keras

    from keras_ext.diffusion import DenoisingDiffusion, estimate_reverse_variance
    from keras_ext.metrics import frechet_distance, two_sample_floor
    from keras_ext.models import UNet

    images, features = digits_and_features()
    count = len(images) // 2
    real = features(images)
    floor = two_sample_floor(frechet_distance, real, sizes=(count, len(images) - count))
    distances = {}
    for seed in arguments.seeds:
        keras.utils.set_random_seed(seed)
        model = DenoisingDiffusion(UNet((8, 8, 1)), SCHEDULE, prediction="v", seed=seed)
        model.compile(keras.optimizers.Adam(2e-3, use_ema=True, ema_momentum=0.995))
        model.fit(images, batch_size=128, epochs=arguments.epochs, verbose=0)
        denoiser = model.denoiser()
        variance = estimate_reverse_variance(
            denoiser, SCHEDULE, images, prediction="v", bound=(-1.0, 1.0), samples=64, seed=seed
        )
        noise = np.random.default_rng(seed).normal(size=(count, 8, 8, 1)).astype("float32")
        covariances = {}
        for kind in ("npr", "sn"):
            head = UNet((8, 8, 1), channels=(16, 32), blocks_per_level=1)
            covariances[f"{kind.upper()} head"] = learnt(
                head, denoiser, kind, images, arguments.epochs, clip_x0=(-1.0, 1.0)
            )
        for name, sample in samplers(variance, covariances).items():
            for calls in arguments.calls:
                x = np.clip(np.array(sample(denoiser, noise, calls, "v", seed)), -1.0, 1.0)
                distances.setdefault((name, calls), []).append(frechet_distance(features(x), real))
    names = list(dict.fromkeys(name for name, _ in distances))
    rows = [
        [
            name,
            *(
                f"{np.mean(distances[name, calls]):.1f} ± {np.std(distances[name, calls]):.1f}"
                for calls in arguments.calls
            ),
        ]
        for name in names
    ]
    title = f"Digits, {arguments.epochs} epochs, {count} samples, seeds {arguments.seeds}: Frechet"
    print_table(title, ["sampler", *(f"{calls} calls" for calls in arguments.calls)], rows)
    print(f"Floor: {floor.mean:.1f} ± {floor.std:.1f}.\n")


def main(words=None):
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", choices=["mixture", "digits"])
    parser.add_argument("--calls", nargs="+", type=int, default=list(CALLS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=10_000, help="samples of the mixture")
    parser.add_argument("--epochs", type=int, default=120, help="of digits")
    arguments = parser.parse_args(words)
    {"mixture": mixture_table, "digits": digits_table}[arguments.data](arguments)


if __name__ == "__main__":
    main()
