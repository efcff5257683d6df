import keras
import numpy as np
import pytest
from keras import optimizers
from keras.ops import convert_to_numpy

from keras_ext import layers, models
from keras_ext.optimizers import (
    GradientAccumulation,
    NonFiniteGuard,
    ParameterwiseLR,
    Tiger,
    layerwise_decay,
)
from tests.optimizers.steps import stepper

ENCODER = {
    "vocabulary_size": 11,
    "num_layers": 3,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 12,
}
LINEAR = {
    "SGD": lambda rate: optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=0.1),
    "AdamW": lambda rate: optimizers.AdamW(rate, weight_decay=0.1, amsgrad=True),
    "Adafactor": lambda rate: optimizers.Adafactor(rate, relative_step=False),
    "Lion": lambda rate: optimizers.Lion(rate, weight_decay=0.1),
    "Lamb": lambda rate: optimizers.Lamb(rate),
    "Muon": lambda rate: optimizers.Muon(rate, weight_decay=0.1),
    "RMSprop": lambda rate: optimizers.RMSprop(rate, momentum=0.5, centered=True),
    "Nadam": optimizers.Nadam,
    "Adadelta": optimizers.Adadelta,
    "Tiger": lambda rate: Tiger(rate, gradient_accumulation_steps=2),
}


def new_variables(names=("kernel", "embeddings", "bias"), constraint=None):
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 2), "embeddings": (5, 2), "bias": (4,)}
    variables = [
        keras.Variable(rng.normal(size=shapes[name]).astype("float32"), name=name) for name in names
    ]
    for variable in variables:
        variable.constraint = constraint
    return variables


def gradients_of(variables, step):
    rng = np.random.default_rng(10 + step)
    return [keras.ops.convert_to_tensor(rng.normal(size=v.shape), "float32") for v in variables]


def trained(optimizer, variables, steps=4):
    for step in range(steps):
        optimizer.apply(gradients_of(variables, step), variables)
    return [convert_to_numpy(variable) for variable in variables]


@pytest.mark.slow
@pytest.mark.parametrize("name", LINEAR)
def test_a_multiplier_is_that_of_the_learning_rate(name):
    optimizer = ParameterwiseLR(LINEAR[name](0.05), [["kernel", 0.5], ["bias", 3.0]])
    kernel, table, bias = trained(optimizer, new_variables())
    for i, (actual, rate) in enumerate([(kernel, 0.025), (table, 0.05), (bias, 0.15)]):
        # What a step adds to a weight is rounded once more, times the multiplier.
        expected = trained(LINEAR[name](rate), new_variables())[i]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6)


def test_multipliers_hold_in_a_multi_optimizer():
    def base(rate):
        others = {"kernel": optimizers.SGD(10 * rate)}
        return optimizers.MultiOptimizer(optimizers.OptimizerMap(optimizers.Adam(rate), others))

    actual = trained(ParameterwiseLR(base(0.01), [["kernel|bias", 2.0]]), new_variables())
    slow, fast = (trained(base(rate), new_variables()) for rate in (0.01, 0.02))
    for left, right in zip(actual, [fast[0], slow[1], fast[2]], strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-6)


def test_a_multiplier_of_0_leaves_the_bits_and_one_of_1_leaves_the_update():
    rules = [["kernel", 0.0], ["embeddings", 1.0]]
    variables = new_variables(constraint=keras.constraints.UnitNorm())
    start = convert_to_numpy(variables[0])
    optimizer, plain = ParameterwiseLR(optimizers.Adam(0.1), rules), optimizers.Adam(0.1)
    kernel, table, _ = trained(optimizer, variables)
    expected = trained(plain, new_variables(constraint=keras.constraints.UnitNorm()))
    np.testing.assert_array_equal(kernel, start)
    np.testing.assert_array_equal(table, expected[1])
    for left, right in zip(optimizer.inner_optimizer.variables, plain.variables, strict=True):
        np.testing.assert_array_equal(convert_to_numpy(left), convert_to_numpy(right))


def test_the_first_rule_that_matches_wins():
    rules = [["^kernel$", 2.0], ["e", 3.0], ["s", 5.0]]
    optimizer = ParameterwiseLR(optimizers.SGD(0.1), rules)
    variables = new_variables()
    optimizer.build(variables)
    assert [optimizer.multiplier(variable) for variable in variables] == [2.0, 3.0, 5.0]


def test_averages_are_those_of_the_final_weights():
    adam = optimizers.Adam(0.1, use_ema=True, ema_momentum=0.75)
    optimizer = ParameterwiseLR(adam, [["kernel", 0.25], ["bias", 0.0]])
    variables, averages = new_variables(), None
    for step in range(5):
        optimizer.apply(gradients_of(variables, step), variables)
        values = [convert_to_numpy(variable).astype("float64") for variable in variables]
        averages = averages or values
        averages = [0.75 * a + 0.25 * v for a, v in zip(averages, values, strict=True)]
        for left, right in zip(adam._model_variables_moving_average, averages, strict=True):
            np.testing.assert_allclose(convert_to_numpy(left), right, rtol=0, atol=3e-7)


