import pytest
import tokenizers
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers

from keras_ext.data import Tokenizer

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


@pytest.fixture(scope="session")
def texts():
    """Strategy for strings of everything that goes wrong in texts, surrogates included."""
    odd = "\0\t\r\n \x0b\x1c\x85\u00a0\u200b\u200d\u2028\u3000\ufe0f\ufffd\ufeff"
    marks = "\u0301\u0323\u20dd\u0591\u0940\u302a"
    letters = "abZéßİﬁ中文한ا\u05d0\u202eक"
    astral = "😀👩🇩𝒳\U00010348\U000e0061"
    alphabet = st.one_of(
        st.sampled_from(odd), st.sampled_from(marks), st.sampled_from(letters),
        st.sampled_from(astral), st.sampled_from("\ud800\udc00\udfff"), st.characters(),
    )  # fmt: skip
    return st.text(alphabet, max_size=40)


@pytest.fixture(scope="session")
def kinds():
    """One tokenizer of each common kind, by name."""
    words = [*SPECIALS, "a", "##a", "b", "##b", "中", "new", "york", "cafe", ".", "##z"]
    wordpiece = tokenizers.Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    wordpiece.normalizer = normalizers.BertNormalizer(lowercase=True)
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    alphabet = ["<s>", "</s>", "<pad>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bytes_ = tokenizers.Tokenizer(
        models.BPE({c: i for i, c in enumerate([*alphabet, "Ġa"])}, [("Ġ", "a")])
    )
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    pieces = ["<unk>", "<pad>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab", "中"]
    metaspace = tokenizers.Tokenizer(models.Unigram([(p, -1.0) for p in pieces], unk_id=0))
    metaspace.normalizer = normalizers.NFKC()
    metaspace.pre_tokenizer = pre_tokenizers.Metaspace()
    return {
        "wordpiece": Tokenizer(wordpiece),
        "bytes": Tokenizer(bytes_),
        "metaspace": Tokenizer(metaspace),
        "characters": Tokenizer.from_characters(["ab中中 aab😀\u0301"], min_count=1),
    }
