import keras
import numpy as np
from keras import ops
from keras.saving import deserialize_keras_object, serialize_keras_object

from keras_ext.diffusion import schedules
from keras_ext.diffusion.amed_predictor import check_predictor
from keras_ext.diffusion.amed_steps import (
    SINGLE_STEP,
    AMEDSteps,
    analytic_eps,
    features_at,
    scalars_of,
    start_or_largest,
    written,
)
from keras_ext.diffusion.autodiff import pulled_back
from keras_ext.diffusion.checks import checked_noise, known
from keras_ext.diffusion.linear_steps import repeated
from keras_ext.diffusion.model_training import check_savable, untrained
from keras_ext.diffusion.ode import ode_sample
from keras_ext.diffusion.ode_steps import SOLVERS
from keras_ext.diffusion.predictions import aligned
from keras_ext.ops.settings import whole

TEACHERS = tuple(solver for solver in SOLVERS if solver != "rk45")
PLAIN = ("solver", "teacher_solver", "inner_steps", "prediction", "start", "end", "analytic_first")
PARTS = ("denoiser", "schedule", "predictor", "features_fn")


@keras.saving.register_keras_serializable(package="keras_ext")
class AMEDTrainer(keras.Model):
    """Teaches an `AMEDPredictor` to follow in few steps what a solver does in many.

        loss = sum over steps q of mean (u_q - u_q of the teacher)^2,  u = x / alpha

    The teacher is a solver of `ode_sample` with `inner_steps` more knots in each step; every
    (inner_steps + 1)-th of its knots is one of the student's. "euler" and "dpm2" begin each step at
    the teacher's point, "dpmpp" and "ipndm" at their own, of which they need several. The denoiser
    stays as it is. Gradients flow through it with respect to where it is asked, u_s and a s, but not
    from one step into those before.

    `compile(optimizer)` and `fit(noises)` train it, the loss is its own. A batch is an array of
    noises as `amed_sample` takes them, or a dict of them as `x` and of the denoiser's conditions. A
    batch is one update: as no gradient leaves a step, the rows of a table get the same gradients as
    in one update for each step, which the source makes, and Adam moves each by itself. Rates of
    about 0.05 suit a table, of 0.001 a network.

    A gradient of one sample in one step that is NaN or infinite is taken as 0. The metric
    `nan_gradients` counts them, over an epoch; of a gradient each of rho, c and a is one.

    Args:
        denoiser: function `(x, t, **conditions) -> (b, ...)`, with a derivative in both, such as
            `model.denoiser()`. A Keras model that is called so has its weights; it is called with
            `training=False`, and saved with this model. One that looks up its time in a table says nothing of where it should be asked.
        schedule: a `Schedule` or its name.
        predictor: `AMEDPredictor`, which is trained, and to be saved on its own.
        solver: str, the student's: "euler", "dpm2", "dpmpp" or "ipndm".
        teacher_solver: str, one of `ode_sample`'s, but "rk45".
        inner_steps: int, the teacher's knots within a step.
        prediction: str, what the denoiser predicts.
        spacing: str or list of times, see `Schedule.grid`; with a list there have to be
            `teacher_times`.
        start: float, the first time; None: 1, or where sigma is 80 if that is earlier.
        end: float above 0, the last time.
        analytic_first: bool, see `amed_sample`.
        teacher_times: list of (inner_steps + 1) steps + 1 times; None: the teacher has the spacing
            of the student.
        features_fn: function `(x, t) -> (b, features_dim)`, for a predictor with `features_dim`.
        **kwargs: of `keras.Model`.

    Call arguments:
        inputs: noises (b, ...), or a dict of them as `x` and of conditions.
        training: bool, whether to count gradients.

    Returns:
        (b, 2) float32: the loss of each sample, and its number of NaN gradients.

    Raises:
        ValueError: for an unknown name, a predictor that does not fit, a teacher's grid that does
            not contain the student's, and, when it is saved, a function that Keras cannot save.

    Example:

    >>> import keras_ext
    >>> from keras_ext.diffusion import AMEDPredictor, AMEDTrainer, amed_sample
    >>> denoiser, predictor = lambda x, t: x * t[:, None], AMEDPredictor(3)
    >>> trainer = AMEDTrainer(denoiser, "vp_continuous", predictor)
    >>> trainer.compile(keras.optimizers.Adam(0.05))
    >>> noises = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    >>> logs = trainer.fit(noises, epochs=2, verbose=0).history
    >>> logs["loss"][1] < logs["loss"][0], logs["nan_gradients"]
    (True, [0.0, 0.0])
    >>> amed_sample(denoiser, "vp_continuous", noises, 3, predictor).calls
    7

    Source: Fast ODE-based Sampling for Diffusion Models in Around 5 Steps, Zhenyu Zhou, Defang Chen,
        Can Wang, Chun Chen, 2023, https://arxiv.org/abs/2312.00094
    """

    def __init__(
        self,
        denoiser,
        schedule,
        predictor,
        solver="dpm2",
        teacher_solver="heun",
        inner_steps=3,
        prediction="eps",
        spacing="karras",
        start=None,
        end=1e-3,
        analytic_first=False,
        teacher_times=None,
        features_fn=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # states, levels and errors are float32
        check_predictor(predictor, None, features_fn)
        self.denoiser, self.predictor, self.features_fn = denoiser, predictor, features_fn
        self.schedule = schedules.get(schedule)
        self.solver, self.prediction = solver, prediction
        self.teacher_solver = known("teacher_solver", teacher_solver, TEACHERS)
        self.inner_steps = whole("inner_steps", inner_steps)
        self.spacing = spacing if isinstance(spacing, str) else [float(t) for t in spacing]
        self.start, self.end = start_or_largest(self.schedule, start, spacing), end
        self.analytic_first = analytic_first
        self.teacher_times = None if teacher_times is None else [float(t) for t in teacher_times]
        self._rule()  # refuses what does not fit
        self._teacher_grid()
        self.nan_gradients = keras.metrics.Sum("nan_gradients")
        self.mean_loss = MeanOfLosses()
        self.built = True

    def call(self, inputs, training=None):
        conditions = dict(inputs) if isinstance(inputs, dict) else {"x": inputs}
        x = checked_noise(conditions.pop("x"))
        rule, steps, count = self._rule(conditions), self.predictor.steps, ops.shape(x)[0]
        knots = self._teacher_knots(rule, x, conditions)

        def step(i, state):
            u, past, losses, gradients, features = state
            u = ops.take(knots, i, axis=0) if self.solver in SINGLE_STEP else u
            row, goal = rule.row(i), ops.take(knots, i + 1, axis=0)
            t, alpha, sigma, sigma_q, _ = row
            told = features_at(self.features_fn, self.predictor, alpha * u, t)
            direction = rule.eps(u, t, alpha)
            if self.analytic_first:
                direction = ops.where(ops.equal(i, 0), analytic_eps(u, sigma), direction)
            scalars = ops.stop_gradient(scalars_of(self.predictor, told, i, row, count))

            def end_and_past(scalars):
                end, _, new_past = rule.step(u, past, direction, scalars, row)
                return end, new_past

            if training:
                end, product, past = pulled_back(end_and_past, scalars, has_aux=True)
                gradient = mean_square_gradient(product, end - goal, sigma - sigma_q)
                gradients = written(gradients, i, gradient)
            else:
                end, past = end_and_past(scalars)
            losses = written(losses, i, mean_square(end - goal))
            features = features if told is None else written(features, i, told)
            return end, past, losses, gradients, features

        losses = ops.repeat(0.0 * mean_square(x)[None], steps, axis=0)  # (steps, b)
        widths = (3, self.predictor.features_dim or 1)
        stores = [ops.repeat(losses[:, :, None], width, axis=2) for width in widths]
        state = (knots[0], rule.nothing_past(knots[0]), losses, *stores)
        found = repeated(steps, step, state)[2:]
        losses, gradients, features = (ops.stop_gradient(each) for each in found)
        bad = ops.logical_not(ops.isfinite(gradients))
        loss = ops.sum(losses, axis=0)
        if training:
            # A number whose value is the loss and whose gradient is the one that was found.
            features = features if self.features_fn else [None] * steps
            scalars = [
                scalars_of(self.predictor, features[i], i, rule.row(i), count) for i in range(steps)
            ]
            scalars = ops.stack(scalars)  # (steps, b, 3)
            linear = ops.where(bad, 0.0, gradients) * (scalars - ops.stop_gradient(scalars))
            loss = loss + ops.sum(linear, axis=(0, 2))
        return ops.stack([loss, ops.sum(ops.cast(bad, "float32"), axis=(0, 2))], axis=-1)

    def compute_output_shape(self, input_shape):
        shape = input_shape["x"] if isinstance(input_shape, dict) else input_shape
        return (shape[0], 2)

    def compute_output_spec(self, inputs, training=None):
        shape = inputs["x"].shape if isinstance(inputs, dict) else inputs.shape
        return keras.KerasTensor((shape[0], 2), "float32")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The mean of the losses, weighted. Also counts the NaN gradients."""
        self.nan_gradients.update_state(y_pred[:, 1])
        return self.mean_loss(ops.zeros_like(y_pred[:, :1]), y_pred[:, :1], sample_weight)

    # The denoiser's variables are saved with the others, and none of those that are trained.

    @property
    def trainable_variables(self):
        return self.predictor.trainable_variables if self.trainable else []

    @property
    def non_trainable_variables(self):
        return untrained(self, self.denoiser, self.features_fn)

    @property
    def trainable_weights(self):
        return self.predictor.trainable_weights if self.trainable else []

    @property
    def non_trainable_weights(self):
        taken = {id(weight) for weight in self.trainable_weights}
        return [weight for weight in self.weights if id(weight) not in taken]

    def get_config(self):
        for name in ("denoiser", "features_fn"):
            check_savable(name, getattr(self, name))
        config = {name: getattr(self, name) for name in PLAIN}
        config |= {name: serialize_keras_object(getattr(self, name)) for name in PARTS}
        for name in ("spacing", "teacher_times"):  # Keras has made its own lists of them
            value = getattr(self, name)
            config[name] = value if value is None or isinstance(value, str) else list(value)
        return {**super().get_config(), **config}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {name: deserialize_keras_object(config[name], custom_objects) for name in PARTS}
        return cls(**{**config, **parts})

    def _rule(self, conditions=None):
        """The student's steps."""
        steps = self.predictor.steps
        times = self.schedule.grid(steps, self.spacing, self.start, self.end)
        arguments = (self.schedule, times, self.solver, self.prediction, conditions)
        return AMEDSteps(self._denoised, *arguments)

    def _teacher_grid(self):
        """The teacher's times, of which every (inner_steps + 1)-th is the student's."""
        every, times = self.inner_steps + 1, self._rule().times
        count = every * self.predictor.steps
        given = self.teacher_times or self.spacing
        if not isinstance(self.spacing, str) and self.teacher_times is None:
            raise ValueError(
                "A list of times says nothing of those in between. Expected teacher_times. "
                "Received: teacher_times=None"
            )
        if not isinstance(given, str) and len(given) != count + 1:
            raise ValueError(
                f"Expected (inner_steps + 1) steps + 1 = {count + 1} teacher_times. "
                f"Received: {len(given)}"
            )
        grid = self.schedule.grid(count, given, self.start, self.end)
        if not np.allclose(grid[::every], times, rtol=1e-5, atol=0):
            raise ValueError(
                f"The teacher's grid does not contain the student's. Expected {times} as every "
                f"{every}-th of its times. Received: {grid[::every]}"
            )
        return grid

    def _teacher_knots(self, rule, x, conditions):
        """(steps + 1, b, ...): where the teacher is, in u, at the student's times."""
        grid = self._teacher_grid()
        settings = {"solver": self.teacher_solver, "prediction": self.prediction}
        settings |= {"spacing": grid, "denoise": False, "return_trajectory": True}
        # The public one raises at a NaN; here the losses tell of it.
        result, _ = ode_sample.__wrapped__(
            self._denoised, self.schedule, x, len(grid) - 1, conditions=conditions, **settings
        )
        alpha = ops.convert_to_tensor(rule.alpha.astype("float32"))
        knots = result.trajectory[:: self.inner_steps + 1]
        return ops.stop_gradient(knots / aligned(alpha, knots))

    def _denoised(self, x, t, **conditions):
        if isinstance(self.denoiser, keras.Layer):
            conditions["training"] = False
        return self.denoiser(x, t, **conditions)


class MeanOfLosses(keras.losses.Loss):
    """Losses that the model itself computes, with Keras' weights and mean.

    Not an absolute value: a loss of NaN would give its gradient to all.
    """

    def call(self, y_true, y_pred):
        return y_pred[:, 0]


def mean_square(error):
    """(b,)."""
    return ops.mean(ops.square(error), axis=tuple(range(1, len(error.shape))))


def mean_square_gradient(product, error, length):
    """The gradient of the mean square of an error by products v^T J, (b, 3).

    What goes back through the denoiser, which may be in half precision, is of size 1: an error
    divided by its largest number, and by the length of the step that it is multiplied by.
    """
    axes = tuple(range(1, len(error.shape)))
    scale = length * ops.max(ops.abs(error), axis=axes)
    scale = ops.where(scale > 0, scale, 1.0)
    count = ops.sum(ops.ones_like(error), axis=axes)
    return product(error / aligned(scale, error)) * (2.0 * scale / count)[:, None]