def test_constraints_hold_for_the_final_weights():
    variables = new_variables(constraint=keras.constraints.MaxNorm(0.5, axis=None))
    optimizer = ParameterwiseLR(optimizers.SGD(0.1), [[".", 30.0]])
    for value in trained(optimizer, variables):
        assert np.linalg.norm(value) <= 0.5 + 1e-6


def table_gradient(rows, sparse):
    """A gradient of ones in some rows of a table, save that row 4 is padding, with zeros."""
    values = np.ones((len(rows), 2), "float32")
    values[np.equal(rows, 4)] = 0.0
    if sparse:
        return values, np.array(rows)
    dense = np.zeros((5, 2), "float32")
    np.add.at(dense, rows, values)
    return dense


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("xla", [False, True])
def test_lazy_rows_move_only_where_there_is_a_gradient(sparse, xla):
    (table,) = variables = new_variables(["embeddings"])
    optimizer = ParameterwiseLR(optimizers.Adam(0.1), [], lazy_rows="embeddings$")
    step = stepper(optimizer, variables, xla)
    for rows in ([0, 1, 4], [3, 3, 4]):
        before = convert_to_numpy(table)
        step([table_gradient(rows, sparse)])
        moved = np.any(convert_to_numpy(table) != before, axis=-1)
        assert np.flatnonzero(moved).tolist() == sorted(set(rows) - {4})
    # Without lazy rows, the momentum of the first step would have moved rows 0 and 1 again.
    assert np.all(convert_to_numpy(optimizer.inner_optimizer._momentums[0])[:2] != 0)


def test_lazy_rows_obey_their_multiplier():
    (table,) = new_variables(["embeddings"])
    start, gradient = convert_to_numpy(table), np.zeros((5, 2), "float32")
    gradient[2] = [1.0, -2.0]
    rules = [["embeddings", 0.5]]
    optimizer = ParameterwiseLR(optimizers.SGD(0.1), rules, lazy_rows="embeddings")
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [table])
    np.testing.assert_allclose(convert_to_numpy(table), start - 0.05 * gradient, rtol=0, atol=1e-7)


def test_lazy_rows_of_a_window_are_those_of_all_its_micro_batches():
    (table,) = variables = new_variables(["embeddings"])
    start = convert_to_numpy(table)
    lazy = ParameterwiseLR(optimizers.Adam(0.1), [], lazy_rows="embeddings")
    step = stepper(GradientAccumulation(lazy, steps=2), variables)
    for row in (1, 3):
        step([table_gradient([row], sparse=True)])
    assert np.flatnonzero(np.any(convert_to_numpy(table) != start, axis=-1)).tolist() == [1, 3]


def test_two_replicas_move_the_rows_of_both(two_replicas):
    moved, single = two_replicas("wrapper_cases.lazy_rows")
    assert moved == [[1, 3], [1, 3]]
    assert single == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rules": [["kernel", -0.5]]}, "multiplier of at least 0"),
        ({"rules": [["kernel", float("nan")]]}, "finite multiplier"),
        ({"rules": [["kernel", float("inf")]]}, "finite multiplier"),
        ({"rules": [["kernel"]]}, "a pattern and a finite"),
        ({"rules": [[0.5, "kernel"]]}, "a pattern and a finite"),
    ],
)
def test_rules_that_make_no_sense_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        ParameterwiseLR(optimizers.SGD(), **arguments)


@pytest.mark.parametrize("arguments", [{"rules": [["x", 1.0]]}, {"rules": [], "lazy_rows": "x"}])
def test_a_rule_that_matches_nothing_raises(arguments):
    with pytest.raises(ValueError, match=r"matches no variable.*'x'"):
        ParameterwiseLR(optimizers.SGD(), **arguments).build(new_variables())


def averaging(optimizer, **options):
    return optimizer(use_ema=True, **options)


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (lambda: optimizers.ScheduleFreeAdamW(), "slots hold the weights"),
        (lambda: optimizers.Ftrl(), "slots hold the weights"),
        (lambda: averaging(optimizers.SGD, ema_overwrite_frequency=3), "SwapEMAWeights"),
        (
            lambda: optimizers.MultiOptimizer(optimizers.OptimizerMap(averaging(optimizers.Adam))),
            "MultiOptimizer hides the averages",
        ),
    ],
)
def test_optimizers_that_keep_copies_of_the_weights_are_refused(inner, message):
    with pytest.raises(ValueError, match=message):
        ParameterwiseLR(inner(), [["kernel", 0.5]])


