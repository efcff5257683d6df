"""What do learnt knots gain where the denoiser may be called only a few times?

    python amed.py mixture    five Gaussians: distance to where the exact solution ends, new noises
    python amed.py digits     8 x 8 digits: Frechet distance of a classifier's features
    python amed.py speed      sampling and a training step, beside the same written in PyTorch

`amed_sample` after `AMEDTrainer`, beside DDIM, the geometric midpoint, Heun and DPM++ 2M.
"""

import argparse

import numpy as np
from diffusion_quality import digits_and_features
from mixture import Mixture
from timing import print_table

MIXTURE_STEPS, DIGITS_STEPS = (3, 4, 6), (2, 3, 4)
LEAST_FACTORS = {3: 5, 4: 5, 6: 3}
SOLVERS = ("dpm2", "euler", "dpmpp", "ipndm")
BATCH, RATE = 300, 0.05


def fitted(denoiser, schedule, noises, steps, updates, batch=BATCH, **settings):
    """A predictor that learnt from noises."""
    import keras

    from keras_ext.diffusion import AMEDPredictor, AMEDTrainer

    predictor = AMEDPredictor(steps)
    trainer = AMEDTrainer(denoiser, schedule, predictor, **settings)
    rate = keras.optimizers.schedules.CosineDecay(RATE, updates)
    trainer.compile(keras.optimizers.Adam(rate), jit_compile=False)
    rows = np.arange(updates * batch) % len(noises)
    logs = trainer.fit(noises[rows], batch_size=batch, shuffle=False, verbose=0).history
    if logs["nan_gradients"][-1]:
        print(f"{steps} steps: {logs['nan_gradients'][-1]} gradients were NaN.")
    return predictor


