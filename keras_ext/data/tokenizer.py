"""Text -> token ids and character offsets, on the `tokenizers` library."""

import collections
import re
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from keras_ext.data.offsets import Encoding, fit_offsets
from keras_ext.data.tokenizer_file import check_unknown_token, fault_of
from keras_ext.files.replaced_files import replaced_file

_SPECIALS = {
    "pad": ("[PAD]", "<pad>"),
    "unknown": ("[UNK]", "<unk>"),
    "start": ("[CLS]", "<s>"),
    "end": ("[SEP]", "</s>"),
}
_SURROGATE = re.compile("[\ud800-\udfff]")
_BATCH = 256  # texts handed over at once: bounds the memory of the library's own encodings


class Tokenizer:
    """A tokenizer whose offsets point into the original text.

    Nothing is truncated or padded, whatever the file says. Special tokens written out in a text
    (`"[SEP]"`) are ordinary characters. A lone surrogate, which is no character, is read as U+FFFD
    and keeps its place.

    Args:
        backend: A `tokenizers.Tokenizer` (copied) with a padding, an unknown, a start and an end
            token: `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` or `<pad>`, `<unk>`, `<s>`, `</s>`.

    Raises:
        ValueError: If one of these tokens is missing, or the one for unknown words is not in the
            vocabulary.

    Example:

    >>> tokenizer = Tokenizer.from_characters(["a cab", "a bag"])
    >>> tokenizer.encode("cab").ids.tolist(), tokenizer.encode("cab").offsets.tolist()
    ([1, 4, 5], [[0, 1], [1, 2], [2, 3]])
    """

    def __init__(self, backend):
        self._backend = tokenizers.Tokenizer.from_str(backend.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        # Not the number of words: a vocabulary file may repeat a word and so leave an id unused.
        self._size = max(vocabulary.values(), default=-1) + 1
        self._special = {}
        for role, names in _SPECIALS.items():
            found = [vocabulary[name] for name in names if name in vocabulary]
            if not found:
                raise ValueError(
                    f"the tokenizer has no {role} token. Expected one of {names} in the "
                    f"vocabulary. Received: a vocabulary of {len(vocabulary)} tokens"
                )
            self._special[role] = found[0]
        check_unknown_token(self._backend)

    @classmethod
    def from_vocab(cls, path, lowercase=True):
        """WordPiece tokenizer of BERT from its `vocab.txt`.

        Args:
            path: File with one token a line; the line number is the id.
            lowercase: Whether to lower the case and strip accents. Defaults to `True`.

        Returns:
            A `Tokenizer`.

        Raises:
            ValueError: If a special token is missing.
        """
        lines = Path(path).read_bytes().decode("utf-8-sig").split("\n")
        lines = lines[:-1] if not lines[-1] else lines
        vocabulary = {line.rstrip("\r"): index for index, line in enumerate(lines)}
        backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return cls(backend)

    @classmethod
    def from_file(cls, path):
        """Tokenizer from a `tokenizer.json`.

        Args:
            path: The file.

        Returns:
            A `Tokenizer`.

        Raises:
            ValueError: If the file is no tokenizer or a special token is missing.
        """
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def from_characters(cls, texts, min_count=2):
        """Tokenizer with one token for each non-blank character, learnt from texts.

        Ids 0 to 3 are `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`; characters follow, frequent ones first,
        equally frequent ones by code point. Case is kept.

        Args:
            texts: Iterable of strings.
            min_count: Rarer characters are unknown. Defaults to 2.

        Returns:
            A `Tokenizer`.
        """
        counts = collections.Counter()
        for text in _clean(texts):
            counts.update(text)
        characters = [c for c in counts if counts[c] >= min_count and not c.isspace()]
        characters.sort(key=lambda c: (-counts[c], c))
        words = [names[0] for names in _SPECIALS.values()] + characters
        vocabulary = {word: index for index, word in enumerate(words)}
        backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.WhitespaceSplit(),
                pre_tokenizers.Split(tokenizers.Regex("."), "isolated"),
            ]
        )
        return cls(backend)

    @classmethod
    def from_json(cls, text):
        """Tokenizer from the text of a `tokenizer.json`, the inverse of `to_json`.

        Args:
            text: JSON string.

        Returns:
            A `Tokenizer`.

        Raises:
            ValueError: If the text is no tokenizer or a special token is missing.
        """
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises nothing more specific
            fault = fault_of(text, error)
            raise ValueError(f"not a tokenizer: {fault}. Received: {text!r:.80}") from None
        return cls(backend)

    def to_json(self):
        """The tokenizer as the text of a `tokenizer.json`."""
        return self._backend.to_str()

    def save(self, path):
        """Write the tokenizer as a `tokenizer.json`.

        Args:
            path: The file; an existing one is replaced, once the new one is whole. Folders are made.

        Raises:
            OSError: If it cannot be written; an existing file is then as it was.
        """
        with replaced_file(path) as new:
            new.write_text(self.to_json(), encoding="utf-8")

    @property
    def vocabulary_size(self):
        """The largest id plus one: the rows that an embedding needs."""
        return self._size

    @property
    def pad_id(self):
        """Id of `[PAD]` or `<pad>`."""
        return self._special["pad"]

    @property
    def unknown_id(self):
        """Id of `[UNK]` or `<unk>`."""
        return self._special["unknown"]

    @property
    def start_id(self):
        """Id of `[CLS]` or `<s>`."""
        return self._special["start"]

    @property
    def end_id(self):
        """Id of `[SEP]` or `</s>`."""
        return self._special["end"]

    def encode(self, text):
        """Tokenise one text.

        Args:
            text: A string of any length.

        Returns:
            An `Encoding` without special tokens.

        Raises:
            ValueError: If `text` is not a string.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts):
        """Tokenise many texts in parallel.

        Args:
            texts: Iterable of strings.

        Returns:
            List of `Encoding`, in order.

        Raises:
            ValueError: If a text is not a string; the message has its index.
        """
        encodings = []
        for text, found in self._encoded(texts):
            offsets = fit_offsets(text, np.array(found.offsets, "int32").reshape(-1, 2))
            encodings.append(Encoding(np.array(found.ids, "int32"), offsets))
        return encodings

    def encode_ids(self, texts):
        """Tokenise many texts, without the offsets: faster.

        Args:
            texts: Iterable of strings.

        Returns:
            List of int32 arrays (m,), in order, without special tokens.

        Raises:
            ValueError: If a text is not a string; the message has its index.
        """
        return [np.array(found.ids, "int32") for _, found in self._encoded(texts, fast=True)]

    def _encoded(self, texts, fast=False):
        texts = list(_clean(texts))
        encode = self._backend.encode_batch_fast if fast else self._backend.encode_batch
        for first in range(0, len(texts), _BATCH):
            part = texts[first : first + _BATCH]
            yield from zip(part, encode(part, add_special_tokens=False), strict=True)


def _clean(texts):
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"a text must be a str. Received: texts[{index}]={text!r:.80} ({type(text)})"
            )
        yield _SURROGATE.sub("\ufffd", text)
