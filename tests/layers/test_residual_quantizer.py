import keras
import numpy as np
import pytest
from gradients import to_numpy
from harness_backend import value_and_gradients
from keras import ops

from keras_ext.layers import FSQ, ResidualQuantizer, VectorQuantizer


def vectors(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def learnt(codes=8, dim=3, **arguments):
    normal = keras.initializers.RandomNormal(stddev=1.0, seed=codes)
    settings = {"kmeans_steps": None, "codebook_initializer": normal, **arguments}
    return VectorQuantizer(codes, dim, **settings)


def stages(kind):
    if kind == "vq":
        return [learnt(8), learnt(5), learnt(6)]
    return [FSQ([5, 7, 8], kind), FSQ([5, 5, 5], kind), FSQ([3, 4, 9], kind)]


@pytest.mark.parametrize("kind", ["vq", "tanh", "sigmoid"])
def test_indices_stand_for_the_output_bit_for_bit(rng, kind):
    layer, z = ResidualQuantizer(stages(kind)), vectors(rng, 4, 6, 3)
    output, indices = layer(z, return_indices=True)
    assert indices.shape == (4, 6, 3)
    np.testing.assert_array_equal(layer.encode(z), indices)
    np.testing.assert_array_equal(layer.decode(indices), output)
    summed = sum(
        to_numpy(book)[to_numpy(indices)[..., i]] for i, book in enumerate(layer.codebook())
    )
    np.testing.assert_allclose(output, summed, atol=1e-6)
    assert [len(book) for book in layer.codebook()] == layer.num_codes


@pytest.mark.parametrize("kind", ["vq", "tanh"])
def test_what_a_mask_hides_may_be_anything(rng, kind):
    mask, z = np.array([[True, False, True], [True, True, False]]), vectors(rng, 2, 3, 3)
    layer = ResidualQuantizer(stages(kind))
    clean = layer(np.where(mask[..., None], z, 0.0), mask=mask, return_indices=True)
    spoilt = np.where(mask[..., None], z, np.float32(np.nan))
    for found, expected in zip(layer(spoilt, mask=mask, return_indices=True), clean, strict=True):
        np.testing.assert_array_equal(found, expected)
    layer(spoilt, mask=mask, training=True)
    assert all(np.isfinite(to_numpy(weight)).all() for weight in layer.weights)


def test_stages_quantise_what_is_left(rng):
    quantizers, z = stages("vq"), vectors(rng, 9, 3)
    output = ResidualQuantizer(quantizers)(z)
    rest = z
    for quantizer in quantizers:
        book = to_numpy(quantizer.codebook())
        rest = rest - book[np.square(rest[:, None] - book).sum(-1).argmin(-1)]
    np.testing.assert_allclose(output, z - rest, atol=1e-5)


@pytest.mark.parametrize("mode", ["tanh", "sigmoid"])
def test_stages_of_odd_levels_divide_the_error_by_them(rng, mode):
    z = 0.5 * vectors(rng, 4000, 2)
    errors = []
    for count in (1, 2, 3):
        layer = ResidualQuantizer([FSQ([5, 5], mode) for _ in range(count)])
        bounded = layer.quantizers[0].bound(z)
        errors.append(np.abs(to_numpy(layer(z)) - bounded).max())
    # Half a step of 1/2, of 1/8 and of 1/32.
    assert (np.array(errors) <= 0.25 / 4.0 ** np.arange(3) * 1.01).all()
    assert errors[2] < errors[1] < errors[0]


@pytest.mark.parametrize("kind", ["vq", "tanh"])
def test_the_gradient_passes_once(rng, kind):
    layer, z, upstream = ResidualQuantizer(stages(kind)), vectors(rng, 9, 3), vectors(rng, 9, 3)

    def gradient(function):
        def objective(tensors):
            return ops.sum(function(tensors[0]) * upstream), 0

        return value_and_gradients(objective, [ops.convert_to_tensor(z)])[1][0]

    like = layer.quantizers[0].bound if kind == "tanh" else ops.copy
    np.testing.assert_array_equal(gradient(layer), gradient(like))


def test_the_rotation_is_that_of_the_whole(rng):
    layer, z = ResidualQuantizer(stages("vq"), "rotation"), vectors(rng, 9, 3)

    def objective(tensors):
        output = layer(tensors[0])
        return ops.sum(ops.square(output)) / 2, output

    output, gradients = value_and_gradients(objective, [ops.convert_to_tensor(z)])
    # dL/dy is the code itself: turned back it points along z.
    lengths = np.linalg.norm(output, axis=-1, keepdims=True)
    size = np.linalg.norm(z, axis=-1, keepdims=True)
    np.testing.assert_allclose(gradients[0], z * (lengths / size) ** 2, rtol=1e-3, atol=1e-4)


def test_each_stage_learns_and_adds_its_loss(rng):
    layer, z = ResidualQuantizer(stages("vq")), vectors(rng, 4, 6, 3)
    layer.build(z.shape)
    before = [to_numpy(part.codebook()) + 0 for part in layer.quantizers]
    _, loss = layer(z, training=True, return_loss=True)
    assert layer.losses == []
    after = [to_numpy(part.codebook()) for part in layer.quantizers]
    for old, new in zip(before, after, strict=True):
        assert not np.array_equal(old, new)
    layer(z)
    assert len(layer.losses) == 3 and float(loss) > 0
    mask = np.arange(6) < np.array([[6], [2], [0], [3]])
    _, indices = layer(z, mask=mask, return_indices=True)
    np.testing.assert_array_equal(to_numpy(indices) < 0, np.repeat(~mask[..., None], 3, -1))


@pytest.mark.parametrize("kind", ["vq", "tanh"])
def test_saving(rng, kind, tmp_path):
    x = keras.Input((None, 3))
    layer = ResidualQuantizer(stages(kind))
    model, z = keras.Model(x, layer(x)), vectors(rng, 4, 6, 3)
    layer(z, training=True)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(z), model(z))
    configs = [each.get_config() for each in (again.layers[-1], layer)]
    parts = [[part["config"] for part in config["quantizers"]] for config in configs]
    assert parts[0] == parts[1]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_nothing_is_rounded_in_half_precision(rng, policy):
    z = vectors(rng, 9, 3)
    outputs = [ResidualQuantizer(stages("tanh"), dtype=dtype)(z) for dtype in ("float32", policy)]
    np.testing.assert_array_equal(*outputs)


SAME = FSQ([5, 5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantizers": []}, "Expected a list of FSQ"),
        ({"quantizers": SAME}, "a list of quantisers. Received: quantizers=<FSQ"),
        ({"quantizers": [FSQ([5, 5]), VectorQuantizer(4, 2)]}, "list of FSQ.*VectorQuantizer'"),
        ({"quantizers": [FSQ([5, 5]), FSQ([5])]}, "of one width"),
        ({"quantizers": [SAME, SAME]}, "different quantisers"),
        ({"quantizers": [VectorQuantizer(4, 2, distance="cosine")]}, "'l2'. Received"),
        ({"quantizers": [SAME], "gradient": "rotation"}, "of FSQ 'straight_through'"),
        ({"quantizers": [learnt()], "gradient": "none"}, "Expected a gradient of"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResidualQuantizer(**arguments)


def test_bad_indices():
    layer = ResidualQuantizer([FSQ([5, 5]), FSQ([5, 5])])
    with pytest.raises(ValueError, match=r"\(\.\.\., 2\). Received: shape=\(4,\)"):
        layer.decode(np.zeros(4, "int32"))
    with pytest.raises(ValueError, match="from 0 to 24"):
        layer.decode([[0, 25]])
