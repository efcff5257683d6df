import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_ext.checkpoints import load_huggingface_weights
from tests.models import numpy_transformer


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_hidden_states_are_those_of_the_formula(
    tiny_bert, random_values, batch, tmp_path, activation
):
    encoder = tiny_bert(activation=activation, with_pool=True)
    values = random_values(encoder)
    save_file(values, tmp_path / "model.safetensors")
    load_huggingface_weights(encoder, tmp_path)
    output = {name: np.array(value) for name, value in encoder(batch).items()}
    for i, mask in enumerate(batch["padding_mask"]):
        hidden = numpy_transformer.forward(
            values,
            2,
            batch["token_ids"][i],
            batch["segment_ids"][i],
            mask,
            epsilon=1e-12,
            activation=getattr(numpy_transformer, activation),
        )
        np.testing.assert_allclose(output["sequence_output"][i][mask], hidden[mask], atol=1e-5)
        pooled = numpy_transformer.pool(values, hidden)
        np.testing.assert_allclose(output["pooled_output"][i], pooled, atol=1e-5)


def test_the_longest_input_passes_and_a_longer_one_is_refused(tiny_bert):
    encoder = tiny_bert()
    for length in (9, 10):
        ids = np.ones((1, length), "int32")
        batch = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids > 0}
        if length == 9:
            assert encoder(batch).shape == (1, 9, 8)
        else:
            with pytest.raises(ValueError, match="table of 9 positions.*Received: length=10"):
                encoder(batch)


def test_layers_bear_the_names_of_bert4keras(tiny_bert):
    block = ["MultiHeadSelfAttention", "FeedForward"]
    expected = {f"Embedding-{part}" for part in ("Token", "Segment", "Position", "Norm", "Dropout")}
    expected |= {
        f"Transformer-{i}-{layer}{part}"
        for i in range(2)
        for layer in block
        for part in ("", "-Dropout", "-Add", "-Norm")
    }
    expected |= {"Embedding-Token-Segment", "Pooler-Dense"}
    assert expected <= {layer.name for layer in tiny_bert(with_pool=True).layers}


@pytest.mark.parametrize("heads", [3, 0])
def test_heads_that_do_not_divide_the_width_are_refused(tiny_bert, heads):
    with pytest.raises(ValueError, match=f"must divide the width.*num_heads={heads}"):
        tiny_bert(num_heads=heads)


def test_an_activation_of_the_user_survives_the_config(tiny_bert):
    config = tiny_bert(activation=keras.activations.relu).get_config()
    assert type(tiny_bert()).from_config(config).get_config()["activation"] == "relu"
