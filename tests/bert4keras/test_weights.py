import keras
import numpy as np
import pytest

from keras_ext import layers
from keras_ext.bert4keras import load_bert4keras_weights, save_bert4keras_weights
from keras_ext.bert4keras.legacy_hdf5 import read_legacy_hdf5, write_legacy_hdf5
from keras_ext.bert4keras.weight_order import ORDERS, find_weights, weight_order
from keras_ext.bert4keras.weights import layers_with_weights
from keras_ext.checkpoints.tensorflow_checkpoint import write_tensors
from keras_ext.models import BertEncoder, BigramRoFormerEncoder
from tests.models import tiny_encoders

ATTENTION = "Transformer-0-MultiHeadSelfAttention"
BARE = {"with_pool": False, "with_nsp": False, "with_mlm": False}


def bert(**arguments):
    return tiny_encoders.make(BertEncoder, **arguments)


@pytest.fixture
def path(tmp_path):
    save_bert4keras_weights(bert(), tmp_path / "bert.h5")
    return tmp_path / "bert.h5"


@pytest.fixture
def empty():
    return tiny_encoders.zeros(bert())


def rewritten(path, change):
    """The file with its dict of layers changed."""
    stored = read_legacy_hdf5(path).layers
    change(stored)
    write_legacy_hdf5(path, stored)
    return path


def assert_refused(model, path, *parts, **arguments):
    before = model.get_weights()
    with pytest.raises(ValueError) as caught:
        load_bert4keras_weights(model, path, **arguments)
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def model_of(*parts, width=6, name=None):
    """A chain of layers, each given its name, with random weights."""
    inputs = x = keras.Input((5, width))
    for part in parts:
        x = part(x)
    model = keras.Model(inputs, x, name=name)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("encoder", tiny_encoders.ENCODERS)
def test_saved_and_loaded_weights_are_the_same_bits(encoder, tmp_path):
    model = tiny_encoders.make(encoder)
    save_bert4keras_weights(model, tmp_path / "x.h5")
    other = tiny_encoders.zeros(tiny_encoders.make(encoder))
    report = load_bert4keras_weights(other, tmp_path / "x.h5")
    assert tiny_encoders.equal(model, other)
    assert len(report.loaded) == len(model.weights) and report.missing == report.unused == ()


def test_every_layer_of_the_table_comes_back_bit_for_bit(tmp_path):
    def make():
        return model_of(
            layers.MultiHeadSelfAttention(2, 3, key_size=2, use_bias=False, name="attention"),
            layers.FeedForward(4, name="feed-forward"),
            layers.GatedAttentionUnit(4, 3, name="unit"),
            layers.PositionEmbedding(5, name="positions"),
            layers.ScaleOffset(name="scale-offset"),
            layers.LayerNorm(name="our-norm"),
            keras.layers.LayerNormalization(name="norm"),
            keras.layers.BatchNormalization(name="batch-norm"),
            keras.layers.Conv1D(6, 3, name="convolution"),
            keras.layers.Bidirectional(
                keras.layers.LSTM(3, return_sequences=True), name="both-ways"
            ),
            keras.layers.GRU(4, return_sequences=True, name="gru"),
            keras.layers.SimpleRNN(4, return_sequences=True, name="rnn"),
            keras.layers.LSTM(6, return_sequences=True, use_bias=False, name="lstm"),
            layers.EfficientGlobalPointer(2, 4, name="efficient"),
        )

    model, other = make(), tiny_encoders.zeros(make())
    save_bert4keras_weights(model, tmp_path / "x.h5")
    load_bert4keras_weights(other, tmp_path / "x.h5")
    assert tiny_encoders.equal(model, other)
    tried = {type(layer) for layer in model.layers}
    rest = {layers.GlobalPointer, layers.RelativePositionEmbedding}
    rest |= {keras.layers.Embedding, keras.layers.ReversibleEmbedding, keras.layers.Dense}
    assert set(ORDERS) == rest | tried - {keras.layers.InputLayer}


def test_the_order_of_a_gated_unit_is_input_scales_output(tmp_path):
    save_bert4keras_weights(
        model_of(layers.GatedAttentionUnit(4, 3, name="unit")), tmp_path / "x.h5"
    )
    assert list(read_legacy_hdf5(tmp_path / "x.h5").layers["unit"]) == [
        "i_dense/kernel",
        "i_dense/bias",
        "q_scaleoffset/beta",
        "q_scaleoffset/gamma",
        "k_scaleoffset/beta",
        "k_scaleoffset/gamma",
        "o_dense/kernel",
        "o_dense/bias",
    ]


