import keras
import pytest
from keras import layers
from test_all import LAYER_ROWS

from keras_ext.optimizers.kinds import center, is_vector, kind, leaf, undecayed
from tests.optimizers.steps import values

# Every name that a layer, a head or an encoder of the package gives to a weight it trains. A new
# name belongs into `optimizers/kinds.py`, if that is to know it, and here.
KINDS = {
    "kernel": "matrix",
    "embeddings": "table",
    "bias": "bias",
    "beta": "bias",
    "gamma": "gain",
    "gain": "gain",
    "log_scale": "temperature",
    "recurrent_kernel": "matrix",  # of the cells of Keras
    "lag_kernel": "matrix",
    "lag_bias": "bias",
    "lag_query_bias": "bias",
    "part_embeddings": "table",
    "residual_embeddings": "table",
    "shift": "bias",
    "table": "matrix",
    "negative_slope": "vector",
    "raw_width": "vector",
}

DENSE = {"kernel": "matrix", "bias": "bias"}


@pytest.fixture(scope="module")
def trained_weights():
    """All weights that the objects of the sweep train, as they begin."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("names are the same on all backends")
    weights = []
    for row in LAYER_ROWS:
        layer = row.make()
        row.build(layer)
        weights += layer.trainable_variables
    return weights


@pytest.mark.slow
def test_every_weight_of_the_package_is_of_a_known_kind(trained_weights):
    found = {(leaf(variable), kind(variable)) for variable in trained_weights}
    assert found == set(KINDS.items())


def test_gains_and_biases_begin_where_they_shrink_to(trained_weights):
    for variable in trained_weights:
        # Of Keras' LSTM the biases of the forget gate begin at 1.
        if kind(variable) in ("gain", "bias") and "lstm_cell" not in variable.path:
            assert (values([variable])[0] == center(variable)).all(), variable.path


def test_weight_decay_is_for_kernels_and_tables(trained_weights):
    alone = {id(variable) for variable in undecayed(trained_weights)}
    decayed = {leaf(variable) for variable in trained_weights if id(variable) not in alone}
    assert decayed == {name for name in KINDS if KINDS[name] in ("matrix", "table")}
    assert len(alone) == len([v for v in trained_weights if leaf(v) not in decayed]) > 0


@pytest.mark.parametrize(
    ("layer", "shape", "kinds"),
    [
        (layers.LayerNormalization(), (2, 4), {"gamma": "gain", "beta": "bias"}),
        (layers.BatchNormalization(), (2, 4), {"gamma": "gain", "beta": "bias"}),
        (layers.GroupNormalization(2), (2, 4), {"gamma": "gain", "beta": "bias"}),
        (layers.RMSNormalization(), (2, 4), {"scale": "gain"}),
        (layers.Embedding(3, 4), (2,), {"embeddings": "table"}),
        (layers.PReLU(), (2, 4), {"alpha": "vector"}),
        (layers.EinsumDense("ab,bcd->acd", (2, 3), bias_axes="cd"), (5, 4), DENSE),
        (layers.GRU(3), (2, 5, 4), {"recurrent_kernel": "matrix", **DENSE}),
    ],
)
def test_kinds_of_weights_of_keras(layer, shape, kinds):
    layer.build(shape)
    assert {leaf(variable): kind(variable) for variable in layer.trainable_variables} == kinds


def test_biases_of_keras_hub_have_two_axes():
    keras_hub = pytest.importorskip("keras_hub")
    backbone = keras_hub.models.XLNetBackbone(11, 1, 2, 8, 12)
    decayed = {leaf(v) for v in backbone.trainable_variables if not is_vector(v)}
    assert decayed == {"kernel", "embeddings", "segment_encoding", "mask_emb"}


def test_the_name_of_a_layer_says_nothing():
    dense = layers.Dense(2, use_bias=False, name="beta_bias_gamma")
    dense.build((None, 3))
    assert kind(dense.kernel) == "matrix"
