import keras
import numpy as np
import pytest
from gradients import differentiated, to_numpy, value_and_gradient
from keras import ops

from keras_ext.layers import VQAttention
from keras_ext.ops.code_averages import sphere

TENSORFLOW = keras.backend.backend() == "tensorflow"
# JAX has no float64 unless it is told to.
EXACT = "float64" if TENSORFLOW else "float32"
CLOSE = {"atol": 1e-12 if TENSORFLOW else 5e-5, "rtol": 1e-12 if TENSORFLOW else 1e-4}
WIDTH = 6
# Below a block (where all pairs are taken), just above two of them, and several with a rest.
SIZES = [(1, 4), (5, 2), (14, 3)]


def made(**arguments):
    """A built layer whose trained weights are random and whose codes stand for many keys."""
    arguments = {"heads": 2, "key_size": 4, "value_size": 3, "codes": 5, **arguments}
    layer = VQAttention(**{"block_length": 3, "dtype": EXACT, **arguments})
    layer.build((None, None, WIDTH))
    rng = np.random.default_rng(2)
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer


def other(layer, **arguments):
    """A layer with the weights of another and other arguments."""
    twin = VQAttention.from_config({**layer.get_config(), **arguments})
    twin.build((None, None, WIDTH))
    twin.set_weights(layer.get_weights())
    return twin


def tokens(length, batch=2, seed=0, dtype=EXACT):
    return np.random.default_rng(seed).normal(size=(batch, length, WIDTH)).astype(dtype)


def holes(length, batch=2):
    """Hidden tokens here and there, among them the first and the last."""
    mask = np.random.default_rng(length).random((batch, length)) < 0.7
    mask[0, 0] = mask[1, -1] = False
    return mask


def packed(length, batch=2):
    """Documents that begin anywhere, several in a block; an id comes back."""
    changes = np.random.default_rng(length + 1).random((batch, length)) < 0.25
    return (np.cumsum(changes, axis=1) % 3).astype("int32")


def call(layer, x, **arguments):
    """The output, compiled where operations one by one would take long."""
    run = (lambda x: layer(x, **arguments)) if TENSORFLOW else None
    return to_numpy(run(x)) if run else value_and_gradient(lambda x: layer(x, **arguments), x)[0]


def silu(x):
    return x / (1 + np.exp(-x))


def lag_bias(layer, query, head, lag):
    """The bias of a query for a lag, from the formula."""
    if layer.position_bias is None or abs(lag) > layer.block_length:
        return 0.0
    if layer.position_bias == "toeplitz":
        table = to_numpy(layer.lag_bias)[head, 0]
        return table[lag if layer.causal else lag + layer.block_length]
    angles = lag * 10000.0 ** (-np.arange(0, layer.key_size, 2) / layer.key_size)
    size = layer.key_size
    kernel = to_numpy(layer.lag_kernel)[:, head * size : (head + 1) * size]
    vector = np.concatenate([np.sin(angles), np.cos(angles)]) @ kernel * size**-0.25
    return (query + to_numpy(layer.lag_query)[head, 0]) @ vector


def reference(layer, x, mask, documents):
    """One pair of tokens at a time, in float64."""
    kernel = to_numpy(layer.input_dense.kernel).astype("float64")
    heads, size = layer.heads, layer.key_size
    widths = [heads * size, heads * size] + [heads * (layer.value_size or size)] * 2
    parts = np.split(x @ kernel, np.cumsum(widths)[: 3 if layer.gated else 2], axis=-1)
    value = silu(parts[2]) if layer.gated else parts[2]
    counts = np.maximum(to_numpy(layer.code_counts), 0.01)
    codebook = to_numpy(layer.code_sums) / counts[..., None]
    batch, length = mask.shape
    runs = np.cumsum(np.diff(documents, axis=1, prepend=documents[:, :1]) != 0, axis=1)

    def of_head(part, h):
        return part.reshape(batch, length, heads, -1)[:, :, h]

    def normal(y):
        y = y - y.mean(-1, keepdims=True)
        return y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6) * size**-0.25

    gathered = np.zeros(value.shape).reshape(batch, length, heads, -1)
    for h in range(heads):
        query, key = normal(of_head(parts[0], h)), normal(of_head(parts[1], h))
        code = ((key[:, :, None] - codebook[h]) ** 2).sum(-1).argmin(-1)
        for b, i in np.ndindex(batch, length):
            seen = [
                j
                for j in range(i + 1 if layer.causal else length)
                if mask[b, j] and runs[b, i] == runs[b, j]
            ]
            scores = [
                query[b, i] @ codebook[h, code[b, j]] + lag_bias(layer, query[b, i], h, i - j)
                for j in seen
            ]
            weights = np.exp(np.array(scores))
            for j, weight in zip(seen, weights / weights.sum(), strict=True):
                gathered[b, i, h] += weight * of_head(value, h)[b, j]
    mixed = gathered.reshape(batch, length, -1)
    mixed = silu(parts[3]) * mixed if layer.gated else mixed
    return mixed @ to_numpy(layer.output_dense.kernel)