def numbered(names, first):
    """What Keras calls the sub-layers: those of one kind are numbered as they are made."""
    kinds = {"dense": "dense", "scaleoffset": "scale_offset"}
    numbers, made = dict.fromkeys(kinds, first), {}
    for name in names:
        sublayer, _, variable = name.partition("/")
        kind = sublayer.split("_")[1]
        if sublayer not in made:
            number = numbers[kind]
            made[sublayer] = f"{kinds[kind]}_{number}" if number else kinds[kind]
            numbers[kind] += 1
        yield f"{made[sublayer]}/{variable}"


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1, 8, 99])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 2, 3, 0), (3, 1, 0, 2)])
def test_numbered_sublayers_are_found_whatever_was_frozen(first, order, path, empty):
    def number(stored):
        names = numbered(stored[ATTENTION], first)
        pairs = list(zip(names, stored[ATTENTION].values(), strict=True))
        pairs = [pair for i in order for pair in pairs[2 * i : 2 * i + 2]]
        stored[ATTENTION] = dict(pairs)

    load_bert4keras_weights(empty, rewritten(path, number))
    assert tiny_encoders.equal(empty, bert())


def test_both_orders_of_a_gated_unit_load_alike(tmp_path):
    def make():
        return model_of(layers.GatedAttentionUnit(4, 3, name="unit"))

    model = make()
    for first in (0, 9):
        for old in (False, True):
            save_bert4keras_weights(model, tmp_path / "x.h5")

            def number(stored, first=first, old=old):
                unit = stored["unit"]
                pairs = list(zip(numbered(unit, first), unit.values(), strict=True))
                stored["unit"] = dict([*pairs[:2], *pairs[6:], *pairs[2:6]] if old else pairs)

            other = tiny_encoders.zeros(make())
            load_bert4keras_weights(other, rewritten(tmp_path / "x.h5", number))
            assert tiny_encoders.equal(model, other)


def test_norms_are_told_apart_by_name_and_an_old_offset_may_be_a_bias(path, empty):
    def change(stored):
        stored["Embedding-Norm"] = dict(reversed(stored["Embedding-Norm"].items()))
        stored["MLM-Bias"] = {"bias": stored["MLM-Bias"]["beta"]}

    load_bert4keras_weights(empty, rewritten(path, change))
    assert tiny_encoders.equal(empty, bert())


def test_frozen_layers_are_loaded(path, empty):
    empty.trainable = False
    load_bert4keras_weights(empty, path)
    assert tiny_encoders.equal(empty, bert())


def test_heads_and_segments_that_the_model_lacks_may_be_left_over(path):
    model = bert(num_segments=0, **BARE)
    report = load_bert4keras_weights(model, path)
    assert report.unused == (
        "Embedding-Segment/embeddings",
        "MLM-Bias/beta",
        "MLM-Dense/bias",
        "MLM-Dense/kernel",
        "MLM-Norm/beta",
        "MLM-Norm/gamma",
        "NSP-Proba/bias",
        "NSP-Proba/kernel",
        "Pooler-Dense/bias",
        "Pooler-Dense/kernel",
    )
    assert "Transformer-0-MultiHeadSelfAttention/query_dense.kernel" in report.loaded


def test_a_head_that_the_file_lacks_is_missing(tmp_path, empty):
    save_bert4keras_weights(bert(**BARE), tmp_path / "bare.h5")
    assert_refused(empty, tmp_path / "bare.h5", "missing: MLM-Bias/beta", "missing: NSP-Proba/bias")
    patterns = ("MLM-*", "NSP-*", "Pooler-*")
    report = load_bert4keras_weights(empty, tmp_path / "bare.h5", allow_missing=patterns)
    assert "NSP-Proba/kernel" in report.missing


def with_head(encoder, head="tags"):
    hidden = encoder(encoder.input)
    return keras.Model(encoder.input, keras.layers.Dense(3, name=head)(hidden))


def test_an_encoder_inside_a_model_is_filled_from_a_flat_file(tmp_path):
    encoder = bert(**BARE)
    model = with_head(encoder)
    save_bert4keras_weights(model, tmp_path / "x.h5")
    stored = list(read_legacy_hdf5(tmp_path / "x.h5").layers)
    assert stored == [*layers_with_weights(encoder), "tags"]
    other = tiny_encoders.zeros(with_head(bert(**BARE)))
    load_bert4keras_weights(other, tmp_path / "x.h5")
    assert tiny_encoders.equal(model, other)


