from dataclasses import dataclass
from functools import partial

import keras
from keras import ops

from keras_ext.layers.feed_forward import FeedForward
from keras_ext.layers.rms_norm import RMSNorm
from keras_ext.layers.vq_attention import VQAttention
from keras_ext.models.blocks import (
    Residual,
    check_heads,
    encoder_inputs,
    keep_arguments,
    kept_config,
    key_mask,
    stack,
)
from keras_ext.models.embeddings import add_segments, token_embedding, widen
from keras_ext.models.generation import generate_tokens
from keras_ext.models.heads import bare_mlm

APPLICATIONS = ("encoder", "lm")


@keras.saving.register_keras_serializable(package="keras_ext")
class VQTransformer(keras.Model):
    """A Transformer in linear time: an encoder, or a language model that writes with a fixed state.

        x = RMS(dropout(token embedding + segment embedding))
        gated:      x = RMS(x + dropout(VQAttention(x))),  num_layers times
        otherwise:  x = RMS(x + dropout(VQAttention(x))),  x = RMS(x + dropout(FeedForward(x)))

    where RMS(x) = x / sqrt(mean(x^2) + epsilon) has no weights. Two gated units have about the
    weights of one block of attention and feed-forward. What the attention knows of positions is its
    bias by lag. In training the codebooks follow the keys, and the model's loss has the commitment
    losses added.

    A functional model. With `application="lm"` a token sees only those before it, and `step` and
    `generate` read and write token by token.

    Args:
        vocabulary_size: int, number of token ids.
        num_layers: int, number of units, or of blocks of attention and feed-forward.
        hidden_dim: int, width of the blocks and the output.
        num_heads: int, attention heads. Defaults to 1.
        key_size: int, channels of a query and a key in a head. None: 128 if gated, otherwise
            `hidden_dim / num_heads`.
        intermediate_dim: int, channels of the gate and the values of a unit, a multiple of
            `num_heads`, None: twice `hidden_dim`; or the width inside the feed-forward layers,
            None: four times.
        codes, block_length, method, position_bias, commitment, decay: those of `VQAttention`.
        gated: bool, whether the blocks are gated units. Defaults to True.
        num_segments: int, number of segment ids; 0: they are no input. Defaults to 2.
        packed: bool, whether `document_ids` (b, n) int are an input, too: where they change, another
            document begins, and no token sees one of another document. Defaults to False.
        dropout: float in [0, 1), of the embeddings and of each layer's output. Defaults to 0.1.
        with_mlm: True for the probabilities of the tokens, "linear" for their logits, or False.
            Defaults to False.
        embedding_dim: int, width of the embeddings, or None for `hidden_dim`.
        application: "encoder" or "lm". Defaults to "encoder".
        residual: "post", "pre" or "deepnorm", as of `GAUEncoder`. Defaults to "post".
        layer_norm_epsilon: float. Defaults to 1e-7.
        kernel_initializer: initializer of the kernels, but for "deepnorm". Defaults to
            "glorot_uniform".
        column_dropout: float in [0, 1), as that of `BertEncoder`. Defaults to 0.
        dtype: dtype policy. Defaults to the global one.

    Inputs:
        A dict of `token_ids` and `segment_ids` (b, n) int, and `padding_mask` (b, n) bool, true =
        token.

    Returns:
        (b, n, hidden_dim) in the compute dtype; `with_mlm` a dict of that as `sequence_output` and
        `mlm` (b, n, vocabulary_size) float32.

    Raises:
        ValueError: for another application, for heads that do not divide a width, and for what
            `VQAttention` refuses.

    Example:

    >>> import numpy as np
    >>> sizes = {"vocabulary_size": 50, "num_layers": 2, "hidden_dim": 16, "key_size": 8}
    >>> model = VQTransformer(
    ...     **sizes, num_segments=0, codes=16, block_length=8, application="lm", with_mlm="linear"
    ... )
    >>> tuple(model.generate(np.array([[7, 8, 9]]), length=4, seed=0).shape)
    (1, 4)

    Source: Lucas D. Lingle, Transformer-VQ: Linear-Time Transformers via Vector Quantization, 2023,
    https://arxiv.org/abs/2309.16354; https://kexue.fm/archives/9844
    """

    def __init__(
        self,
        vocabulary_size,
        num_layers,
        hidden_dim,
        num_heads=1,
        key_size=None,
        intermediate_dim=None,
        codes=512,
        block_length=512,
        gated=True,
        num_segments=2,
        packed=False,
        dropout=0.1,
        with_mlm=False,
        embedding_dim=None,
        application="encoder",
        residual="post",
        method="linear",
        position_bias="xl",
        commitment=1e-4,
        decay=0.99,
        layer_norm_epsilon=1e-7,
        kernel_initializer="glorot_uniform",
        column_dropout=0.0,
        dtype=None,
        name=None,
        trainable=True,
    ):
        kernel_initializer = keras.initializers.get(kernel_initializer)
        arguments = dict(locals())
        policy = keras.dtype_policies.get(dtype)
        if application not in APPLICATIONS:
            raise ValueError(f"Expected an application of {APPLICATIONS}. Received: {application=}")

        # === Layers ===
        norm = partial(RMSNorm, epsilon=layer_norm_epsilon)
        kernel = kernel_initializer.clone
        # Two units stand for a block of two layers.
        depth = (num_layers + 1) // 2 if gated else num_layers
        joined = Residual(residual, depth, dropout, norm, kernel, policy)
        table = partial(keras.initializers.VarianceScaling, 1.0, "fan_out", "truncated_normal")
        width = embedding_dim or hidden_dim
        tokens = token_embedding(vocabulary_size, width, table(), policy, bool(with_mlm))
        values = (intermediate_dim or 2 * hidden_dim) if gated else hidden_dim
        attention = partial(
            VQAttention,
            num_heads,
            (key_size or 128) if gated else check_heads(hidden_dim, num_heads, key_size),
            check_heads(values, num_heads),
            codes,
            block_length,
            causal=application == "lm",
            gated=gated,
            method=method,
            position_bias=position_bias,
            commitment=commitment,
            decay=decay,
            dtype=policy,
        )
        feed_forward = partial(FeedForward, intermediate_dim or 4 * hidden_dim, dtype=policy)

        def block(i):
            begun = {"kernel_initializer": joined.branch_kernel()}
            layers = [attention(**begun, name=f"Transformer-{i}-VQAttention")]
            if not gated:
                begun = {"kernel_initializer": joined.branch_kernel()}
                layers.append(feed_forward(**begun, name=f"Transformer-{i}-FeedForward"))
            return joined.join(*layers)

        # === Functional model ===
        inputs = encoder_inputs(num_segments)
        if packed:
            inputs["document_ids"] = keras.Input((None,), dtype="int32", name="document_ids")
        x = tokens(inputs["token_ids"])
        x = add_segments(x, inputs, num_segments, table(), policy)
        x = keras.layers.Dropout(dropout, dtype=policy, name="Embedding-Dropout")(x)
        x = joined.first_norm(x)
        start = widen(x, hidden_dim, kernel(), policy)
        mask = key_mask(inputs, column_dropout)
        masks = {"mask": mask, "segment_ids": inputs.get("document_ids")}
        x, passed = stack(start, (block(i) for i in range(num_layers)), joined, **masks)
        outputs = bare_mlm(x, tokens, joined, with_mlm)
        super().__init__(inputs, outputs, name=name)
        self.blocks = passed
        embedded = {name: inputs[name] for name in ("token_ids", "segment_ids") if name in inputs}
        last = passed[-1].output
        norm = None if x is last else keras.Model(last, x)
        head = keras.Model(x, outputs["mlm"]) if with_mlm else None
        self._around = Around(keras.Model(embedded, start), joined, norm, head)
        keep_arguments(self, arguments)

    def initial_state(self, batch_size):
        """What `step` needs before the first token: a state of each block, of a fixed size.

        Args:
            batch_size: int.

        Returns:
            A list of dicts of tensors, as of `VQAttention.initial_state`.
        """
        return [block.layers[0].initial_state(batch_size) for block in self.blocks]

    def step(self, inputs, state):
        """The outputs of the next tokens, those that a call on all tokens gives.

        Args:
            inputs: dict of the model's inputs, (b, t) each, one token or some. Without
                `padding_mask` all are tokens.
            state: list, as of `initial_state` or the step before.

        Returns:
            What a call returns, of the t tokens, and the state after them.

        Raises:
            ValueError: with an `application` other than "lm".
        """
        around, norm, head = self._around, self._around.norm, self._around.head
        masks = {"mask": inputs.get("padding_mask"), "segment_ids": inputs.get("document_ids")}
        x = around.embedding({name: inputs[name] for name in around.embedding.input})
        after = []
        for block, before in zip(self.blocks, state, strict=True):
            attention, *joints = block.layers[:4]

            def attend(x, attention=attention, before=before):
                output, new = attention.step(x, before, **masks)
                after.append(new)
                return output

            x = around.joined.branch((attend, *joints), x)
            if len(block.layers) > 4:
                x = around.joined.branch(block.layers[4:], x)
        x = x if norm is None else norm(x)
        return (x if head is None else {"sequence_output": x, "mlm": head(x)}), after

    def generate(self, prompt_ids, length, temperature=1.0, seed=None):
        """Tokens that the model writes after a prompt, in time and memory that do not grow with it.

        Args:
            prompt_ids: (b, t) int, t at least 1, or (t,) for one text. All are tokens, of segment 0
                and of one document.
            length: int, how many tokens to draw.
            temperature: number of at least 0, by which the logits are divided; 0: the likeliest
                token is taken. Defaults to 1.
            seed: int, or None for other tokens each time.

        Returns:
            int32 (b, length), or (length,).

        Raises:
            ValueError: for a model that is none of language: without `application="lm"` or
                `with_mlm`; for an empty prompt, a length below 1 or a negative temperature.
        """
        application, with_mlm = self.application, self.with_mlm
        if application != "lm" or with_mlm not in (True, "linear", "softmax"):
            raise ValueError(
                "Expected a language model, of application='lm' and with_mlm True or 'linear'. "
                f"Received: {application=}, {with_mlm=}"
            )

        def scores(ids, state):
            others = {"segment_ids": ops.zeros_like(ids)} if self.num_segments else {}
            outputs, state = self.step({"token_ids": ids, **others}, state)
            logits = outputs["mlm"]
            return (logits if with_mlm == "linear" else ops.log(logits)), state

        rows = 1 if ops.ndim(prompt_ids) == 1 else ops.shape(prompt_ids)[0]
        state = self.initial_state(rows)
        choices = (temperature, seed, self.block_length)
        return generate_tokens(scores, state, prompt_ids, length, *choices)

    def get_config(self):
        return {
            **kept_config(self),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@dataclass(frozen=True, eq=False)
class Around:
    """What `step`, which goes through the blocks by itself, needs before and after them.

    Models of layers that stand in the graph. As attributes of the model, or in a tuple, Keras would
    take them for further layers of it.

    Attributes:
        embedding: model of the inputs up to the first block.
        joined: the `Residual`.
        norm: model of what follows the last block, or None.
        head: model that gives the scores of tokens, or None.
    """

    embedding: keras.Model
    joined: Residual
    norm: keras.Model | None
    head: keras.Model | None
