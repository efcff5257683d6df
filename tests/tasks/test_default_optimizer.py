import keras
import numpy as np
import pytest

from keras_ext.layers import LayerNorm, LearnableTemperature, ScaleNorm
from keras_ext.losses import InfoNCE
from keras_ext.optimizers import WarmupCosine
from keras_ext.tasks.compilation import default_arguments, default_optimizer
from tests.tasks.sentences import PAIRS, make_encoder

# Without compiling, which is quick, save in JAX, which compiles each operation by itself.
EAGER = keras.backend.backend() == "tensorflow"


def trained_layers():
    """A kernel beside gains, offsets and a temperature."""
    dense = keras.layers.Dense(4, name="beta_of_bias")
    return [
        dense,
        ScaleNorm(),
        LayerNorm(),
        LearnableTemperature(0.25),
        keras.layers.LayerNormalization(),
        keras.layers.GroupNormalization(2),
        keras.layers.RMSNormalization(),
    ]


def steps(variables, gradients, weight_decay):
    """What variables become by steps of the default optimizer at a rate of 0.1."""
    optimizer = default_optimizer(variables, WarmupCosine(0.1, 10), weight_decay, None)
    optimizer.build(variables)
    for each in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in each])
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def test_weight_decay_shrinks_kernels_and_nothing_else():
    layers = trained_layers()
    for layer in layers:
        layer.build((None, 4))
    variables = [variable for layer in layers for variable in layer.trainable_variables]
    rng = np.random.default_rng(0)
    for variable in variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    before = [keras.ops.convert_to_numpy(variable) for variable in variables]
    zeros = [np.zeros(variable.shape, "float32") for variable in variables]
    after = steps(variables, 3 * [zeros], weight_decay=0.5)
    decayed = [v.path for v, a, b in zip(variables, before, after, strict=True) if np.any(a != b)]
    assert decayed == ["beta_of_bias/kernel"]
    # The first step has the rate 0.
    assert np.all(after[0] < 0.95 * before[0])


def test_the_norm_that_is_clipped_is_that_of_all_gradients():
    def after(large):
        variables = [keras.Variable(np.ones(n, "float32"), name=f"kernel_{n}") for n in (3, 2)]
        small = [np.full(3, 0.1, "float32"), np.full(2, -0.2, "float32")]
        return np.concatenate(steps(variables, [small, large, small], weight_decay=0.0))

    large = [np.array([3.0, 0.0, 40.0], "float32"), np.array([0.0, -5.0], "float32")]
    norm = np.sqrt(sum(np.sum(gradient**2) for gradient in large))
    clipped = after([gradient / norm for gradient in large])
    np.testing.assert_allclose(after(large), clipped, rtol=1e-6)


def test_the_temperature_of_a_head_does_not_decay():
    encoder, head = make_encoder(), LearnableTemperature(0.25, minimum=0.1)
    # Without a gradient: one example has no negative.
    loss = InfoNCE(temperature=1.0, score="dot")
    encoder.compile(None, loss, head, learning_rate=0.1, weight_decay=1.0, run_eagerly=EAGER)
    before = {v.path: keras.ops.convert_to_numpy(v) for v in encoder.model.trainable_variables}
    encoder.fit(PAIRS[:1], epochs=4, verbose=0)
    assert abs(float(head.temperature) - 0.25) < 1e-6
    shrunk = {
        v.path.rpartition("/")[2]
        for v in encoder.model.trainable_variables
        if np.any(keras.ops.convert_to_numpy(v) != before[v.path])
    }
    assert shrunk == {"kernel", "embeddings"}


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", keras.optimizers.SGD(0.01)])
@pytest.mark.parametrize(
    "setting", [{"learning_rate": 5.0}, {"weight_decay": 0.0}, {"ema_momentum": 0.9}]
)
def test_an_optimizer_has_its_own_settings(new_recognizer, optimizer, setting):
    (name,) = setting
    for task in (new_recognizer(), make_encoder()):
        with pytest.raises(ValueError, match=f"settings of its own.*Received: optim.*{name}"):
            task.compile(optimizer=optimizer, **setting)
        task.compile(optimizer=optimizer)
        task.compile(**setting)


def test_default_settings_are_those_of_the_documentation():
    settings = default_arguments(None, None, None, None)
    assert settings == {"learning_rate": 1e-4, "weight_decay": 0.01, "ema_momentum": None}
    optimizer = default_optimizer([], **settings).inner_optimizer
    assert (optimizer.weight_decay, optimizer.use_ema, optimizer.global_clipnorm) == (
        0.01,
        False,
        1,
    )
