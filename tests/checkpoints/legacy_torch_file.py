"""Reading the tensors of an old PyTorch file (before 1.6) without executing what it says.

Such a file is five pickles and then the raw numbers. The pickles are walked opcode by opcode; only
those that a dict of tensors needs are understood, and names of functions and classes are kept as
strings: nothing is imported, called or rebuilt. Anything else raises ValueError.

    magic number | version | description of the machine | dict of tensors | keys of the storages |
    for each key: count as int64, numbers

Source of the format: `_legacy_save` in PyTorch's torch/serialization.py.
"""

import math
import pickletools
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
MACHINE = {"protocol_version": 1001, "little_endian": True}
DTYPES = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch DoubleStorage": np.dtype("<f8"),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
}
DICT, TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
VALUES = {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"}
CONSTANTS = {"NEWTRUE": True, "NEWFALSE": False, "NONE": None}
MARK = object()


class Name(NamedTuple):
    """What a pickle would import."""

    name: str


class Storage(NamedTuple):
    dtype: np.dtype
    key: str
    count: int


class Tensor(NamedTuple):
    storage: Storage
    offset: int
    shape: tuple
    strides: tuple


def read_legacy_torch_file(path):
    """The tensors of the file, which must be a dict of tensors.

    Args:
        path: the file.

    Returns:
        Dict from names to NumPy arrays.

    Raises:
        ValueError: if the file is anything else, or is cut off.
    """
    with Path(path).open("rb") as file:
        head = [_literal(file) for _ in range(3)]
        if head[:2] != [MAGIC, VERSION] or not MACHINE.items() <= head[2].items():
            raise ValueError(f"Not an old PyTorch file. Received: {head=}")
        tensors, keys = _literal(file), _literal(file)
        if not isinstance(tensors, dict):
            raise ValueError(f"Expected a dict of tensors. Received: {type(tensors).__name__}")
        for name, tensor in tensors.items():
            if not isinstance(name, str) or not isinstance(tensor, Tensor):
                raise ValueError(f"Expected a dict of tensors. Received: {name!r:.80}")
        storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        if not isinstance(keys, list) or sorted(keys) != sorted(storages):
            raise ValueError(f"The storages are others than those of the tensors. Received: {keys}")
        numbers = {key: _numbers(file, storages[key]) for key in keys}
        if file.read(1):
            raise ValueError("There is more behind the last storage.")
    return {name: _array(tensor, numbers) for name, tensor in tensors.items()}


def _numbers(file, storage):
    count = int.from_bytes(file.read(8), "little")
    content = file.read(count * storage.dtype.itemsize)
    if count != storage.count or len(content) != count * storage.dtype.itemsize:
        raise ValueError(f"A storage is cut off or of another size. Received: {storage}, {count=}")
    return np.frombuffer(content, storage.dtype)


def _array(tensor, numbers):
    flat = numbers[tensor.storage.key]
    indices = np.full(tensor.shape, tensor.offset)
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.strides, strict=True)):
        steps = stride * np.arange(size)
        indices += steps.reshape(-1, *[1] * (len(tensor.shape) - axis - 1))
    if math.prod(tensor.shape) and not 0 <= indices.min() <= indices.max() < len(flat):
        raise ValueError(f"A tensor reaches beyond its storage. Received: {tensor}")
    return flat[indices]


def _literal(file):
    """The value of the pickle at the position of the file, if it is made of the parts above."""
    stack, memo = [], {}
    for opcode, argument, position in pickletools.genops(file):
        name = opcode.name
        if name == "STOP":
            (value,) = stack
            return value
        if name == "PROTO":
            continue
        if name in VALUES:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name == "GLOBAL":
            stack.append(_known(argument))
        elif name == "MARK":
            stack.append(MARK)
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append({"EMPTY_DICT": {}, "EMPTY_LIST": [], "EMPTY_TUPLE": ()}[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(name[-1])
            stack[-size:] = [tuple(stack[-size:])]
        elif name == "TUPLE":
            stack.append(tuple(_since_mark(stack)))
        elif name == "APPENDS":
            items = _since_mark(stack)
            stack[-1].extend(items)
        elif name == "SETITEMS":
            items = _since_mark(stack)
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            stack[-1][key] = value
        elif name == "BUILD":
            _check_attributes(stack.pop())
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_reduced(function, arguments))
        else:
            raise ValueError(
                f"An opcode that no dict of tensors needs. Received: {name}, {position=}"
            )
    raise ValueError("The pickle has no end.")


def _since_mark(stack):
    start = len(stack) - 1 - stack[::-1].index(MARK)
    items = stack[start + 1 :]
    del stack[start:]
    return items


def _check_attributes(attributes):
    """Only the versions of the modules may be set on a dict; they are of no use."""
    if not isinstance(attributes, dict) or attributes.keys() != {"_metadata"}:
        raise ValueError(f"Attributes that no dict of tensors needs. Received: {attributes!r:.80}")


def _known(name):
    if name not in {*DTYPES, DICT, TENSOR}:
        raise ValueError(f"A name that no dict of tensors needs. Received: {name=}")
    return Name(name)


def _storage(arguments):
    """('storage', class, key, device, count, view); a view of a storage is not understood."""
    kind, storage, key, _, count, view = arguments
    if kind != "storage" or view is not None or storage.name not in DTYPES:
        raise ValueError(f"Not a storage. Received: {arguments}")
    return Storage(DTYPES[storage.name], key, count)


def _reduced(function, arguments):
    if function == Name(DICT) and arguments == ():
        return {}
    if function == Name(TENSOR) and isinstance(arguments[0], Storage):
        return Tensor(*arguments[:4])
    raise ValueError(f"A call that no dict of tensors needs. Received: {function}, {arguments}")
