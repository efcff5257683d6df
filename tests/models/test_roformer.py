import keras
import numpy as np
import pytest

from keras_ext.checkpoints import names_in
from keras_ext.models import RoFormerEncoder
from tests.models import numpy_transformer


def tiny_roformer(**arguments):
    sizes = {
        "vocabulary_size": 30,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 8,
        "intermediate_dim": 12,
    }
    return RoFormerEncoder(**{**sizes, **arguments})


def test_hidden_states_are_those_of_the_formula(batch, rng):
    encoder = tiny_roformer()
    values = {}
    for row in names_in(encoder, "huggingface"):
        variable = row.variable(encoder)
        variable.assign(rng.normal(size=variable.shape, scale=0.5))
        value = keras.ops.convert_to_numpy(variable)
        values[row.name.removeprefix("roformer.")] = value.T if row.transpose else value
    output = np.array(encoder(batch))
    for i, mask in enumerate(batch["padding_mask"]):
        hidden = numpy_transformer.forward(
            values,
            2,
            batch["token_ids"][i],
            batch["segment_ids"][i],
            mask,
            epsilon=1e-7,
            rope=numpy_transformer.turn,
        )
        np.testing.assert_allclose(output[i][mask], hidden[mask], atol=1e-5)


def test_only_distances_between_tokens_matter(batch):
    encoder = tiny_roformer()
    shifted = {name: np.pad(value, ((0, 0), (4, 0))) for name, value in batch.items()}
    near, far = np.array(encoder(batch)), np.array(encoder(shifted))[:, 4:]
    mask = batch["padding_mask"]
    np.testing.assert_allclose(far[mask], near[mask], atol=1e-5)


def test_heads_of_an_odd_size_are_refused():
    with pytest.raises(ValueError, match="must be even. Received: key_size=3"):
        tiny_roformer(hidden_dim=6)
