"""The two constants of DeepNorm."""

ROLES = ("encoder", "decoder")
OPTIMIZERS = ("paper", "sgd", "adam", "lamb")


def deepnorm_constants(
    num_encoder_layers=None, num_decoder_layers=None, role="encoder", optimizer="paper"
):
    """How much DeepNorm enlarges the residual and shrinks the branches, so that depth is no matter.

        x_{l+1} = LN(alpha x_l + f_l(x_l))

    where the kernels of f (values, outputs and feed-forward; queries and keys not) begin as
    Xavier's times beta. The paper's constants, of N encoder blocks and M decoder blocks:

        N alone:            alpha = (2N)^(1/4),          beta = (8N)^(-1/4)
        M alone:            alpha = (2M)^(1/4),          beta = (8M)^(-1/4)
        both, the encoder:  alpha = 0.81 (N^4 M)^(1/16), beta = 0.87 (N^4 M)^(-1/16)
        both, the decoder:  alpha = (3M)^(1/4),          beta = (12M)^(-1/4)

    The other rows are derived so that one step changes the output by as much at any depth, where
    the step is proportional to the gradient ("sgd"), to its sign ("adam"), or to its sign and to
    the size of the weights ("lamb"). Of a stack of L sublayers:

        "sgd":   alpha = L^(1/4),  beta = L^(-1/4)
        "adam":  alpha = L^(1/2),  beta = L^(-1/2)
        "lamb":  alpha = 1,        beta = L^(-1/2)

    with L = 2N or 2M. That is derived for one stack alone. Of an encoder and a decoder, each counts
    its own sublayers here, 2N and 3M, and leaves the other out.

    Args:
        num_encoder_layers: int, N, blocks of self-attention and feed-forward. None: no encoder.
        num_decoder_layers: int, M, blocks; those of a decoder behind an encoder have
            cross-attention, too. None: no decoder.
        role: "encoder" or "decoder", the stack that the constants are for. Defaults to "encoder".
        optimizer: "paper", "sgd", "adam" (AdamW, Lion, Tiger) or "lamb" (and AdaFactor with
            relative steps). Defaults to "paper".

    Returns:
        Tuple of floats alpha, beta.

    Raises:
        ValueError: for a stack that `role` names and that has no number of layers, numbers below 1,
            an unknown role or optimizer.

    Example:

    >>> deepnorm_constants(8, optimizer="sgd")
    (2.0, 0.5)
    >>> deepnorm_constants(8, optimizer="adam")
    (4.0, 0.25)

    Source: Hongyu Wang et al., DeepNet: Scaling Transformers to 1,000 Layers, 2022,
    https://arxiv.org/abs/2203.00555; by optimizer: Jianlin Su, What is so difficult about
    training a Transformer of 1,000 layers?, 2022, https://kexue.fm/archives/8978
    """
    if role not in ROLES:
        raise ValueError(f"Expected a role of {ROLES}. Received: {role=}")
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"Expected an optimizer of {OPTIMIZERS}. Received: {optimizer=}")
    counts = {"encoder": num_encoder_layers, "decoder": num_decoder_layers}
    if counts[role] is None or any(n is not None and n < 1 for n in counts.values()):
        raise ValueError(
            f"Expected the number of layers of the {role}, and none below 1. "
            f"Received: {num_encoder_layers=}, {num_decoder_layers=}, {role=}"
        )
    both = None not in counts.values()
    if both and role == "encoder" and optimizer == "paper":
        mean = (num_encoder_layers**4 * num_decoder_layers) ** (1 / 16)
        return 0.81 * mean, 0.87 / mean
    sublayers = (3 if both and role == "decoder" else 2) * counts[role]
    if optimizer == "paper":
        return sublayers**0.25, (4 * sublayers) ** -0.25
    if optimizer == "sgd":
        return sublayers**0.25, sublayers**-0.25
    return sublayers**0.5 if optimizer == "adam" else 1.0, sublayers**-0.5