@pytest.mark.parametrize("bias", ["xl", "toeplitz", None])
@pytest.mark.parametrize("causal", [True, False])
def test_output_is_that_of_the_formula_by_both_methods(causal, bias):
    layer = made(causal=causal, position_bias=bias, gated=bias != "toeplitz")
    x, mask, documents = tokens(11), holes(11), packed(11)
    expected = reference(layer, x, mask, documents)
    for method in ("linear", "quadratic"):
        output = call(other(layer, method=method), x, mask=mask, segment_ids=documents)
        # The codebook and the sines are float32.
        np.testing.assert_allclose(output, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("length", "block"), SIZES)
@pytest.mark.parametrize("causal", [True, False])
def test_linear_and_quadratic_give_the_same_numbers(causal, length, block):
    x, mask, documents = tokens(length), holes(length), packed(length)
    for bias in ("xl", "toeplitz"):
        layer = made(causal=causal, block_length=block, position_bias=bias)
        twin = other(layer, method="quadratic")
        for arguments in ({}, {"mask": mask}, {"mask": mask, "segment_ids": documents}):
            output = call(layer, x, **arguments)
            np.testing.assert_allclose(output, call(twin, x, **arguments), **CLOSE)


@pytest.mark.parametrize("causal", [True, False])
def test_in_training_all_keys_are_seen_with_the_codes_from_before(causal):
    """Those of the cache, too: the codebook moves after the output."""
    x, mask = tokens(14), holes(14)
    layer = made(causal=causal, decay=0.5)
    expected = call(layer, x, mask=mask)
    for method in ("linear", "quadratic"):
        twin = other(layer, method=method)
        output = to_numpy(twin(x, mask=mask, training=True))
        np.testing.assert_allclose(output, expected, **CLOSE)
        assert np.abs(to_numpy(twin.code_sums) - to_numpy(layer.code_sums)).max() > 0.1


@pytest.mark.parametrize("chunks", [[1] * 11, [2, 9], [5, 1, 5], [11]], ids=str)
def test_streaming_gives_what_the_whole_gives(chunks):
    layer, x, mask, documents = made(), tokens(11), holes(11), packed(11)
    expected = call(layer, x, mask=mask, segment_ids=documents)
    plain = call(layer, x)
    state, other_state, start, outputs, others = *([layer.initial_state(2)] * 2), 0, [], []
    shapes = keras.tree.map_structure(lambda x: tuple(x.shape), state)
    for size in chunks:
        part = slice(start, start + size)
        start += size
        output, state = layer.step(x[:, part], state, mask[:, part], documents[:, part])
        outputs.append(to_numpy(output))
        output, other_state = layer.step(x[:, part], other_state)
        others.append(to_numpy(output))
    np.testing.assert_allclose(np.concatenate(outputs, 1), expected, **CLOSE)
    np.testing.assert_allclose(np.concatenate(others, 1), plain, **CLOSE)
    assert keras.tree.map_structure(lambda x: tuple(x.shape), state) == shapes


@pytest.mark.parametrize("causal", [True, False])
def test_a_document_is_what_it_is_alone_and_no_bit_of_another_reaches_it(causal):
    """Boundaries within a block, at its edge, and three documents in one block."""
    layer = made(causal=causal)
    lengths = [4, 1, 1, 7]
    documents = np.repeat([5, 0, 5, 2], lengths)[None]
    x = tokens(13, batch=1)
    output = call(layer, x, segment_ids=documents)
    ends = np.cumsum(lengths)
    for start, end in zip(ends - lengths, ends, strict=True):
        alone = call(layer, x[:, start:end])
        np.testing.assert_allclose(output[:, start:end], alone, **CLOSE)
        changed = np.where(np.isin(np.arange(13), range(start, end))[:, None], x, 7 * x[:, ::-1])
        again = call(layer, changed, segment_ids=documents)
        np.testing.assert_array_equal(again[:, start:end], output[:, start:end])


