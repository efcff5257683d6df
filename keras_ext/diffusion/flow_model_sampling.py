"""The half of `RectifiedFlow` that draws samples, and makes new flows of them."""

import numpy as np
from keras import ops
from keras.saving import deserialize_keras_object, serialize_keras_object

from keras_ext.diffusion.flow_conversion import as_denoiser
from keras_ext.diffusion.flow_sample import flow_sample
from keras_ext.diffusion.kept_samplers import averaged
from keras_ext.diffusion.model_sampling import (
    ModelDenoiser,
    first_noise,
    label_conditions,
    run_sampler,
)
from keras_ext.diffusion.straightness import bends_of
from keras_ext.ops.settings import whole

ONE_STEP = "one_step"
"""The times of a model that makes one Euler step: 1 alone."""


class FlowModelSampling:
    """The methods `sample`, `velocity`, `denoiser`, `reflow`, `straightness`, `copy`, `distill`.

    The model has `network`, `interpolant`, `num_classes`, `sample_shape` and `kept_samplers`.
    """

    def velocity(self):
        """What `flow_sample` takes: a function `(x, t, label=None)`, t = 1 noise.

        With the weights as they are; `keras.StatelessScope` gives them other values.
        """
        return ModelDenoiser(self)

    def denoiser(self, schedule="straight", prediction="velocity"):
        """The flow as a denoiser `(x, t, label=None)`, for all samplers and `log_likelihood`.

        What samplers add noise to is a mean of data only if x1 were normal and independent of x0:
        not after `reflow`. The solvers of the equation are right in any case, `log_likelihood` if x1
        is normal: not of a flow between two sets of data.

        Args:
            schedule: a `Schedule` or its name, which the sampler is given, too.
            prediction: str, what it is to predict: "eps", "x0", "v", "velocity" or "score".

        Returns:
            A function.

        Raises:
            ValueError: for another interpolant than the linear one, and see `as_denoiser`.
        """
        self._check_straight("A denoiser")
        self._steps(None if self.time_sampling != ONE_STEP else 2)
        return as_denoiser(self.velocity(), schedule, prediction)

    def sample(
        self,
        n_or_noise,
        steps=None,
        solver="euler",
        label=None,
        guidance=None,
        seed=None,
        start=1.0,
        end=0.0,
        return_trajectory=False,
        use_ema=True,
        jit_compile=None,
    ):
        """Draws samples, or carries samples of one set to the other.

        A sampler is compiled at its first call with these settings, a shape and a number of steps;
        labels, the scale of guidance, seed and noise may then differ. After
        `compile(run_eagerly=True)` nothing is compiled.

        Args:
            n_or_noise: int, number of samples, from normal noise; or (n, ...) floats, x at time
                `start`: a model of two sets is given some of x1.
            steps: int, all of one length. None: 20, and 1 after `distill`.
            solver: str, "euler", "heun", "midpoint" or "rk4"; see `flow_sample`.
            label: int or (n,) ints, the classes, or None for none.
            guidance: float, scale of classifier-free guidance, see `ClassifierFreeGuidance`. 1 is the
                same as None.
            seed: int, or None for a random one.
            start: float, the first time.
            end: float, the last time: `start=0.0, end=1.0` carries data to noise, or x0 to x1.
            return_trajectory: bool, whether to keep the states of all steps.
            use_ema: bool, whether to take the averages of the weights, where there are any.
            jit_compile: bool, whether to compile with XLA. None: as `compile` was told.

        Returns:
            `SampleResult`: `x` (n, ...) float32, `trajectory` (steps + 1, n, ...) or None, `calls`.

        Raises:
            ValueError: for no samples, noise of another shape, an unknown solver, no steps, a label
                beyond the classes, guidance without a label, and a network that gives NaN; the
                error names the step.
        """
        steps = self._steps(steps, solver)
        noise = first_noise(n_or_noise, self.sample_shape, seed)
        conditions = label_conditions(label, self.num_classes, noise.shape[0], guidance)
        settings = {"solver": solver, "start": start, "end": end}
        settings["return_trajectory"] = return_trajectory
        options = use_ema, jit_compile
        return run_sampler(
            self, flow_sample, None, noise, steps, seed, conditions, options, **settings
        )

    def reflow(
        self,
        n_or_noise,
        steps=50,
        solver="euler",
        label=None,
        guidance=None,
        seed=None,
        batch_size=1024,
        use_ema=True,
        jit_compile=None,
    ):
        """Pairs of samples and the noise that they came from, to train a straighter flow on.

        `second = model.copy(paired=True)`, `second.compile(...)`, `second.fit(model.reflow(10000))`.

        Args:
            n_or_noise: int, number of pairs; or (n, ...) floats, x1 of the pairs.
            steps: int.
            solver: str, see `sample`.
            label: int or (n,) ints, the classes, or None for none. Pairs keep their labels, which are
                (n,) ints for `second.fit(pairs, label)`.
            guidance: float, see `sample`. What learns from the pairs does without.
            seed: int, or None for a random one.
            batch_size: int, samples in a call. The pairs do not depend on it.
            use_ema: bool, whether to take the averages of the weights, where there are any.
            jit_compile: bool, whether to compile with XLA. None: as `compile` was told.

        Returns:
            x0, x1: (n, ...) float32 NumPy arrays; row i of one belongs to row i of the other.

        Raises:
            ValueError: see `sample`.
        """
        x1 = np.asarray(ops.convert_to_numpy(first_noise(n_or_noise, self.sample_shape, seed)))

        def draw(rows, conditions):
            conditions = conditions | {"guidance": guidance}
            options = {"use_ema": use_ema, "jit_compile": jit_compile}
            return self.sample(x1[rows], steps, solver, **conditions, **options).x

        return self._of_rows(draw, len(x1), label, batch_size), x1

    def straightness(
        self,
        n_noise_or_pairs,
        steps=100,
        label=None,
        guidance=None,
        seed=None,
        batch_size=1024,
        use_ema=True,
        jit_compile=None,
    ):
        """How far the flow is from straight lines; see `keras_ext.diffusion.straightness`.

        Args:
            n_noise_or_pairs: int, number of curves, from normal noise; or (n, ...) floats, x1 of the
                curves; or a pair of x0 and x1, (n, ...) floats each, for the lines between them.
            steps: int, number of steps or times at which the velocity is looked at.
            label: int or (n,) ints, the classes, or None for none; of pairs, theirs.
            guidance: float, see `sample`.
            seed: int, or None for a random one.
            batch_size: int, samples in a call.
            use_ema: bool, whether to take the averages of the weights, where there are any.
            jit_compile: bool, whether to compile with XLA. None: as `compile` was told.

        Returns:
            float.

        Raises:
            ValueError: for pairs of different lengths, and see `sample`.
        """
        self._steps(steps)
        given, options = n_noise_or_pairs, (use_ema, jit_compile)
        if not isinstance(given, tuple | list):
            given = first_noise(given, self.sample_shape, seed)
        function, x = bends_of(given)

        more = label_conditions(label, self.num_classes, len(x), guidance)

        def bends(rows, conditions):
            some, conditions = x[rows], more | conditions
            return run_sampler(self, function, None, some, steps, seed, conditions, options).x

        return float(np.mean(self._of_rows(bends, len(x), label, batch_size)))

    def copy(self, use_ema=True, **changes):
        """A new model of the same network, weights and arguments, not compiled.

        Args:
            use_ema: bool, whether it gets the averages of the weights, where there are any.
            **changes: arguments of the model that are to differ.

        Returns:
            A model of this class.
        """
        getattr(self, "jax_state_sync", lambda: None)()
        # The path as it is: a function that cannot be saved can be copied.
        names = ("interpolant", "time_sampling", "paired", "cond_dropout", "seed")
        arguments = {name: getattr(self, name) for name in names} | {"dtype": self.dtype_policy}
        network = deserialize_keras_object(serialize_keras_object(self.network))
        model = type(self)(network, **(arguments | changes))
        pairs = averaged(self.optimizer) if use_ema and self.compiled else []
        values = {id(variable): average for variable, average in pairs}
        for new, old in zip(model.network.variables, self.network.variables, strict=True):
            new.assign(ops.convert_to_numpy(values.get(id(old), old)))
        return model

    def distill(self, pairs, label=None, optimizer="adam", **settings):
        """A new model whose one step of Euler's does what this one does in many.

        It begins with the weights of this one and is trained on pairs at time 1 alone, where the
        step is x0 = x1 - velocity(x1, 1). So only `sample(n, steps=1)` means something. Pairs of a
        flow that has been straightened once are easy to learn; those of a bent one are not.

        Args:
            pairs: x0, x1, (n, ...) floats each, of `reflow`.
            label: (n,) ints, or None.
            optimizer: what `compile` is given.
            **settings: further arguments of `fit`, such as `epochs` and `batch_size`.

        Returns:
            A `RectifiedFlow`, trained.

        Raises:
            ValueError: for another interpolant than the linear one, pairs of different lengths, and
                bad data.
        """
        self._check_straight("One step")
        model = self.copy(time_sampling=ONE_STEP, paired=True)
        model.compile(optimizer)
        model.fit(tuple(pairs), label, **settings)
        return model

    def _steps(self, steps, solver="euler"):
        """The number of steps; a model that was trained at time 1 alone makes one."""
        if self.time_sampling != ONE_STEP:
            return 20 if steps is None else steps
        if steps not in (None, 1) or solver != "euler":
            raise ValueError(
                "The model was distilled to one step and knows of time 1 alone. Expected steps=1 and "
                f'solver="euler". Received: steps={steps}, solver={solver!r}'
            )
        return 1

    def _check_straight(self, what):
        if not self.interpolant.straight:
            raise ValueError(
                f"{what} needs the straight path. Expected interpolant='linear'. "
                f"Received: interpolant={self.interpolant}"
            )

    def _of_rows(self, function, count, label, batch_size):
        """What `function(rows, conditions)` gives of all rows, (n, ...), batch by batch."""
        size = whole("batch_size", batch_size)
        label = label_conditions(label, self.num_classes, count).get("label")
        parts = []
        for start in range(0, count, size):
            # The last batch is as large as the others, so that it compiles nothing.
            begin = max(0, min(start, count - size))
            rows = slice(begin, begin + size)
            value = function(rows, {} if label is None else {"label": label[rows]})
            parts.append(np.asarray(ops.convert_to_numpy(value))[start - begin :])
        return np.concatenate(parts)
