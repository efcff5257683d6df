"""GAU-alpha, which is not a part of bert4keras, out of the layers of bert4keras.

The layer names and the names in the checkpoint are those of the published model.
Source: Su Jianlin, "GAU-alpha" (2022), https://kexue.fm/archives/9052
"""

from bert4keras.backend import keras
from bert4keras.layers import GatedAttentionUnit, LayerNormalization
from bert4keras.models import RoFormerV2


class GAUAlpha(RoFormerV2):
    """RoFormerV2 with one gated attention unit in place of attention and feed-forward."""

    def apply_main_layers(self, inputs, index):
        name = f"Transformer-{index}-GatedAttentionUnit"
        attention_mask = self.compute_attention_bias(index)
        positions = self.compute_position_bias(inputs)
        masks = [] if attention_mask is None else [attention_mask]
        x = self.apply(
            inputs=[inputs, *masks, positions],
            layer=GatedAttentionUnit,
            arguments={"a_bias": bool(masks) or None, "p_bias": "rotary"},
            name=name,
            units=self.intermediate_size,
            key_size=self.attention_key_size,
            activation=self.hidden_act,
            use_bias=False,
            normalization="softmax_plus",
            attention_dropout=self.attention_dropout_rate,
            kernel_initializer=self.initializer,
        )
        x = self.apply(
            inputs=x, layer=keras.layers.Dropout, name=f"{name}-Dropout", rate=self.dropout_rate
        )
        x = self.apply(inputs=[inputs, x], layer=keras.layers.Add, name=f"{name}-Add")
        return self.apply(
            inputs=x,
            layer=LayerNormalization,
            name=f"{name}-Norm",
            zero_mean=False,
            scale=False,
            offset=False,
        )

    def variable_mapping(self):
        mapping = {
            "Embedding-Token": ["bert/embeddings/word_embeddings"],
            "Embedding-Segment": ["bert/embeddings/token_type_embeddings"],
        }
        for index in range(self.num_hidden_layers):
            prefix = f"GAU_alpha/encoder/layer_{index}/gau"
            mapping[f"Transformer-{index}-GatedAttentionUnit"] = [
                f"{prefix}/i_dense/kernel",
                f"{prefix}/q_scaleoffset/gamma",
                f"{prefix}/k_scaleoffset/gamma",
                f"{prefix}/o_dense/kernel",
            ]
        return mapping