def test_when_causal_no_token_changes_an_output_before_it():
    layer, x = made(), tokens(11)
    before = call(layer, x)
    for j in (1, 3, 8, 10):
        changed = np.where(np.arange(11)[:, None] < j, x, 1e3 * x[::-1] + 7)
        after = call(layer, changed)
        np.testing.assert_array_equal(after[:, :j], before[:, :j])
        assert np.abs(after[:, j:] - before[:, j:]).max() > 1e-3


def test_what_hidden_tokens_hold_does_not_matter_even_if_it_is_not_a_number():
    layer, x, mask = made(causal=False), tokens(11), holes(11)
    run = differentiated(lambda x: layer(x, mask=mask))
    output, (gradient,) = run(np.where(mask[..., None], x, np.nan))
    expected, _ = run(np.where(mask[..., None], x, 3.0))
    np.testing.assert_array_equal(output[mask], expected[mask])
    assert np.isfinite(gradient).all()


def test_where_all_is_hidden_the_output_is_zero():
    mask = np.zeros((2, 11), bool)
    for causal in (True, False):
        output, (gradient,) = value_and_gradient(
            lambda x, causal=causal: made(causal=causal)(x, mask=mask), tokens(11)
        )
        assert not output.any() and not gradient.any()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float32"])
def test_counts_are_float32_and_do_not_stop_at_256(policy):
    layer = made(block_length=4, dtype=policy)
    x = np.ones((1, 150, WIDTH), "float32")
    state = layer.initial_state(1)
    for _ in range(4):
        _, state = layer.step(x, state)
    counts = to_numpy(state["count"])
    assert counts.dtype == "float32"
    np.testing.assert_array_equal(np.sort(counts, axis=-1)[0], [[0, 0, 0, 0, 596]] * 2)


def distances(layer, x):
    """The keys of a layer, (b, h, n, key_size), and their distances to all codes."""
    heads, size = layer.heads, layer.key_size
    key = x @ to_numpy(layer.input_dense.kernel)[:, heads * size : 2 * heads * size]
    key = key.reshape(*x.shape[:2], heads, size).transpose(0, 2, 1, 3)
    key = key - key.mean(-1, keepdims=True)
    key = key / np.sqrt((key**2).mean(-1, keepdims=True) + 1e-6) * size**-0.25
    codebook = to_numpy(layer.codebook())[None, :, None]
    return key, ((key[:, :, :, None] - codebook) ** 2).sum(-1)


def test_the_codebook_follows_visible_keys_by_the_formula():
    layer = made(decay=0.75, commitment=0.5)
    for step in range(3):
        x, mask = tokens(9, seed=step), holes(9)
        sums, counts = (to_numpy(x).astype("float64") for x in (layer.code_sums, layer.code_counts))
        key, away = distances(layer, x)
        code = away.argmin(-1)
        loss = away.min(-1).sum(1)[mask].mean()
        for h, c in np.ndindex(2, 5):
            chosen = (code[:, h] == c) & mask
            sums[h, c] = 0.75 * sums[h, c] + 0.25 * key[:, h][chosen].sum(0)
            counts[h, c] = 0.75 * counts[h, c] + 0.25 * chosen.sum()
        layer(x, mask=mask, training=True)
        np.testing.assert_allclose(to_numpy(layer.code_sums), sums, atol=1e-5)
        np.testing.assert_allclose(to_numpy(layer.code_counts), counts, atol=1e-5)
        np.testing.assert_allclose(float(layer.losses[0]), 0.5 * loss, rtol=1e-5)
    expected = sums / np.maximum(counts, 0.01)[..., None]
    np.testing.assert_allclose(to_numpy(layer.codebook()), expected, atol=1e-5)


def test_the_codebook_stays_outside_of_training_and_where_the_layer_is_frozen():
    layer = made()
    before = layer.get_weights()
    layer(tokens(9))
    layer(tokens(9), training=False)
    layer.step(tokens(9), layer.initial_state(2))
    assert layer.losses == []
    layer.trainable = False
    layer(tokens(9), training=True)
    for old, new in zip(before, layer.get_weights(), strict=False):
        assert any(np.array_equal(old, each) for each in layer.get_weights()), new.shape
    layer.trainable = True
    layer(tokens(9), training=True)
    assert not np.array_equal(to_numpy(layer.code_sums), before[-2])


