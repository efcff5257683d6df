import keras
from keras import ops
from keras.saving import deserialize_keras_object, serialize_keras_object

from keras_ext.layers.mask_tokens import MaskTokens
from keras_ext.ops.replicas import gather_over_replicas
from keras_ext.training.sight import encoder_arguments, hidden_states, sees_later, token_shape

OBJECTIVES = ("mlm", "causal")


@keras.saving.register_keras_serializable(package="keras_ext")
class SelfPretrainer(keras.Model):
    """Pretrains an encoder on the very inputs that it will be fine-tuned on, before their labels.

        mlm      loss = sum_i w_i CE(x_i, W f(masked x)_i + b) / sum_i w_i,   w_i = 1 where masked
        causal   loss = sum_i w_i CE(x_(i+1), W f(x)_i + b) / sum_i w_i,      w_i = 1 for tokens

    On tasks with long ranges, much of what an architecture with a suitable prior has over a plain
    Transformer is what the Transformer can learn from the inputs of the task alone. So
    nothing changes but the beginning of the weights: `fit(x)` here, then train a model around the
    same `encoder` as ever. Both stages count when it is compared with training from scratch
    (`examples/long_range.py`).

    Tokens are words, bytes, or pixels, whose levels of brightness are ids. The mean is over the
    masked tokens of the batch, of all replicas, not over its places: half as many masks are no half
    learning rate. Keras' `compile` (without a loss), `fit`, `evaluate` and `save` serve, with loss
    scaling, accumulation, `jit_compile`, callbacks and JAX. There is one metric, `accuracy`, of the
    masked (or next) tokens. At evaluation a batch has always the same masks.

    Masking is a matter of the objective, and what is visible one of the encoder: they must agree. A
    bidirectional encoder would copy the next token, a causal one not know what follows a mask. So
    the constructor looks at what outputs depend on, and refuses.

    Args:
        encoder: functional `keras.Model` from token ids (b, n), or a dict of `token_ids` and maybe
            `segment_ids`, `padding_mask`, `position_ids`, to (b, n, d) or a dict with that as
            `sequence_output`; all encoders of this package. Heads of its own are not trained.
        vocabulary_size: int, number of ids; the encoder embeds at least as many.
        mask_id: int, the id of the mask, which must be one of them. Only for "mlm".
        mask_ratio: float in (0, 1], see `MaskTokens`. Tasks differ; 0.1 to 0.5 are usual. Defaults
            to 0.5.
        objective: "mlm", for encoders that see all tokens; "causal", for those that see the past.
            Defaults to "mlm".
        split: three probabilities, see `MaskTokens`. Defaults to (0.8, 0.1, 0.1).
        exclude_ids: ids that are neither masked nor to be guessed. With 0 among them, 0 is padding
            where no `padding_mask` is given; `()`: all are tokens. Defaults to (0,).
        seed: int, of the masks. None: others each time. Defaults to None.
        **kwargs: of `keras.Model`. `dtype` defaults to the policy of the encoder.

    Call arguments:
        inputs: ids (b, n), or a dict of what the encoder takes; `segment_ids` (then 0) and
            `padding_mask` may be left out. Targets and weights that come with them, as in a data set
            for fine-tuning, are not looked at.
        training: bool.

    Returns:
        dict of sums over the tokens of a row, (b,) float32: `loss`, `correct`, and `count`, of the
        tokens that were to be guessed.

    Raises:
        ValueError: for what is no such encoder, an encoder and an objective that do not agree, an
            unknown objective, "mlm" without a mask_id or with one out of the vocabulary, and a loss
            in `compile`.

    Example:

    >>> from keras_ext.models import RoFormerEncoder
    >>> encoder = RoFormerEncoder(8, num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32)
    >>> x = np.tile([[1, 2, 3, 4, 5, 6]], (32, 2))
    >>> pretrainer = SelfPretrainer(encoder, vocabulary_size=8, mask_id=7, seed=0)
    >>> pretrainer.compile("adam")
    >>> history = pretrainer.fit(x, epochs=2, verbose=0)
    >>> sorted(history.history)
    ['accuracy', 'loss']
    >>> pooled = keras.layers.GlobalAveragePooling1D()(encoder.output)
    >>> classifier = keras.Model(encoder.input, keras.layers.Dense(2)(pooled))  # and fine-tune

    Source: Ido Amos et al., Never Train from Scratch: Fair Comparison of Long-Sequence Models
    Requires Data-Driven Priors, 2023, https://arxiv.org/abs/2310.02980; Jianlin Su, 2023,
    https://kexue.fm/archives/9787
    """

    def __init__(
        self,
        encoder,
        vocabulary_size,
        mask_id=None,
        mask_ratio=0.5,
        objective="mlm",
        split=(0.8, 0.1, 0.1),
        exclude_ids=(0,),
        seed=None,
        **kwargs,
    ):
        token_shape(encoder)
        kwargs.setdefault("dtype", encoder.dtype_policy)
        super().__init__(autocast=False, **kwargs)
        if objective not in OBJECTIVES:
            raise ValueError(f"Expected an objective of {OBJECTIVES}. Received: {objective=}")
        if objective == "mlm" and mask_id is None:
            raise ValueError("objective='mlm' needs the id of the mask. Received: mask_id=None")
        self.objective, self.mask_id = objective, mask_id
        # It also says which ids count, of which a causal model masks none.
        arguments = (mask_id or 0, vocabulary_size, mask_ratio, split, exclude_ids, seed)
        self.mask_tokens = MaskTokens(*arguments, name="mask_tokens")
        self.encoder = encoder
        self.head = keras.layers.Dense(vocabulary_size, dtype="float32", name="head")
        self.head.build((None, None, hidden_states(encoder.output).shape[-1]))
        self.accuracy = keras.metrics.Mean(name="accuracy")
        self.built = True
        self._check_sight()

    def _check_sight(self):
        later = sees_later(self.encoder, self.mask_tokens.vocabulary_size)
        if later != (self.objective == "mlm"):
            sees, other = ("later tokens, too", "mlm") if later else ("no later token", "causal")
            raise ValueError(
                f"The encoder sees {sees}, which does not suit the objective. Expected "
                f"objective={other!r}, or an encoder that "
                f"{'is causal' if later else 'sees all tokens'} (of this package: its argument "
                f"`application` is {'lm' if later else 'encoder'!r}). "
                f"Received: objective={self.objective!r}, encoder={self.encoder.name}"
            )

    def call(self, inputs, training=None):
        given = inputs if isinstance(inputs, dict) else {"token_ids": inputs}
        ids = ops.cast(given["token_ids"], "int32")
        pad_id = 0 if 0 in self.mask_tokens.exclude_ids else None
        arguments, mask = encoder_arguments(self.encoder, ids, given, pad_id)
        if self.objective == "mlm":
            masked, targets, weights = self.mask_tokens(ids, mask=mask, training=training)
            arguments = (
                {**arguments, "token_ids": masked} if isinstance(arguments, dict) else masked
            )
            hidden = hidden_states(self.encoder(arguments, training=training))
        else:
            hidden = hidden_states(self.encoder(arguments, training=training))[:, :-1]
            targets = ids[:, 1:]
            weights = ops.logical_and(self.mask_tokens.is_ordinary(ids), mask)[:, 1:]
        return self._sums(self.head(hidden), targets, ops.cast(weights, "float32"))

    def _sums(self, logits, targets, weights):
        loss = keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True)
        correct = ops.cast(ops.equal(ops.argmax(logits, axis=-1), targets), "float32")
        sums = {"loss": loss, "correct": correct, "count": ops.ones_like(weights)}
        return {name: ops.sum(weights * value, axis=-1) for name, value in sums.items()}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if self.loss is not None:
            raise ValueError(
                "The model has a loss of its own. Expected compile(optimizer) without a loss. "
                f"Received: loss={self.loss!r}"
            )
        # Keras adds up what the replicas return.
        count = ops.sum(gather_over_replicas(y_pred["count"]))
        loss = _mean(y_pred["loss"], count)
        return loss + super().compute_loss(x, None, y_pred) if self.losses else loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        count = ops.sum(y_pred["count"])
        self.accuracy.update_state(_mean(y_pred["correct"], count), count)
        return self.get_metrics_result()

    def get_config(self):
        mask_tokens = self.mask_tokens
        return {
            **super().get_config(),
            "encoder": serialize_keras_object(self.encoder),
            "vocabulary_size": mask_tokens.vocabulary_size,
            "mask_id": self.mask_id,
            "mask_ratio": mask_tokens.rate,
            "objective": self.objective,
            "split": mask_tokens.split,
            "exclude_ids": mask_tokens.exclude_ids,
            "seed": mask_tokens.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        encoder = deserialize_keras_object(config["encoder"], custom_objects)
        return super().from_config({**config, "encoder": encoder}, custom_objects)


def _mean(sums, count):
    """The sum over rows by the number of tokens: 0, not NaN, where there are none."""
    return ops.sum(sums) / ops.maximum(count, 1.0)