def test_a_model_inside_the_file_is_opened(path, empty):
    def nest(stored):
        inner = {f"{layer}/{k}": v for layer, part in stored.items() for k, v in part.items()}
        stored.clear()
        stored["model_3"] = inner

    load_bert4keras_weights(empty, rewritten(path, nest))
    assert tiny_encoders.equal(empty, bert())
    bare = tiny_encoders.zeros(bert(**BARE))
    report = load_bert4keras_weights(bare, path)
    assert "MLM-Bias/beta" in report.unused and len(report.loaded) == len(bare.weights)


def test_a_part_of_a_layer_is_not_taken_for_a_layer_of_the_model(path):
    model = tiny_encoders.zeros(with_head(bert(**BARE), "dense"))
    head = {"dense/kernel": np.ones((8, 3)), "dense/bias": np.ones(3)}
    rewritten(path, lambda stored: stored.update(pointer=head))
    assert_refused(model, path, "missing: dense/kernel", "unused: pointer/dense/kernel")
    load_bert4keras_weights(model, path, mapping={"dense": "dense"})
    assert model.get_layer("dense").kernel.numpy().all()


def test_layers_of_other_names_need_a_mapping_and_the_error_says_so(tmp_path):
    save_bert4keras_weights(with_head(bert(**BARE), "dense_72"), tmp_path / "x.h5")
    model = tiny_encoders.zeros(with_head(bert(**BARE)))
    assert_refused(
        model,
        tmp_path / "x.h5",
        "missing: tags/kernel",
        "unused: dense_72/kernel",
        "only in the file: dense_72 (kernel (8, 3), bias (3,))",
        "only in the model: tags (kernel (8, 3), bias (3,))",
        "mapping={name in the file: name in the model}",
    )
    attention = "Transformer-0-MultiHeadSelfAttention (query/kernel (8, 8), query/bias (8,), "
    write_legacy_hdf5(tmp_path / "y.h5", {"other": {"bias": np.ones(3)}})
    assert_refused(model, tmp_path / "y.h5", f"only in the model: {attention}")
    load_bert4keras_weights(model, tmp_path / "x.h5", mapping={"dense_72": "tags"})
    assert model.get_layer("tags").kernel.numpy().any()


def test_a_mapping_that_names_no_layer_is_refused(path, empty):
    assert_refused(empty, path, "'head', which the file lacks", mapping={"head": "MLM-Norm"})
    wrong = {"MLM-Norm": "tags"}
    assert_refused(empty, path, "'tags', which the model lacks", mapping=wrong)
    twice = {"Pooler-Dense": "NSP-Proba"}
    assert_refused(empty, path, "Two layers of the file", mapping=twice)


def test_a_dropped_weight_is_named(path, empty):
    for layer, weight, attribute in (
        (ATTENTION, "k_dense/bias", "key_dense.bias"),
        ("Embedding-Norm", "gamma", "gamma"),
        ("Embedding-Token", "embeddings", "embeddings"),
    ):
        save_bert4keras_weights(bert(), path)
        rewritten(path, lambda stored: stored[layer].pop(weight))  # noqa: B023
        assert_refused(empty, path, f"missing: {layer}/{attribute}")


def test_a_dropped_weight_of_a_numbered_sublayer_is_named(path, empty):
    def change(stored):
        names = numbered(stored[ATTENTION], 0)
        stored[ATTENTION] = dict(zip(names, stored[ATTENTION].values(), strict=True))
        del stored[ATTENTION]["dense_1/kernel"]

    rewritten(path, change)
    assert_refused(empty, path, f"missing: {ATTENTION}/key_dense.kernel")


def test_a_dropped_sublayer_is_never_filled_up_by_the_next_one(path, empty):
    def change(stored):
        names = numbered(stored[ATTENTION], 0)
        pairs = list(zip(names, stored[ATTENTION].values(), strict=True))
        stored[ATTENTION] = dict(pairs[2:])

    rewritten(path, change)
    expected = "expected 4 sub-layers (q_dense, k_dense, v_dense, o_dense), found 3"
    assert_refused(empty, path, ATTENTION, expected, "dense_1/kernel (8, 8)")
    assert_refused(empty, path, expected, allow_missing=("*",), allow_unused=("*",))