def test_codes_that_are_never_near_lose_their_weight_without_a_division_by_zero():
    layer = made(decay=0.0)
    layer(np.zeros((1, 9, WIDTH), EXACT), training=True)
    assert np.isfinite(to_numpy(layer.codebook())).all()
    assert np.sort(to_numpy(layer.code_counts), axis=-1).tolist() == [[0, 0, 0, 0, 9]] * 2


@pytest.mark.slow
def test_the_codebook_follows_the_keys_of_all_replicas(two_replicas):
    alone = two_replicas("vq_replicas.averages", replicas=1)
    both = two_replicas("vq_replicas.averages", replicas=2)
    assert np.abs(np.array(alone["start"]) - np.array(alone["sums"])).max() > 1e-2
    for name in alone:
        np.testing.assert_allclose(both[name], alone[name], atol=1e-5)


@pytest.mark.slow
def test_a_fit_on_two_replicas_is_that_on_one_device(two_replicas):
    """The commitment has the mean over the tokens of all, and no replica that of another."""
    alone = two_replicas("vq_replicas.fitted", replicas=1)
    both = two_replicas("vq_replicas.fitted", replicas=2)
    np.testing.assert_allclose(both["losses"], alone["losses"], rtol=1e-5)
    for found, expected in zip(both["weights"], alone["weights"], strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_codes_begin_as_normalised_keys_lie():
    points = to_numpy(sphere((3, 400, 16), "float32"))
    np.testing.assert_allclose(points.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose((points**2).sum(-1), 4.0, rtol=1e-5)  # sqrt(16)
    assert np.abs(points.mean(1)).max() < 0.2


def kernel_gradients(layer, x, weights):
    """Gradients of a weighted sum of the output by the kernels of query, key and value."""
    kernel = layer.input_dense.kernel

    def loss(value):
        with keras.StatelessScope([(kernel, value)]):
            return layer(x) * weights

    _, (gradient,) = value_and_gradient(loss, to_numpy(kernel))
    size = layer.heads * layer.key_size
    return gradient[:, :size], gradient[:, size : 2 * size], gradient[:, 2 * size :]


@pytest.mark.parametrize("causal", [True, False])
def test_queries_get_their_full_gradient_and_values_where_it_passes_the_cache(causal):
    layer, x = made(causal=causal), tokens(14)
    weights = np.random.default_rng(3).normal(size=x.shape)
    through = other(layer, grad_through_cache=True)
    found, wide, all_pairs = (
        kernel_gradients(each, x, weights)
        for each in (layer, through, other(layer, method="quadratic"))
    )
    tolerance = 1e-11 if TENSORFLOW else 1e-3
    for gradients in (found, wide):
        np.testing.assert_allclose(gradients[0], all_pairs[0], atol=tolerance)
    np.testing.assert_allclose(wide[2], all_pairs[2], atol=tolerance)
    assert np.abs(found[2] - all_pairs[2]).max() > 0.01
    assert np.abs(found[1]).max() > 0.01 < np.abs(found[1] - all_pairs[1]).max()


def test_through_the_cache_no_gradient_reaches_keys_or_values():
    """The last block of three tokens sees its own and the one before, and the rest as a cache."""
    last = np.zeros((1, 12, 1))
    last[:, 9:] = 1.0
    for arguments, reached in (({}, 6), ({"method": "quadratic"}, 0)):
        layer = made(position_bias=None, **arguments)
        _, (gradient,) = value_and_gradient(
            lambda x, layer=layer: layer(x) * last, tokens(12, batch=1)
        )
        nonzero = np.abs(gradient[0]).max(-1) > 0
        assert nonzero.tolist() == [i >= reached for i in range(12)]


def test_the_gradient_passes_a_quantised_key_as_if_it_were_the_key():
    """Where a code lies at each key, quantisation changes nothing, and the gradient is the true one."""
    layer = made(heads=1, codes=4, method="quadratic", position_bias=None)
    x = tokens(4, batch=1)
    key, _ = distances(layer, x)
    layer.code_sums.assign(key[0])
    kernel = layer.input_dense.kernel
    weights = np.random.default_rng(3).normal(size=x.shape)

    def output(value):
        """With codes that move with the keys."""
        kernel.assign(value)
        layer.code_sums.assign(distances(layer, x)[0][0])
        return to_numpy(layer(x) * weights).sum()

    start, step = to_numpy(kernel), 1e-3
    gradient = kernel_gradients(layer, x, weights)[1]
    for index in [(0, 4), (3, 6), (5, 7)]:
        shift = np.zeros_like(start)
        shift[index] = step
        slope = (output(start + shift) - output(start - shift)) / (2 * step)
        expected = gradient[index[0], index[1] - 4]
        np.testing.assert_allclose(slope, expected, rtol=0.02, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("causal", [True, False])
def test_xla_gives_the_gradient_of_eager_execution(causal):
    layer, x = made(causal=causal, dtype="float32"), tokens(11, dtype="float32")

    def function(x):
        return layer(x, mask=holes(11), segment_ids=packed(11))

    results = [value_and_gradient(function, x, compiled=compiled) for compiled in (False, True)]
    (output, (gradient,)), (compiled, (compiled_gradient,)) = results
    np.testing.assert_allclose(compiled, output, atol=1e-5)
    np.testing.assert_allclose(compiled_gradient, gradient, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("jit", "policy"), [(False, "mixed_float16"), (True, "mixed_bfloat16")])
def test_a_model_of_unknown_length_trains(jit, policy, tmp_path):
    inputs = keras.Input((None, WIDTH))
    layer = VQAttention(2, 4, codes=5, block_length=3, gated=True, dtype=policy)
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=jit)
    x = tokens(10, 4, dtype="float32")
    start, first = to_numpy(layer.code_sums), model.evaluate(x, x, verbose=0)
    for part in (x, x[:, :4], x):
        model.fit(part, part, epochs=4, verbose=0)
    assert model.evaluate(x, x, verbose=0) < first
    assert np.abs(to_numpy(layer.code_sums) - start).max() > 1e-2
    assert layer.code_sums.dtype == layer.code_counts.dtype == "float32"
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))


