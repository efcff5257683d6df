"""Encoders from the config files and TensorFlow checkpoints that Google and others publish."""

import warnings
from fnmatch import fnmatchcase

from keras_ext.checkpoints.config_sizes import check_sizes
from keras_ext.checkpoints.google import load_google_weights
from keras_ext.checkpoints.google_config import encoder_arguments, encoder_class
from keras_ext.checkpoints.name_lookup import CONSTANTS
from keras_ext.checkpoints.tensorflow_checkpoint import tensor_shapes
from keras_ext.files.text_file import read_object


def encoder_from_google(
    config_path=None,
    checkpoint_path=None,
    model="bert",
    application="encoder",
    gelu="erf",
    keep_tokens=None,
    compound_tokens=None,
    ignore_invalid_weights=False,
    allow_unused=(),
    **kwargs,
):
    """An encoder with the sizes of a config file and the weights of a TensorFlow checkpoint.

    Its inputs come by name, as those of every encoder, so that it serves in the tasks;
    `build_transformer_model` gives the same with bert4keras' list of inputs.

    Args:
        config_path: JSON file, `bert_config.json`. None: all sizes are given in `kwargs`. Keys
            that mean nothing here are reported by a warning.
        checkpoint_path: Google-style TensorFlow checkpoint, such as `bert_model.ckpt`; see
            `load_google_weights`. None: random weights.
        model: "bert", "roberta", "albert", "albert_unshared", "nezha", "roformer", "roformer_v2",
            "gau_alpha", "electra", or the class of an encoder. Defaults to "bert".
        application: "encoder"; "lm" or "unilm" mask the attention for generation and switch
            `with_mlm` on. Defaults to "encoder".
        gelu: "erf" or "tanh", what the activation "gelu" means. Google's own code has "tanh",
            bert4keras "erf" unless `set_gelu` was called. Defaults to "erf".
        keep_tokens: list of int, ids of the checkpoint to keep, in the new order. None: all.
        compound_tokens: list of lists of int (or of tuples of such a list and weights): new ids at
            the end, whose vectors are averages. None: none.
        ignore_invalid_weights: bool, whether weights may lack in the checkpoint, which keep their
            random values and are reported by a warning. Defaults to False.
        allow_unused: tuple of `fnmatch` patterns of names that may be left over in the checkpoint,
            such as those of the blocks that a smaller `num_hidden_layers` leaves out.
        **kwargs: before the keys of the config, in bert4keras' words, as for
            `build_transformer_model`; and ours: `dtype`.

    Returns:
        An encoder.

    Raises:
        ValueError: for a config that is no JSON, lacks a field or has an impossible value, an
            argument without a meaning, GPT and T5; and as `load_google_weights`.

    Example:

    ```python
    folder = "chinese_L-12_H-768_A-12/"
    encoder = encoder_from_google(folder + "bert_config.json", folder + "bert_model.ckpt")
    ```
    """
    # As in bert4keras, capitals do not matter.
    model, application = (x.lower() if isinstance(x, str) else x for x in (model, application))
    kind = encoder_class(model, application)
    config = {} if config_path is None else read_object(config_path)
    arguments = encoder_arguments(kind, config, kwargs, application, gelu)
    allow_missing = ("*",) if ignore_invalid_weights else ()
    if checkpoint_path is not None:
        # Rows that are kept may be fewer, and what is kept is compared with the file later.
        rows = arguments["vocabulary_size"] if keep_tokens is None else None
        shapes = tensor_shapes(checkpoint_path)
        check_sizes(
            kind, {**arguments, "vocabulary_size": rows}, shapes, "google", str, allow_missing
        )
    if keep_tokens is not None:
        arguments["vocabulary_size"] = len(keep_tokens)
    arguments["vocabulary_size"] += len(compound_tokens or ())
    encoder = kind(**arguments)
    if checkpoint_path is not None:
        report = load_google_weights(
            encoder, checkpoint_path, keep_tokens, compound_tokens, allow_missing, allow_unused
        )
        random = [name for name in report.missing if not _is_constant(name)]
        if random:
            warnings.warn(
                f"Not in the checkpoint, and random therefore: {', '.join(random)}.", stacklevel=2
            )
    return encoder


def _is_constant(name):
    return any(fnmatchcase(name, pattern) for pattern in CONSTANTS)
