import keras
import numpy as np
import pytest
from gradients import to_numpy
from harness_backend import compiled, value_and_gradients
from keras import ops

from keras_ext.layers import VectorQuantizer
from keras_ext.ops.k_means import k_means
from keras_ext.ops.quantised import rotation_trick

MASK = np.array([[True] * 5, [True, True, False, False, True]])


def vectors(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def plain(codes=6, dim=3, **arguments):
    """A quantiser whose codes are apart, and which takes none of the batch."""
    normal = keras.initializers.RandomNormal(stddev=1.0, seed=1)
    settings = {"kmeans_steps": None, "codebook_initializer": normal, **arguments}
    layer = VectorQuantizer(codes, dim, **settings)
    layer.build((None, dim))
    return layer


def state(layer):
    return [to_numpy(weight).copy() for weight in layer.weights]


class Reference:
    """The layer with update="ema" in float64, row by row."""

    def __init__(self, codebook, decay, commitment, epsilon=1e-5):
        self.e, self.decay = np.float64(codebook), decay
        self.commitment, self.epsilon = commitment, epsilon
        self.n, self.m = np.ones(len(codebook)), self.e.copy()

    def step(self, rows):
        counts, sums, output, loss = np.zeros(len(self.n)), np.zeros(self.e.shape), [], 0.0
        for row in rows:
            j = np.argmin(np.sum((row - self.e) ** 2, axis=1))
            counts[j] += 1
            sums[j] += row
            output.append(self.e[j].copy())
            loss += np.mean((row - self.e[j]) ** 2) / len(rows)
        self.n = self.decay * self.n + (1 - self.decay) * counts
        self.m = self.decay * self.m + (1 - self.decay) * sums
        total, size = self.n.sum(), len(self.n)
        smooth = (self.n + self.epsilon) / (total + size * self.epsilon) * total
        self.e = self.m / smooth[:, None]
        return np.array(output), self.commitment * loss


# === The formula ===
@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_averages_are_those_of_the_formula(rng, mask):
    layer = plain(decay=0.8, commitment=0.5)
    expected = Reference(layer.codebook(), 0.8, 0.5)
    seen = np.ones((2, 5), bool) if mask is None else mask
    for _ in range(6):
        z = vectors(rng, 2, 5, 3)
        flags = {"training": True, "return_indices": True, "return_loss": True}
        output, indices, found = layer(z, mask=mask, **flags)
        rows, loss = expected.step(z[seen])
        np.testing.assert_allclose(to_numpy(output)[seen], rows, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(float(found), loss, rtol=1e-5)
        np.testing.assert_array_equal(to_numpy(indices) < 0, ~seen)
        np.testing.assert_allclose(layer.counts, expected.n, rtol=1e-5)
        np.testing.assert_allclose(layer.sums, expected.m, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(layer.codebook(), expected.e, rtol=1e-4, atol=1e-6)


def test_at_the_start_a_code_is_its_average():
    layer = plain()
    np.testing.assert_array_equal(layer.counts, np.ones(6))
    np.testing.assert_array_equal(layer.sums, layer.codebook())


def test_unused_codes_do_not_explode(rng):
    layer = plain(decay=0.5)
    largest = np.abs(layer.codebook()).max()
    z = 0.1 * vectors(rng, 8, 3) + to_numpy(layer.codebook())[0]
    step = compiled(lambda *x: _stateless(layer, *x))
    values = [weight.value for weight in layer.non_trainable_variables]
    for _ in range(200):  # 0.5 ** 200 is no float32
        values = step(values, ops.convert_to_tensor(z))
        assert all(np.isfinite(value).all() for value in values)
        assert np.abs(values[0]).max() < largest + 1


def _stateless(layer, values, z):
    return layer.stateless_call([], values, z, training=True)[1]


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_the_losses_and_their_gradients(rng, update):
    layer, z = plain(update=update, commitment=0.5, codebook_loss=2.0), vectors(rng, 7, 3)
    variables = layer.trainable_variables
    assert len(variables) == (update == "loss")

    def loss(tensors):
        x, *values = tensors
        with keras.StatelessScope(list(zip(variables, values, strict=True))):
            value = layer(x, training=True, return_loss=True)[1]
            return value, value

    code = to_numpy(layer(z))
    indices = to_numpy(layer.encode(z))
    tensors = [ops.convert_to_tensor(z), *(v.value for v in variables)]
    value, gradients = value_and_gradients(loss, tensors)
    square = np.mean((z - code) ** 2)
    np.testing.assert_allclose(value, (0.5 + 2.0 * len(variables)) * square, rtol=1e-5)
    np.testing.assert_allclose(gradients[0], 0.5 * 2 * (z - code) / z.size, rtol=1e-4, atol=1e-7)
    if variables:
        expected = np.zeros((6, 3))
        np.add.at(expected, indices, 2.0 * 2 * (code - z) / z.size)
        np.testing.assert_allclose(gradients[1], expected, rtol=1e-4, atol=1e-7)


def test_codes_are_exact_and_the_nearest(rng):
    layer, z = plain(), vectors(rng, 4, 2, 9, 3)
    codes, indices = layer(z, return_indices=True)
    np.testing.assert_array_equal(indices, layer.encode(z))
    np.testing.assert_array_equal(layer.decode(indices), codes)
    book = to_numpy(layer.codebook())
    np.testing.assert_array_equal(codes, book[to_numpy(indices)])
    distances = np.square(z[..., None, :] - book).sum(-1)
    np.testing.assert_array_equal(indices, distances.argmin(-1))


@pytest.mark.parametrize("hidden", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("update", "distance"), [("ema", "l2"), ("loss", "cosine")])
def test_what_a_mask_hides_may_be_anything(rng, update, distance, hidden):
    z, found = vectors(rng, 2, 5, 3), []
    for value in (0.0, hidden):
        x = ops.convert_to_tensor(np.where(MASK[..., None], z, np.float32(value)))
        layer = VectorQuantizer(4, 3, update, distance=distance, threshold_dead=0.9, seed=0)

        def objective(tensors, layer=layer):
            with keras.StatelessScope():
                output, loss = layer(tensors[0], mask=MASK, training=True, return_loss=True)
                return ops.sum(ops.square(output)) + loss, 0

        for _ in range(3):
            output = layer(x, mask=MASK, training=True)
        gradient = to_numpy(value_and_gradients(objective, [x])[1][0])
        assert not gradient[~MASK].any()
        found.append([to_numpy(output), gradient, *state(layer)])
    for clean, spoilt in zip(*found, strict=True):
        assert np.isfinite(spoilt).all()
        np.testing.assert_array_equal(spoilt, clean)


# === Gradients ===
def gradient_of(function, x, upstream):
    def objective(tensors):
        return ops.sum(function(tensors[0]) * upstream), 0

    return to_numpy(value_and_gradients(objective, [ops.convert_to_tensor(x)])[1][0])


def test_straight_through(rng):
    layer, z, upstream = plain(), vectors(rng, 9, 3), vectors(rng, 9, 3)
    np.testing.assert_array_equal(gradient_of(layer, z, upstream), upstream)


def test_the_rotation_trick_turns_the_gradient_as_the_code_is_turned_from_the_input(rng):
    z, code, upstream = vectors(rng, 50, 4), 3 * vectors(rng, 50, 4), vectors(rng, 50, 4)
    np.testing.assert_array_equal(rotation_trick(code, z), code)
    found = gradient_of(lambda x: rotation_trick(code, x), z, upstream)

    def cosine(x, y):
        return np.sum(x * y, -1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)

    np.testing.assert_allclose(cosine(found, z), cosine(upstream, code), atol=1e-5)
    scale = np.linalg.norm(code, axis=-1) / np.linalg.norm(z, axis=-1)
    lengths = np.linalg.norm(found, axis=-1) / np.linalg.norm(upstream, axis=-1)
    np.testing.assert_allclose(lengths, scale, rtol=1e-4)
    # What stands upright on both is turned by nothing.
    upright = upstream.copy()
    for i in range(50):
        basis, _ = np.linalg.qr(np.stack([z[i], code[i]], axis=1))
        upright[i] -= basis @ (basis.T @ upright[i])
    found = gradient_of(lambda x: rotation_trick(code, x), z, upright)
    np.testing.assert_allclose(found, scale[:, None] * upright, rtol=1e-3, atol=1e-4)


def test_the_rotation_of_opposite_and_empty_vectors():
    code, z = np.float32([[0, 2], [1, 0], [0, 0]]), np.float32([[0, -1], [0, 0], [3, 0]])
    np.testing.assert_array_equal(rotation_trick(code, z), code)
    found = gradient_of(lambda x: rotation_trick(code, x), z, np.ones((3, 2), "float32"))
    np.testing.assert_allclose(found, [[2, -2], [1, 1], [1, 1]])


def test_the_layer_takes_the_rotation(rng):
    layer, z, upstream = plain(gradient="rotation"), vectors(rng, 9, 3), vectors(rng, 9, 3)
    expected = gradient_of(lambda x: rotation_trick(layer.decode(layer.encode(z)), x), z, upstream)
    found = gradient_of(layer, z, upstream)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(found - upstream).max() > 0.1


# === The start, and dead codes ===
def clusters(rng, count=40):
    centres = np.float32([[9, 0], [-9, 0], [0, 9], [0, -9]])
    return centres, centres[rng.permutation(count) % 4] + 0.1 * vectors(rng, count, 2)


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_the_first_batch_of_training_makes_the_codebook(rng, update):
    layer, (_, z) = VectorQuantizer(8, 2, update=update, seed=0), clusters(rng)
    before = to_numpy(layer.codebook())
    layer(z, training=False)
    layer(z[None], mask=np.zeros((1, 40), bool), training=True)  # nothing that can be seen
    assert float(layer.started) == 0.0
    if update == "loss":  # averages of nothing shrink codes a little
        np.testing.assert_array_equal(layer.codebook(), before)
    codes = layer(z, training=True)
    assert float(layer.started) == 1.0
    assert np.square(codes - z).mean() < 0.03
    started = state(layer)[0]
    layer(z + 100.0, training=True)
    assert np.abs(state(layer)[0] - started).max() < (20 if update == "ema" else 1e-6)


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_averages_begin_with_the_codebook(rng, update):
    z, states = vectors(rng, 30, 2), []
    for empty in (0, 5):
        layer = VectorQuantizer(8, 2, update, decay=0.5, kmeans_steps=0)
        for _ in range(empty):
            layer(z, mask=np.zeros(30, bool), training=True)
        layer.seed_generator.state.assign(np.zeros(2))
        layer(z, training=True)
        states.append(state(layer))
    for expected, found in zip(*states, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_k_means_is_that_of_loops(rng):
    rows, noise = vectors(rng, 30, 2), rng.uniform(size=30).astype("float32")
    weights = (rng.uniform(size=30) < 0.7).astype("float32")
    seen = weights > 0
    centres = rows[seen][np.argsort(noise[seen])[:5]]
    for _ in range(4):
        nearest = np.square(rows[:, None] - centres).sum(-1).argmin(-1)
        for j in range(5):
            if (seen & (nearest == j)).any():
                centres[j] = rows[seen & (nearest == j)].mean(0)
    found = k_means(rows, weights, noise, 5, 4)
    np.testing.assert_allclose(found, centres, rtol=1e-5, atol=1e-6)


def test_fewer_vectors_than_codes(rng):
    layer, z = VectorQuantizer(16, 2, kmeans_steps=0, seed=0), vectors(rng, 3, 2)
    np.testing.assert_array_equal(layer(z, training=True), z)


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_dead_codes_become_vectors_of_the_batch(rng, update):
    layer = plain(4, 2, decay=0.0, threshold_dead=0.5, update=update)
    layer.base.assign([[0, 0], [99, 0], [0, 99], [1, 0]])
    z = np.concatenate([0.1 * vectors(rng, 12, 2), [[1.0, 0.0]] * 2]).astype("float32")
    z[-1] += 0.01
    layer(z, training=True)
    codes, counts = to_numpy(layer.codebook()), to_numpy(layer.counts)
    np.testing.assert_allclose(counts, [12, 3.5, 3.5, 2])
    for j in (1, 2):
        assert (np.abs(z - codes[j]).max(1) < 1e-6).any()
        if update == "ema":
            np.testing.assert_allclose(layer.sums[j], 3.5 * codes[j], rtol=1e-5)
    if update == "loss":
        np.testing.assert_array_equal(codes[0], [0, 0])


def test_a_threshold_of_0_leaves_codes_alone(rng):
    layer = plain(2, 2, update="loss")
    layer.base.assign([[0, 0], [99, 0]])
    layer(vectors(rng, 9, 2), training=True)
    np.testing.assert_array_equal(layer.codebook(), [[0, 0], [99, 0]])


# === Cosine ===
def test_cosine_knows_directions_only(rng):
    layer, z = plain(distance="cosine"), vectors(rng, 20, 3)
    lengths = rng.uniform(0.1, 1e4, (20, 1)).astype("float32")
    codes, indices = layer(z, return_indices=True)
    np.testing.assert_array_equal(layer.encode(z * lengths), indices)
    book = to_numpy(layer.base)
    book /= np.linalg.norm(book, axis=1, keepdims=True)
    np.testing.assert_array_equal(indices, np.argmax(z @ book.T, -1))
    for _ in range(30):
        codes = layer(z * 1e4, training=True)
    np.testing.assert_allclose(np.linalg.norm(codes, axis=-1), 1.0, rtol=1e-5)
    assert np.abs(layer.base).max() <= 1.0
    np.testing.assert_allclose(np.linalg.norm(layer.codebook(), axis=-1), 1.0, rtol=1e-5)


# === State, policies, saving ===
@pytest.mark.parametrize("update", ["ema", "loss"])
def test_only_training_changes_the_state(rng, update):
    settings = {"update": update, "kmeans_steps": 3, "threshold_dead": 0.1}
    layer, z = plain(**settings), vectors(rng, 20, 3)
    before = state(layer)
    layer(z)
    layer(z, training=False)
    layer.encode(z)
    layer.trainable = False
    layer(z, training=True)
    for old, new in zip(before, state(layer), strict=True):
        np.testing.assert_array_equal(old, new)
    layer.trainable = True
    layer(z, training=True)
    assert not np.array_equal(before[-3], state(layer)[-3])


def test_the_loss_is_added_where_it_is_not_returned(rng):
    layer, z = plain(), vectors(rng, 9, 3)
    _, loss = layer(z, return_loss=True)
    assert layer.losses == []
    layer(z)
    np.testing.assert_array_equal(layer.losses, [loss])


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_nothing_is_rounded_in_half_precision(rng, policy):
    z = 4 + vectors(rng, 50, 3) / 100  # codes that half precision cannot tell apart
    layers = [plain(40, dtype=dtype, kmeans_steps=5, seed=0) for dtype in ("float32", policy)]
    codes = [to_numpy(layer(z, training=True)) for layer in layers]
    assert codes[1].dtype == np.float32 and len(np.unique(codes[0], axis=0)) > 20
    np.testing.assert_array_equal(*codes)
    for each in zip(*map(state, layers), strict=True):
        np.testing.assert_array_equal(*each)


def test_a_saved_layer_goes_on_where_it_was(rng, tmp_path):
    x = keras.Input((3,))
    layer = VectorQuantizer(6, 3, threshold_dead=0.05, kmeans_steps=2)
    model = keras.Model(x, layer(x))
    for _ in range(3):
        layer(vectors(rng, 9, 3), training=True)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").layers[-1]
    for old, new in zip(state(layer), state(again), strict=True):
        np.testing.assert_array_equal(old, new)
    assert float(again.started) == 1.0
    z = vectors(rng, 9, 3)
    layer(z, training=True)
    again(z, training=True)
    np.testing.assert_array_equal(layer.codebook(), again.codebook())


# === Replicas ===
def test_two_replicas_are_one_device(two_replicas):
    difference = two_replicas("layers.test_vector_quantizer.halves")
    assert difference["loss"] < 1e-6 and difference["state"] < 1e-5


def test_two_replicas_draw_the_same_codes_of_both(two_replicas):
    found = two_replicas("layers.test_vector_quantizer.drawn")
    assert found["same"] and found["of_the_batch"] and found["halves"] == [True, True]


def on_halves(strategy, layer, z, mask):
    """Loss of each replica after a training call, each with its half."""
    import tensorflow as tf

    def each():
        half = len(z) // 2
        start = half * tf.distribute.get_replica_context().replica_id_in_sync_group
        parts = (tf.constant(part)[start : start + half] for part in (z, mask))
        return layer(next(parts), mask=next(parts), training=True, return_loss=True)[1]

    losses = tf.function(lambda: strategy.run(each), autograph=False)()
    return [float(loss) for loss in strategy.experimental_local_results(losses)]


def halves(strategy):
    """How far two replicas are from one device after some steps; the halves see unequally much."""
    rng = np.random.default_rng(0)
    with strategy.scope():
        layer = plain(decay=0.8)
    single = plain(decay=0.8)
    losses = []
    for _ in range(4):
        z = vectors(rng, 2, 5, 3)
        found = on_halves(strategy, layer, z, MASK)
        _, loss = single(z, mask=MASK, training=True, return_loss=True)
        losses.append(abs(np.mean(found) - float(loss)))
    pairs = zip(state(layer), state(single), strict=True)
    return {"loss": max(losses), "state": max(float(np.abs(a - b).max()) for a, b in pairs)}


def drawn(strategy):
    """Codes that are drawn: whether replicas agree, and what they are made of."""
    z = vectors(np.random.default_rng(0), 2, 5, 3)
    with strategy.scope():
        layer = VectorQuantizer(8, 3, "loss", kmeans_steps=0, threshold_dead=0.9, decay=0.0)
        layer.build((None, 3))
    for _ in range(2):
        on_halves(strategy, layer, z, MASK)
    values = [to_numpy(part) for part in strategy.experimental_local_results(layer.base.value)]
    rows = [part[mask] for part, mask in zip(z, MASK, strict=True)]
    near = [(np.abs(values[0][:, None] - part).max(-1) < 1e-6).any(1) for part in rows]
    return {
        "same": bool((values[0] == values[-1]).all()),
        "of_the_batch": bool((near[0] | near[1]).all()),
        "halves": [bool(part.any()) for part in near],
    }


# === What is refused ===
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"codes": 0}, "codes to be an int of at least 1"),
        ({"dim": 1.5}, "dim to be an int"),
        ({"update": "adam"}, "Unknown update.*update='adam'"),
        ({"distance": "l1"}, "Unknown distance"),
        ({"gradient": "none"}, "Unknown gradient"),
        ({"decay": 1.0}, r"decay in \[0, 1\)"),
        ({"threshold_dead": -0.1}, "threshold_dead in"),
        ({"commitment": -1.0}, "weights of at least 0.*commitment=-1.0"),
        ({"epsilon": 0.0}, "epsilon above 0"),
        ({"kmeans_steps": -1}, "kmeans_steps to be an int of at least 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        VectorQuantizer(**{"codes": 4, "dim": 2, **arguments})


def test_bad_inputs():
    layer = plain()
    for call in (layer, layer.encode, lambda x: layer.compute_output_shape(x.shape)):
        with pytest.raises(ValueError, match=r"\(\.\.\., 3\). Received: shape=\(4, 2\)"):
            call(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="from 0 to 5. Received: indices from 0 to 6"):
        layer.decode([0, 6])
    with pytest.raises(ValueError, match="integer dtype"):
        layer.decode([0.0])
    found = to_numpy(compiled(layer.decode)(ops.convert_to_tensor([5, 6])))
    assert np.isnan(found).all(1).tolist() == [False, True]