@pytest.mark.parametrize("position_bias", ["xl", "toeplitz", None])
def test_one_head_trains_in_a_graph(rng, position_bias):
    """Where the products of a batch with one codebook ended the process: see `products_with`."""
    inputs = keras.Input((20, 8))
    layer = VQAttention(1, 16, codes=16, block_length=4, position_bias=position_bias)
    model = keras.Model(inputs, layer(inputs))
    model.compile("sgd", "mse", jit_compile=False)
    x = rng.normal(size=(32, 20, 8)).astype("float32")
    losses = model.fit(x, x, batch_size=16, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all()


def test_a_mask_that_keras_attaches_is_found_and_handed_on():
    ids = np.array([[3, 1, 2, 0, 0, 2, 1], [1] * 7])
    embedded = keras.layers.Embedding(4, WIDTH, mask_zero=True)(ids)
    layer = made(causal=False, dtype="float32")
    output = layer(embedded)
    expected = layer(to_numpy(embedded), mask=ids > 0)
    np.testing.assert_array_equal(to_numpy(output), to_numpy(expected))
    assert np.array_equal(to_numpy(output._keras_mask), ids > 0)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"heads": 0}, "int of at least 1.*heads=0"),
        ({"heads": "a"}, "heads='a'"),
        ({"key_size": 1}, "int of at least 2.*key_size=1"),
        ({"key_size": 4.0}, "key_size=4.0"),
        ({"value_size": 0}, "value_size=0"),
        ({"codes": 0}, "codes=0"),
        ({"block_length": 0}, "block_length=0"),
        ({"method": "cubic"}, "Unknown method.*method='cubic'"),
        ({"position_bias": "rope"}, "Received: position_bias='rope'"),
        ({"commitment": -1}, "commitment=-1"),
        ({"decay": 1.0}, "decay=1.0"),
    ],
)
def test_bad_arguments_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        made(**arguments)


def test_no_steps_where_later_tokens_are_seen_or_weights_are_missing():
    layer = made(causal=False)
    with pytest.raises(ValueError, match="causal=False"):
        layer.step(tokens(1), layer.initial_state(2))
    layer = VQAttention(2, 4)
    with pytest.raises(ValueError, match="built=False"):
        layer.step(tokens(1), layer.initial_state(2))


def test_a_compiled_step_is_traced_once_for_all_places():
    layer = made(dtype="float32")
    x, runs = tokens(9, dtype="float32"), []

    def step(x, state):
        runs.append(None)
        return layer.step(x, state)

    if TENSORFLOW:
        import tensorflow as tf

        compiled = tf.function(step, autograph=False)
    else:
        import jax

        compiled = jax.jit(step)
    state, outputs = layer.initial_state(2), []
    for i in range(9):
        output, state = compiled(ops.convert_to_tensor(x[:, i : i + 1]), state)
        outputs.append(to_numpy(output))
    assert len(runs) == 1
    np.testing.assert_allclose(np.concatenate(outputs, 1), call(layer, x), atol=2e-5)