def test_a_renamed_weight_and_a_renamed_layer_are_named(path, empty):
    def change(stored):
        stored["MLM-Norm"]["delta"] = stored["MLM-Norm"].pop("gamma")

    rewritten(path, change)
    assert_refused(empty, path, "missing: MLM-Norm/gamma", "unused: MLM-Norm/delta")
    save_bert4keras_weights(bert(), path)
    rewritten(path, lambda stored: stored.update(Other=stored.pop("Embedding-Token")))
    assert_refused(empty, path, "missing: Embedding-Token/embeddings", "unused: Other/embeddings")


def test_a_reshaped_weight_is_named(path, empty):
    def change(stored):
        stored["Embedding-Token"]["embeddings"] = np.ones((12, 4))
        stored[ATTENTION]["v_dense/kernel"] = np.ones((8, 9))

    rewritten(path, change)
    assert_refused(
        empty,
        path,
        "shape: Embedding-Token/embeddings, expected (11, 4), found (12, 4)",
        f"shape: {ATTENTION}/value_dense.kernel, expected (8, 8), found (8, 9)",
    )


def test_a_file_without_its_last_byte_is_refused(path, empty):
    path.write_bytes(path.read_bytes()[:-1])
    assert_refused(empty, path, "cut off: it has ", f"of {path.stat().st_size + 1} bytes")


def test_a_layer_that_bert4keras_does_not_have_is_named(tmp_path):
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 12}
    model = BigramRoFormerEncoder(11, bigram_buckets=20, embedding_dim=4, **sizes)
    with pytest.raises(ValueError, match="no such layer.*BigramEmbedding"):
        save_bert4keras_weights(model, tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()
    odd = model_of(keras.layers.Dense(2, name="first"), keras.layers.PReLU(name="odd"))
    write_legacy_hdf5(tmp_path / "y.h5", {"odd": {"alpha": np.ones((5, 2))}})
    assert_refused(odd, tmp_path / "y.h5", "odd: bert4keras and Keras 2 have no such layer")
    save_bert4keras_weights(keras.Sequential([odd.get_layer("first")]), tmp_path / "y.h5")
    assert_refused(odd, tmp_path / "y.h5", f"missing: {odd.get_layer('odd').alpha.path}")
    load_bert4keras_weights(odd, tmp_path / "y.h5", allow_missing=("odd/*",))


def test_a_layer_with_weights_beyond_the_table_is_not_taken_for_a_known_one():
    untied = keras.layers.ReversibleEmbedding(5, 3, tie_weights=False, name="untied")
    untied.build()
    with pytest.raises(ValueError, match="untied/reverse_embeddings"):
        weight_order(untied)


def test_layers_of_one_name_in_two_models_are_refused(path):
    inputs = bert(**BARE).input
    one, other = bert(**BARE, name="one"), bert(**BARE, name="other")
    model = keras.Model(inputs, keras.layers.Add()([one(inputs), other(inputs)]))
    assert_refused(model, path, "two layers of the name 'Embedding-Token'")


def test_a_shared_layer_is_found_once(tmp_path):
    shared = keras.layers.Dense(6, name="shared")
    save_bert4keras_weights(model_of(shared, shared), tmp_path / "x.h5")
    assert list(read_legacy_hdf5(tmp_path / "x.h5").layers) == ["shared"]


@pytest.mark.parametrize("name", ["x.weights", "x.weights.h5", "x.keras", "x"])
def test_names_that_keras_2_would_read_otherwise_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"\.h5 or \.hdf5"):
        save_bert4keras_weights(bert(), tmp_path / name)


def test_a_checkpoint_with_googles_names_is_refused_with_what_to_do(tmp_path, empty):
    write_tensors(tmp_path / "bert_model.ckpt", {"bert/pooler/dense/bias": np.ones(8)})
    assert_refused(empty, tmp_path / "bert_model.ckpt", "load_google_weights")


def test_a_file_that_is_not_there_is_named(tmp_path, empty):
    assert_refused(empty, tmp_path / "best.weights", "no such file", "best.weights")


def test_names_of_other_kinds_are_not_taken_for_sublayers():
    layer = layers.FeedForward(4)
    layer.build((None, 3))
    rows = weight_order(layer)
    with pytest.raises(ValueError, match="expected 2 sub-layers .*, found 0"):
        find_weights(rows, ["conv1d/kernel", "conv1d_1/kernel"])


@pytest.mark.parametrize("name", ["allow_missing", "allow_unused"])
def test_one_str_is_no_tuple_of_patterns(empty, path, name):
    assert_refused(empty, path, f"tuple of patterns. Received: {name}='crf/*'", **{name: "crf/*"})