def test_a_multi_optimizer_by_function_is_checked_once_its_optimizers_are_known():
    base = optimizers.MultiOptimizer(lambda variable: optimizers.Ftrl())
    with pytest.raises(ValueError, match="slots hold the weights"):
        ParameterwiseLR(base, [["kernel", 0.5]]).build(new_variables())


def test_lazy_rows_around_tiger_are_refused():
    with pytest.raises(ValueError, match="its own argument lazy_rows"):
        ParameterwiseLR(Tiger(), [], lazy_rows="embeddings")


def multipliers(model, decay):
    """The multiplier of each variable, as an optimizer finds it."""
    optimizer = ParameterwiseLR(optimizers.SGD(), layerwise_decay(model, decay))
    NonFiniteGuard(optimizer).build(model.trainable_variables)
    return {v.path: optimizer.multiplier(v) for v in model.trainable_variables}


def test_layerwise_decay_of_an_encoder_falls_from_the_last_block_to_the_embeddings():
    heads = {"with_mlm": True, "with_nsp": True, "with_pool": True, "embedding_dim": 6}
    for path, found in multipliers(models.BertEncoder(**ENCODER, **heads), 0.5).items():
        blocks = {"Embedding-": 0.125, "Transformer-0-": 0.25, "Transformer-1-": 0.5}
        assert found == next((m for part, m in blocks.items() if path.startswith(part)), 1.0)


@pytest.mark.parametrize(
    "cls",
    [
        models.AlbertEncoder,
        models.BigramRoFormerEncoder,
        models.ElectraEncoder,
        models.NezhaEncoder,
        models.RoFormerV2Encoder,
    ],
)
def test_layerwise_decay_knows_all_encoders(cls):
    found = multipliers(cls(**ENCODER), 0.5)
    # ALBERT has one block, of shared weights.
    first = 0.5 if cls is models.AlbertEncoder else 0.125
    assert {m for path, m in found.items() if path.startswith("Embedding")} == {first}
    assert found[list(found)[-1]] == 1.0
    assert len(set(found.values())) == (2 if cls is models.AlbertEncoder else 4)


def test_layerwise_decay_of_a_model_with_a_head_survives_saving(tmp_path):
    encoder = models.BertEncoder(**ENCODER)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in encoder.input}
    hidden = keras.Sequential([keras.layers.Dense(5), keras.layers.Dense(4)])(encoder(inputs))
    model = keras.Model(inputs, layers.EfficientGlobalPointer(2, 4, name="head")(hidden))
    rules = layerwise_decay(model, 0.5)
    model.compile(ParameterwiseLR(optimizers.SGD(), rules), "mse")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.optimizer.build(loaded.trainable_variables)
    found = [loaded.optimizer.multiplier(v) for v in loaded.trainable_variables]
    assert found == list(multipliers(model, 0.5).values())
    assert found[0] == 0.125
    assert found[-8:] == [1.0] * 8


def test_layerwise_decay_of_plain_models_is_by_layer():
    def names(*values):
        parts = [keras.layers.Dense(3, name=name) for name in values]
        model = keras.Sequential([keras.Input((3,)), *parts])
        return list(multipliers(model, 0.5).values())[::2]

    assert names("dense", "dense_1", "dense_2") == [0.25, 0.5, 1.0]
    assert names("dense_7", "dense_8", "out") == [0.5, 1.0, 1.0]
    assert names("in", "block_0", "between", "block_1", "out") == [0.25, 0.5, 0.5, 1.0, 1.0]
    assert names("first", "second", "third") == [0.25, 0.5, 1.0]
    assert names("embedding", "embedding_1", "third") == [0.5, 0.5, 1.0]


def test_layerwise_decay_leaves_out_what_is_frozen():
    encoder = models.BertEncoder(**ENCODER)
    whole = multipliers(encoder, 0.5)
    for layer in encoder.layers:
        layer.trainable = layer.name.startswith("Transformer-1")
    rest = multipliers(encoder, 0.5)
    assert rest == {path: whole[path] for path in rest}
    assert set(rest.values()) == {0.5}


def test_layerwise_decay_refuses_what_it_cannot_tell_apart():
    inner = keras.layers.Bidirectional(keras.layers.SimpleRNN(3, name="out"), name="rnn")
    outer = keras.layers.Dense(3, name="forward_out")
    model = keras.Sequential([keras.Input((2, 3)), outer, inner])
    with pytest.raises(ValueError, match="also that of a layer inside another"):
        layerwise_decay(model, 0.5)


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.5, float("nan")])
def test_layerwise_decay_out_of_range_raises(decay):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"decay in \(0, 1\]"):
        layerwise_decay(model, decay)


def test_layerwise_decay_of_a_model_without_weights_raises():
    with pytest.raises(ValueError, match="built model with trainable weights"):
        layerwise_decay(keras.Sequential([keras.layers.Dense(3)]), 0.5)
