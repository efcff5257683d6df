import numpy as np
import pytest

from keras_ext.layers import GatedAttentionUnit, MixedChunkAttention, MultiHeadSelfAttention

LAYERS = {
    "self_attention": lambda rope: MultiHeadSelfAttention(1, 4, rope=rope),
    "gated": lambda rope: GatedAttentionUnit(4, 4, rope=rope),
    "chunks": lambda rope: MixedChunkAttention(4, 4, chunk_size=2, rope=rope),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_positions_that_turn_nothing_are_refused(kind):
    x, positions = np.ones((1, 3, 4), "float32"), np.array([0, 2, 5])
    with pytest.raises(ValueError, match="what `rope` turns by.*Received: rope=False"):
        LAYERS[kind](False)(x, positions=positions)
    assert LAYERS[kind](True)(x, positions=positions).shape == (1, 3, 4)
