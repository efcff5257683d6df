"""The tokenizer of a Hugging Face folder: its casing and special tokens, from its own files."""

import json
import re

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from keras_ext.data.tokenizer_file import checked_backend
from keras_ext.files.text_file import model_folder, read_object, read_text

ROLES = {"pad": "pad_token", "unknown": "unk_token", "start": "cls_token", "end": "sep_token"}
USUAL = {"pad": "[PAD]", "unknown": "[UNK]", "start": "[CLS]", "end": "[SEP]"}
# Classes that read a vocab.txt as BERT does: those that are named otherwise split it otherwise.
WORD_PIECES = {
    f"{name}Tokenizer"
    for name in (
        *("Bert", "ConvBert", "DistilBert", "Electra", "Funnel", "LayoutLM", "Lxmert", "MPNet"),
        *("MobileBert", "RoFormer", "SqueezeBert"),
    )
}
# RoFormer's tokenizer looks whole words up, which jieba finds, before it splits them.
BY_WORDS = "RoFormerTokenizer"
CHINESE_WORD = re.compile("[\u3400-\u9fff]{2,}")
ADVICE = (
    "A fast tokenizer of the transformers library writes tokenizer.json: "
    "`AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`."
)


def huggingface_backend(folder):
    """The tokenizer of a folder as the `tokenizers` library has it.

    Args:
        folder: The path.

    Returns:
        A `tokenizers.Tokenizer`. Its post-processor and its padding name the special tokens.

    Raises:
        ValueError: If there is no such folder, it holds no tokenizer that is known here, or its
            files contradict each other.
    """
    folder = model_folder(folder)
    settings = _optional(folder / "tokenizer_config.json")
    special = _special(folder, settings)
    kind = settings.get("tokenizer_class")
    model = _optional(folder / "config.json").get("model_type", "roformer")
    if kind is None and model == "roformer":  # or one that does not say what it is
        kind = BY_WORDS
    kind = str(kind or "BertTokenizer").removesuffix("Fast")
    if (folder / "tokenizer.json").is_file():
        backend = checked_backend(folder / "tokenizer.json")
        _set_casing(backend, settings)
    elif (folder / "vocab.txt").is_file() and kind in WORD_PIECES:
        special = {role: token or USUAL[role] for role, token in special.items()}
        backend = _word_pieces(folder / "vocab.txt", settings, special["unknown"])
    else:
        found = sorted(path.name for path in folder.glob("*") if _is_vocabulary(path.name))
        raise ValueError(
            "Expected the tokenizer as tokenizer.json, or as vocab.txt of a BERT. "
            f"{ADVICE} Received: tokenizer_class={settings.get('tokenizer_class')!r}, {found} in "
            f"{str(folder)!r}"
        )
    words = backend.get_vocab(with_added_tokens=False)
    pieces = isinstance(backend.model, models.WordPiece)
    if kind == BY_WORDS and pieces and any(map(CHINESE_WORD.fullmatch, words)):
        raise ValueError(
            "A tokenizer that splits Chinese into words (by jieba) before it looks them up is not "
            "known here: it would give other tokens. "
            f"Received: tokenizer_class={settings.get('tokenizer_class')!r} in {str(folder)!r}"
        )
    _set_special(backend, {role: token for role, token in special.items() if token}, folder)
    return backend


def vocabulary_of_text(path):
    """The words of a `vocab.txt` and their ids, the numbers of their lines.

    Args:
        path: The file, one token a line.

    Returns:
        A dict.

    Raises:
        ValueError: If the file is no text, or has a NUL character.
    """
    text = read_text(path)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"{path}, line {line}: a NUL character. Expected one token a line.")
    lines = text.split("\n")
    lines = lines[:-1] if not lines[-1] else lines
    return {line.rstrip("\r"): index for index, line in enumerate(lines)}


def _word_pieces(path, settings, unknown):
    if settings.get("do_basic_tokenize") is False:
        raise ValueError(
            f"{path}: a tokenizer that does not split at blanks and punctuation is not known here. "
            f"{ADVICE} Received: do_basic_tokenize=False"
        )
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary_of_text(path), unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=_flag(settings, "do_lower_case", True),
        strip_accents=_flag(settings, "strip_accents", None),
        handle_chinese_chars=_flag(settings, "tokenize_chinese_chars", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return backend


def _set_casing(backend, settings):
    """Gives BERT's normaliser what the settings say, which Hugging Face puts first, too."""
    normalizer = backend.normalizer
    if isinstance(normalizer, normalizers.BertNormalizer):
        normalizer.lowercase = _flag(settings, "do_lower_case", normalizer.lowercase)
        normalizer.strip_accents = _flag(settings, "strip_accents", normalizer.strip_accents)
        normalizer.handle_chinese_chars = _flag(
            settings, "tokenize_chinese_chars", normalizer.handle_chinese_chars
        )
        backend.normalizer = normalizer


def _set_special(backend, special, folder):
    ids = {role: backend.token_to_id(token) for role, token in special.items()}
    absent = {ROLES[role]: special[role] for role, number in ids.items() if number is None}
    if absent:
        raise ValueError(
            "The folder names special tokens that are not in the vocabulary. "
            f"Received: {absent} in {str(folder)!r}"
        )
    own = special_tokens(backend)
    changed = any(special.get(role) != own.get(role) for role in ("start", "end"))
    if changed and "start" in special and "end" in special:
        names = ("end", "start")
        backend.post_processor = processors.BertProcessing(*((special[n], ids[n]) for n in names))
    if "pad" in special and special["pad"] != own.get("pad"):
        backend.enable_padding(pad_id=ids["pad"], pad_token=special["pad"])


def special_tokens(backend):
    """The special tokens that a tokenizer names itself.

    Args:
        backend: A `tokenizers.Tokenizer`.

    Returns:
        A dict from some of "pad", "unknown", "start", "end" to tokens.
    """
    found = {"pad": (backend.padding or {}).get("pad_token")}
    found["unknown"] = getattr(backend.model, "unk_token", None)
    state = json.loads(backend.post_processor.__getstate__()) if backend.post_processor else {}
    if "cls" in state and "sep" in state:  # BERT's and RoBERTa's
        found["start"], found["end"] = state["cls"][0], state["sep"][0]
    elif len(state.get("single", ())) == 3 and "Sequence" in state["single"][1]:
        ends = [piece.get("SpecialToken", {}).get("id") for piece in state["single"][::2]]
        found["start"], found["end"] = ends
    return {role: token for role, token in found.items() if token}


def _optional(path):
    return read_object(path) if path.is_file() else {}


def _special(folder, settings):
    """The special tokens that the files of a folder name, and None for others, by their roles."""
    special = {}
    for role, key in ROLES.items():
        named = [settings.get(key), _optional(folder / "special_tokens_map.json").get(key)]
        named = [token.get("content") if isinstance(token, dict) else token for token in named]
        named = [token for token in named if token is not None]
        if not all(isinstance(token, str) and token == named[0] for token in named):
            raise ValueError(
                f"Expected {key} to be one token, in tokenizer_config.json as in "
                f"special_tokens_map.json. Received: {key}={named!r:.80} in {str(folder)!r}"
            )
        special[role] = named[0] if named else None
    return special


def _flag(settings, key, default):
    value = settings.get(key)
    if value is not None and not isinstance(value, bool):
        raise ValueError(
            f"Expected {key} to be true or false, in tokenizer_config.json. Received: "
            f"{key}={value!r:.80}"
        )
    return default if value is None else value


def _is_vocabulary(name):
    return name.endswith((".model", ".txt", ".codes", ".spm")) or name in (
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
    )
