import keras

from keras_ext.models.bert import BertEncoder


@keras.saving.register_keras_serializable(package="keras_ext")
class AlbertUnsharedEncoder(BertEncoder):
    """An ALBERT whose blocks have weights of their own, bert4keras' `ALBERT_Unshared`.

    It is a BERT that begins as an ALBERT: `load_google_weights` and `load_huggingface_weights` fill
    every block with the one of an ALBERT's file, and training may take them apart. Once they
    differ, `save_google_weights` raises: such a file has no place for them.

    Arguments, inputs, outputs and errors are those of `BertEncoder`.

    Example:

    >>> encoder = AlbertUnsharedEncoder(
    ...     vocabulary_size=100, num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32,
    ...     embedding_dim=8)
    >>> len(encoder.blocks)
    2

    Source: Zhenzhong Lan et al., ALBERT: A Lite BERT for Self-supervised Learning of Language
    Representations, 2019, https://arxiv.org/abs/1909.11942
    """
