"""Text -> token ids and character offsets, on the `tokenizers` library."""

import collections
import re
import unicodedata
from typing import NamedTuple

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from keras_ext.data.huggingface_tokenizer import (
    huggingface_backend,
    special_tokens,
    vocabulary_of_text,
)
from keras_ext.data.tokenizer_file import (
    backend_of_json,
    check_unknown_token,
    checked_backend,
)
from keras_ext.files.replaced_files import replaced_file

_SPECIALS = {
    "pad": ("[PAD]", "<pad>"),
    "unknown": ("[UNK]", "<unk>"),
    "start": ("[CLS]", "<s>"),
    "end": ("[SEP]", "</s>"),
}
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_IDS = 2**24
_BATCH = 256  # texts handed over at once: bounds the memory of the library's own encodings


class Encoding(NamedTuple):
    """Tokens of one text, without special tokens.

    `ids` is int32 (m,), `offsets` int32 (m, 2): start and end (exclusive) of each token in code
    points of the text. A token that stands for no visible character has zero width.

    Example:

    >>> from keras_ext.data import Tokenizer
    >>> tokenizer = Tokenizer.from_characters(["abc"], min_count=1)
    >>> tokenizer.encode_batch(["a b"])[0].offsets.tolist()
    [[0, 1], [2, 3]]
    """

    ids: np.ndarray
    offsets: np.ndarray


class Tokenizer:
    """A tokenizer whose offsets point into the original text.

    Nothing is truncated or padded, whatever the file says. Special tokens written out in a text
    (`"[SEP]"`) are ordinary characters. A lone surrogate, which is no character, is read as U+FFFD
    and keeps its place.

    Args:
        backend: A `tokenizers.Tokenizer` (copied) with a padding, an unknown, a start and an end
            token: those that its padding, model and post-processor name, else `[PAD]`, `[UNK]`,
            `[CLS]`, `[SEP]` or `<pad>`, `<unk>`, `<s>`, `</s>`.

    Raises:
        ValueError: If one of these tokens is missing, or the one for unknown words is not in the
            vocabulary.

    Example:

    >>> tokenizer = Tokenizer.from_characters(["a cab", "a bag"])
    >>> tokenizer.encode("cab").ids.tolist(), tokenizer.encode("cab").offsets.tolist()
    ([1, 4, 5], [[0, 1], [1, 2], [2, 3]])
    """

    def __init__(self, backend):
        check_unknown_token(backend)
        vocabulary = backend.get_vocab(with_added_tokens=True)
        # Not the number of words: a vocabulary file may repeat a word and so leave an id unused.
        self._size = max(vocabulary.values(), default=-1) + 1
        if self._size > _MOST_IDS:  # the library lists all ids that are not used, as it copies
            raise ValueError(
                f"the tokenizer has an id above {_MOST_IDS}. Expected ids that number its tokens. "
                f"Received: id={self._size - 1} in a vocabulary of {len(vocabulary)} tokens"
            )
        self._backend = tokenizers.Tokenizer.from_str(backend.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        self._special, own = {}, special_tokens(backend)
        for role, names in _SPECIALS.items():
            # What is unknown, the model says; without that token it could not read a text.
            names = [own[role]] if role == "unknown" and role in own else [own.get(role), *names]
            found = [vocabulary[name] for name in names if name in vocabulary]
            if not found:
                raise ValueError(
                    f"the tokenizer has no {role} token. Expected one of "
                    f"{[name for name in names if name]} in the vocabulary. "
                    f"Received: a vocabulary of {len(vocabulary)} tokens"
                )
            self._special[role] = found[0]

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
        backend = tokenizers.Tokenizer(
            models.WordPiece(vocabulary_of_text(path), unk_token="[UNK]")
        )
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
        return cls._named(checked_backend(path), path)

    @classmethod
    def from_huggingface(cls, folder):
        """Tokenizer of a Hugging Face folder, with the casing and special tokens that it says.

        `tokenizer.json` is read, else `vocab.txt` as BERT reads it. `tokenizer_config.json` says
        whether the case is lowered (`do_lower_case`), accents are stripped (`strip_accents`) and
        Chinese characters stand alone (`tokenize_chinese_chars`); as Hugging Face's own programs
        have it, this goes before the normaliser in `tokenizer.json`. Special tokens are those of
        `special_tokens_map.json` and `tokenizer_config.json`.

        Args:
            folder: The path. Nothing is downloaded.

        Returns:
            A `Tokenizer`.

        Raises:
            ValueError: If there is no such folder (for a name on the Hub, the message says how to
                download it); if it has its tokenizer in another form, such as SentencePiece; if a
                special token is missing or its files contradict each other.

        Example:

        ```python
        tokenizer = Tokenizer.from_huggingface("all-MiniLM-L6-v2")
        ```
        """
        return cls._named(huggingface_backend(folder), folder)

    @classmethod
    def _named(cls, backend, path):
        try:
            return cls(backend)
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
        return cls(backend_of_json(text, "JSON"))

    def to_json(self):
        """The tokenizer as the text of a `tokenizer.json`."""
        text = self._backend.to_str()
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        usual = next((vocabulary[name] for name in _SPECIALS["pad"] if name in vocabulary), None)
        if self.pad_id == usual:
            return text
        # The other special tokens have places of their own in the file.
        backend = tokenizers.Tokenizer.from_str(text)
        backend.enable_padding(pad_id=self.pad_id, pad_token=self._backend.id_to_token(self.pad_id))
        return backend.to_str()

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


def fit_offsets(text, offsets):
    """Fit token offsets to the visible characters of a text.

    Two things that tokenizers do would otherwise put an entity off the token borders: tokens such
    as `" York"` count the blank before them, and a normaliser that strips accents leaves the
    combining mark of `"e" + U+0301` outside every token. So blanks at the edges of a token are
    taken off, and marks that no token covers are given to the token right before them.

    Args:
        text: String without lone surrogates.
        offsets: Integer array (m, 2), start and end (exclusive) of each token in code points.

    Returns:
        int32 array (m, 2). A token of blanks only has zero width.

    Example:

    >>> fit_offsets("in York", np.array([[0, 2], [2, 7]]))[1].tolist()
    [3, 7]
    """
    offsets = np.asarray(offsets, "int32").reshape(-1, 2)
    if not len(offsets):
        return offsets
    codes = np.frombuffer(text.encode("utf-32-le"), "uint32")
    kinds, inverse = np.unique(codes, return_inverse=True)
    space = np.array([chr(c).isspace() for c in kinds], bool)[inverse]
    marks = [unicodedata.category(chr(c)).startswith("M") for c in kinds]
    mark = np.array(marks, bool)[inverse]
    start, end = offsets.T
    start = np.minimum(_skip(space)[start], end)
    end = np.maximum(len(text) - _skip(space[::-1])[len(text) - end], start)
    if mark.any():
        # A token's marks end where the next token begins.
        limit = np.append(start[1:], len(text))
        extended = np.minimum(_skip(mark)[end], limit)
        end = np.where(end > start, np.maximum(end, extended), end)
    return np.stack([start, end], axis=1).astype("int32")


def _skip(flags):
    """Of each position (n + 1), the first position from there on that is not flagged."""
    positions = np.append(np.where(flags, len(flags), np.arange(len(flags))), len(flags))
    return np.minimum.accumulate(positions[::-1])[::-1]
