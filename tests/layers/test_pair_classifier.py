import keras
import numpy as np
import pytest
from keras import ops

from keras_ext.layers.pair_classifier import PairClassifier


def pairs(batch=5, width=4, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, 2, width)).astype("float32")


def built(**arguments):
    """A layer with a random bias."""
    layer = PairClassifier(3, **arguments)
    layer.build((None, 2, 4))
    layer.dense.bias.assign([0.5, -1.0, 2.0])
    return layer


@pytest.mark.parametrize(
    "parts",
    [["first", "second", "difference"], ["difference"], ["product", "second"]],
)
def test_logits_are_those_of_the_formula(parts):
    layer, x = built(parts=parts), pairs()
    u, v = x[:, 0], x[:, 1]
    named = {"first": u, "second": v, "difference": abs(u - v), "product": u * v}
    rows = np.concatenate([named[part] for part in parts], axis=-1)
    expected = rows @ ops.convert_to_numpy(layer.dense.kernel) + [0.5, -1.0, 2.0]
    assert layer.dense.kernel.shape == (4 * len(parts), 3)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)


def test_the_default_is_that_of_sbert():
    assert PairClassifier(3).parts == ["first", "second", "difference"]


def test_the_difference_and_the_product_do_not_depend_on_the_order_of_a_pair():
    layer = built(parts=["difference", "product"])
    np.testing.assert_allclose(layer(pairs()), layer(pairs()[:, ::-1].copy()), rtol=1e-5, atol=1e-6)


def accuracy(x, labels, parts):
    """Of a head that was trained on these very pairs, in half precision."""
    head = PairClassifier(2, parts, dtype="mixed_float16")
    model = keras.Sequential([keras.Input((2, 4)), head])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.1), loss, jit_compile=True)
    for _ in range(40):
        model.train_on_batch(x, labels)
    return np.mean(model.predict_on_batch(x).argmax(axis=-1) == labels)


def test_training_tells_near_from_far():
    """Which pairs are near is no linear function of u and v, but of |u - v|."""
    rng = np.random.default_rng(0)
    u, labels = rng.normal(size=(128, 4)), np.arange(128) % 2
    x = np.stack([u, u + np.where(labels[:, None], 2.0, 0.1) * rng.normal(size=u.shape)], axis=1)
    x = x.astype("float32")
    assert accuracy(x, labels, ["first", "second", "difference"]) > 0.9
    assert accuracy(x, labels, ["first", "second"]) < 0.7


def test_logits_are_float32():
    layer = PairClassifier(3, dtype="mixed_bfloat16")
    assert keras.backend.standardize_dtype(layer(pairs()).dtype) == "float32"
    assert keras.backend.standardize_dtype(layer(keras.Input((2, 4))).dtype) == "float32"


def test_bad_arguments_raise():
    with pytest.raises(ValueError, match="Received: classes=0"):
        PairClassifier(0)
    for parts in ([], ["first", "first"], ["third"]):
        with pytest.raises(ValueError, match="each once. Received: parts="):
            PairClassifier(2, parts)
    for shape in ((4, 3, 8), (4, 8), (4, 1, 8)):
        with pytest.raises(ValueError, match=r"\(batch, 2, d\). Received: shape="):
            PairClassifier(2)(np.zeros(shape, "float32"))
