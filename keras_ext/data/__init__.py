"""Text as NumPy arrays: records and pairs, their files, tokens, windows and batches."""

from keras_ext.data.augmentation import swap_mentions
from keras_ext.data.batching import bucket_lengths, collate, make_batches, pad_rows
from keras_ext.data.brat import read_brat
from keras_ext.data.conll import read_conll
from keras_ext.data.convert_offsets import convert_offsets
from keras_ext.data.json_records import read_cluener, read_cmeee, read_jsonl, write_jsonl
from keras_ext.data.pair_files import read_pairs
from keras_ext.data.pairs import check_examples
from keras_ext.data.readers import read_records
from keras_ext.data.records import check_records, labels_of
from keras_ext.data.report import Report
from keras_ext.data.spans import (
    Window,
    entities_to_tokens,
    make_windows,
    merge_windows,
    resolve,
    tokens_to_characters,
)
from keras_ext.data.tokenizer import Encoding, Tokenizer
from keras_ext.data.validation import plan, validate

__all__ = [
    "Encoding",
    "Report",
    "Tokenizer",
    "Window",
    "bucket_lengths",
    "check_examples",
    "check_records",
    "collate",
    "convert_offsets",
    "entities_to_tokens",
    "labels_of",
    "make_batches",
    "make_windows",
    "merge_windows",
    "pad_rows",
    "plan",
    "read_brat",
    "read_cluener",
    "read_cmeee",
    "read_conll",
    "read_jsonl",
    "read_pairs",
    "read_records",
    "resolve",
    "swap_mentions",
    "tokens_to_characters",
    "validate",
    "write_jsonl",
]
