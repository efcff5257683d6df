"""Images from files of the common kinds, as floats from -1 to 1."""

import gzip
import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

ENDINGS = {".png", ".jpg", ".jpeg"}
GZIP = b"\x1f\x8b"
IDX_DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


@dataclass
class Images:
    """Images and what is known of them.

    Args:
        values: (n, height, width, channels) float32, from -1 to 1.
        labels: (n,) int32, or None.
        names: the names of the classes.
        width: how far two levels of brightness are apart, 2 / 255 for 8 bits; None: no levels.
    """

    values: np.ndarray
    labels: np.ndarray | None
    names: list
    width: float | None


def read_images(path=None, size=None):
    """Images from a file or folder.

    Args:
        path: a folder of PNG and JPEG files, whose subfolders are classes; an .npy file; an .npz
            file with `x` or `images`, and `y` or `labels`; an idx file (also compressed by gzip)
            whose labels, if there are any, lie beside it, as those of MNIST do; None:
            scikit-learn's digits of 8 x 8.
        size: height and width of the images of a folder, whose middle is cut out and scaled. None:
            their own if they are all of one size, else 32.

    Returns:
        `Images`.

    Raises:
        ValueError: for a file of another kind, no images, or values of unknown range.
    """
    if path is None:
        digits = load_digits()
        return made(digits.images.astype("uint8"), digits.target, top=16)
    path = Path(path)
    if path.is_dir():
        return of_folder(path, size)
    if path.suffix == ".npy":
        return made(np.load(path))
    if path.suffix == ".npz":
        arrays = np.load(path)
        x = next((arrays[name] for name in ("x", "images") if name in arrays), None)
        if x is None:
            raise ValueError(f"Expected an array x or images. Received: {path} with {[*arrays]}")
        return made(x, next((arrays[name] for name in ("y", "labels") if name in arrays), None))
    name = path.name.replace("images-idx3", "labels-idx1")
    labels = path.with_name(name)
    return made(read_idx(path), read_idx(labels) if name != path.name and labels.exists() else None)


def read_idx(path):
    """The array of an idx file, as MNIST is published in, compressed or not."""
    data = Path(path).read_bytes()
    data = gzip.decompress(data) if data[:2] == GZIP else data
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in IDX_DTYPES:
        raise ValueError(
            f"Expected a folder, an .npy, .npz or idx file. Received: {path}, bytes {data[:4]!r}"
        )
    rank = data[3]
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    values = np.frombuffer(data, IDX_DTYPES[data[2]], offset=4 + 4 * rank)
    if values.size != np.prod(shape):
        raise ValueError(f"Expected {shape} values. Received: {values.size}, {path} is cut off")
    return values.reshape(shape).astype(values.dtype.newbyteorder("="))


def of_folder(folder, size):
    """The PNG and JPEG files of a folder and of its subfolders."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if not paths:
        raise ValueError(f"Expected PNG or JPEG files. Received: {folder} without any")
    pictures = [Image.open(io.BytesIO(path.read_bytes())) for path in paths]
    grey = all(picture.mode in ("L", "1") for picture in pictures)
    pictures = [picture.convert("L" if grey else "RGB") for picture in pictures]
    if size is not None or len({picture.size for picture in pictures}) > 1:
        pictures = [squared(picture, size or 32) for picture in pictures]
    classes = [path.relative_to(folder).parts[0] for path in paths]
    names = sorted(set(classes))
    # Files that lie in no subfolder have no class.
    labelled = all(len(path.relative_to(folder).parts) > 1 for path in paths)
    labels = [names.index(name) for name in classes] if labelled else None
    return made(np.stack([np.asarray(picture) for picture in pictures]), labels, names)


def squared(picture, size):
    """The middle of a picture, of this size."""
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    box = (left, top, left + side, top + side)
    return picture.crop(box).resize((size, size), Image.Resampling.LANCZOS)


def made(values, labels=None, names=None, top=None):
    """`Images` of an array (n, height, width) or (n, height, width, channels)."""
    values = values[..., None] if values.ndim == 3 else values
    if values.ndim != 4 or not len(values):
        raise ValueError(f"Expected images (n, height, width[, c]). Received: {values.shape}")
    width = None
    if values.dtype.kind in "ui":
        top = top or (255 if values.dtype == "uint8" else int(values.max()))
        values, width = values / (top / 2) - 1, 2 / top
    elif 0 <= values.min() <= values.max() <= 1:
        values = 2 * values - 1
    elif not -1 <= values.min() <= values.max() <= 1:
        raise ValueError(
            "Expected integers, or floats from 0 to 1 or from -1 to 1. "
            f"Received: from {values.min()} to {values.max()}"
        )
    if labels is not None:
        found, labels = np.unique(np.asarray(labels).ravel(), return_inverse=True)
        names = names or [str(each) for each in found]
        labels = labels.astype("int32")
        if len(labels) != len(values):
            raise ValueError(f"Expected {len(values)} labels. Received: {len(labels)}")
    return Images(values.astype("float32"), labels, names if labels is not None else [], width)
