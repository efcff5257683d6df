"""Text that a language model writes, token by token."""

import keras
from keras import ops


def generate_tokens(step, state, prompt_ids, length, temperature=1.0, seed=None, chunk=512):
    """Tokens drawn one after the other, each from the scores that the model gives after those before.

        p(token) = softmax(scores / temperature);  temperature 0: the token of the highest score

    Args:
        step: function of token ids (b, t) and a state that gives scores of the next token
            (b, t, vocabulary), logits, and the state after them.
        state: the first state.
        prompt_ids: (b, t) int, t at least 1, what the model reads first; or (t,), for one text.
        length: int, how many tokens to draw.
        temperature: number of at least 0. Defaults to 1.
        seed: int, or None for other tokens each time.
        chunk: int, tokens of the prompt that are read at once.

    Returns:
        int32 (b, length), or (length,) for one prompt.

    Raises:
        ValueError: for an empty prompt, a length below 1 or a negative temperature.

    Example:

    >>> import numpy as np
    >>> successor = lambda ids, state: (keras.ops.one_hot((ids + 1) % 5, 5), state)
    >>> tokens = generate_tokens(successor, None, np.array([2, 3]), 4, temperature=0)
    >>> np.asarray(tokens).tolist()
    [4, 0, 1, 2]
    """
    prompt_ids = ops.cast(ops.convert_to_tensor(prompt_ids), "int32")
    single = len(prompt_ids.shape) == 1
    prompt_ids = ops.expand_dims(prompt_ids, 0) if single else prompt_ids
    if len(prompt_ids.shape) != 2 or prompt_ids.shape[1] == 0:
        raise ValueError(
            "Expected a prompt of at least one token, (t,) or (b, t). "
            f"Received: prompt_ids of shape {tuple(prompt_ids.shape)}"
        )
    if length < 1 or not temperature >= 0:
        raise ValueError(
            "Expected a length of at least 1 and a temperature of at least 0. "
            f"Received: {length=}, {temperature=}"
        )
    generator = keras.random.SeedGenerator(seed)
    for start in range(0, prompt_ids.shape[1], chunk):
        scores, state = step(prompt_ids[:, start : start + chunk], state)
    drawn = []
    while True:
        drawn.append(_draw(ops.cast(scores[:, -1], "float32"), temperature, generator))
        if len(drawn) == length:
            break
        scores, state = step(drawn[-1], state)
    tokens = ops.concatenate(drawn, axis=1)
    return tokens[0] if single else tokens


def _draw(scores, temperature, generator):
    """A token for each row of scores (b, vocabulary), int32 (b, 1)."""
    if temperature == 0:
        return ops.cast(ops.argmax(scores, -1, keepdims=True), "int32")
    return keras.random.categorical(scores / temperature, 1, dtype="int32", seed=generator)