def mixture_table(arguments):
    """End-point errors on the mixture, without a last call to x0."""
    from keras_ext import diffusion
    from keras_ext.diffusion import amed_sample, compiled, ode_sample

    schedule = diffusion.schedules.get("edm")
    denoiser = Mixture().denoiser(schedule)
    rng = np.random.default_rng(0)
    learnt_from, held_out = (
        (schedule.beta_bar(1.0) * rng.normal(size=(count, 2))).astype("float32")
        for count in (BATCH, arguments.count)
    )

    def ends(sampler, steps, **settings):
        run = compiled(sampler, denoiser, schedule, steps, denoise=False, **settings)
        return np.array(run(held_out).x)

    exact = ends(ode_sample, 300, solver="rk4")
    finer = ends(ode_sample, 150, solver="rk4")
    errors = {}
    for steps in arguments.steps:
        for name, solver, calls_a_step in [
            ("Euler = DDIM", "euler", 1),
            ("DPM++ 2M", "dpmpp_2m", 1),
            ("iPNDM of order 3", "ab3", 1),
            ("Heun", "heun", 2),
            ("DPM-2, geometric midpoint", "midpoint", 2),
        ]:
            errors[name, steps] = ends(ode_sample, 2 * steps // calls_a_step, solver=solver)
        for solver in arguments.solvers:
            settings = {"solver": solver, "inner_steps": arguments.inner_steps}
            predictor = fitted(
                denoiser, schedule, learnt_from, steps, arguments.updates, **settings
            )
            found = ends(amed_sample, steps, predictor=predictor, solver=solver)
            errors[f"learnt, {solver}", steps] = found
    errors = {
        key: np.linalg.norm(found - exact, axis=1).astype("float64")
        for key, found in errors.items()
    }
    names = dict.fromkeys(name for name, _ in errors)
    rows = []
    for name in names:
        cells = []
        for steps in arguments.steps:
            error = errors[name, steps]
            best = np.mean(errors["learnt, dpm2", steps]) if "dpm2" in arguments.solvers else 0
            cells += [f"{np.mean(error):.3f}", f"{np.median(error):.3f}"]
            cells += [f"{np.mean(error) / best:.1f}" if best else ""]
        rows.append([name, *cells])
    columns = ["solver"]
    for steps in arguments.steps:
        columns += [f"{2 * steps} calls: mean", "median", "times learnt dpm2"]
    print_table(f"Five Gaussians, {arguments.count} new noises: end-point error", columns, rows)
    print(
        f"RK4 of 150 steps is {np.linalg.norm(finer - exact, axis=1).mean():.1e} off that of 300."
    )
    least = {2 * steps: LEAST_FACTORS.get(steps) for steps in arguments.steps}
    print(f"Asked for beside Heun and DPM-2, at calls: {least}.\n")


def digits_table(arguments):
    """Frechet distances on digits, over networks of several seeds."""
    import keras

    from keras_ext import diffusion
    from keras_ext.diffusion import DenoisingDiffusion, amed_sample, compiled, ddim, ode_sample
    from keras_ext.metrics import frechet_distance, two_sample_floor
    from keras_ext.models import UNet

    images, features = digits_and_features()
    count, real = len(images) // 2, features(images)
    # Samples stand against the half that the floor's other half would be: as many of each.
    sizes = count, len(images) - count
    floor = two_sample_floor(frechet_distance, real, sizes=sizes)
    schedule = diffusion.schedules.get("cosine")
    start = float(schedule.t_of_sigma(80.0))
    distances = {}
    for seed in arguments.seeds:
        keras.utils.set_random_seed(seed)
        network = UNet((8, 8, 1), channels=(16, 32), blocks_per_level=1)
        model = DenoisingDiffusion(network, schedule, prediction="v", seed=seed)
        model.compile(keras.optimizers.Adam(3e-3, use_ema=True, ema_momentum=0.99))
        model.fit(images, batch_size=128, epochs=arguments.epochs, verbose=0)
        denoiser = model.denoiser()
        rng = np.random.default_rng(seed)
        half = real[rng.permutation(len(real))[: sizes[1]]]
        noise, learnt_from = rng.normal(size=(2, count, 8, 8, 1)).astype("float32")

        def distance(sampler, steps, denoiser=denoiser, noise=noise, half=half, **settings):
            run = compiled(sampler, denoiser, schedule, steps, prediction="v", **settings)
            result = run(noise)
            x = np.clip(np.array(result.x), -1.0, 1.0)
            return result.calls, frechet_distance(features(x), half)

        for steps in arguments.steps:
            settings = {"prediction": "v", "inner_steps": 3}
            predictor = fitted(
                denoiser, schedule, learnt_from, steps, arguments.updates, 64, **settings
            )
            for name, found in {
                "DDIM": distance(ddim, 2 * steps + 1),
                "DPM++ 2M": distance(ode_sample, 2 * steps, solver="dpmpp_2m", start=start),
                "Heun": distance(ode_sample, steps, solver="heun", start=start),
                "DPM-2, geometric midpoint": distance(
                    ode_sample, steps, solver="midpoint", start=start
                ),
                "learnt, dpm2": distance(amed_sample, steps, predictor=predictor),
            }.items():
                distances.setdefault((name, found[0]), []).append(found[1])
                print(f"Seed {seed}, {name}, {found[0]} calls: {found[1]:.1f}", flush=True)
    calls = sorted({calls for _, calls in distances})
    rows = [
        [name, *(f"{np.mean(d):.1f} ± {np.std(d):.1f}" for d in each)]
        for name in dict.fromkeys(name for name, _ in distances)
        if (each := [distances[name, n] for n in calls])
    ]
    title = f"Digits, {arguments.epochs} epochs, {count} samples, seeds {arguments.seeds}: Frechet"
    print_table(title, ["sampler", *(f"{n} calls" for n in calls)], rows)
    print(f"Floor: {floor.mean:.1f} ± {floor.std:.1f}.\n")


def speed_table(arguments):
    """Images a second and milliseconds a training step, each side in a process of its own."""
    from amed_side import JOBS, SIDES
    from sides import Side, compare, ratio

    sizes = {"input_shape": [8, 8, 1], "channels": [32, 64], "blocks": 2, "batch": 64}
    started = [
        Side("amed_side.py", name, {"side": name, "jobs": list(JOBS), "sizes": sizes})
        for name in arguments.sides or SIDES
    ]
    about = compare(started, list(JOBS), arguments.rounds)
    reference = next(iter(about.values()))["seconds"]
    rows = []
    for name, side in about.items():
        cells = [name, side["weights"]]
        for job, seconds in enumerate(side["seconds"]):
            middle = sorted(seconds)[len(seconds) // 2]
            cells += [f"{1e3 * middle:.0f}", f"{ratio(seconds, reference[job]):.2f}"]
        rows.append(cells)
    columns = ["side", "weights"]
    for title in JOBS.values():
        columns += [f"{title}, ms", f"times {next(iter(about))}"]
    print_table("8x8x1, channels [32, 64], b=64", columns, rows, arguments.rounds)


def main(words=None):
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=["mixture", "digits", "speed"])
    parser.add_argument("--steps", nargs="+", type=int)
    parser.add_argument("--solvers", nargs="+", choices=SOLVERS, default=list(SOLVERS))
    parser.add_argument("--updates", type=int, help="of the predictor")
    parser.add_argument("--inner-steps", type=int, default=9, help="of the mixture's teacher")
    parser.add_argument("--count", type=int, default=2000, help="noises of the mixture")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=60, help="of digits")
    parser.add_argument("--sides", nargs="+", help="of speed")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args(words)
    mixture = arguments.table == "mixture"
    arguments.steps = arguments.steps or list(MIXTURE_STEPS if mixture else DIGITS_STEPS)
    arguments.updates = arguments.updates or (300 if mixture else 60)
    tables = {"mixture": mixture_table, "digits": digits_table, "speed": speed_table}
    tables[arguments.table](arguments)


if __name__ == "__main__":
    main()
