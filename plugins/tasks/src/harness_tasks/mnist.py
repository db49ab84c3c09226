"""`mnist-rows`: the MNIST digits, read row by row."""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness import Data, DataError, Split
from harness_tasks.files import Content, gunzip

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = "mnist"
URL_VARIABLE = "HARNESS_MNIST_URL"
DEFAULT_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
TIMEOUT_S = 30  # how long the server may be silent


@dataclass(frozen=True)
class IdxFile:
    """One of the four original files: its name, its compressed content, and the shape of the array in it."""

    name: str
    compressed: Content
    shape: tuple[int, ...]


TRAIN_IMAGES = IdxFile(
    "train-images-idx3-ubyte.gz",
    Content(9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    (60_000, 28, 28),
)
TRAIN_LABELS = IdxFile(
    "train-labels-idx1-ubyte.gz",
    Content(28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    (60_000,),
)
TEST_IMAGES = IdxFile(
    "t10k-images-idx3-ubyte.gz",
    Content(1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    (10_000, 28, 28),
)
TEST_LABELS = IdxFile(
    "t10k-labels-idx1-ubyte.gz",
    Content(4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    (10_000,),
)


def load(data_dir: Path | None) -> Data:
    """60,000 images to train on and 10,000 to test on, the original split.

    x is (N, 28, 28), one row of pixels a step, top to bottom, pixels in 0..1. Targets are the digits.

    With a `data_dir` the four original files are read from `data_dir`/mnist, and nothing is downloaded. Without one
    they are downloaded once into a cache folder, from the mirror that torchvision uses or from the address in the
    environment variable `HARNESS_MNIST_URL`. Either way a file's SHA-256 is checked before it is read.

    Raises:
        DataError: a file is missing or damaged, or a download failed.

    Source: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-based learning applied to document recognition,
    Proceedings of the IEEE, 1998.
    """
    return Data(
        _split(TRAIN_IMAGES, TRAIN_LABELS, data_dir),
        _split(TEST_IMAGES, TEST_LABELS, data_dir),
    )


def _split(images: IdxFile, labels: IdxFile, data_dir: Path | None) -> Split:
    x = read(images, data_dir).astype(np.float32)
    x /= 255
    return Split(x, read(labels, data_dir).astype(np.int64))


def read(file: IdxFile, data_dir: Path | None) -> NDArray[np.uint8]:
    """Find one file (or download it), check it, and return the array in it, of shape `file.shape`.

    Raises:
        DataError: the file is missing or damaged, or its download failed.
    """
    path = _download(file) if data_dir is None else data_dir / FOLDER / file.name
    try:
        with path.open("rb") as stream:
            compressed = stream.read(file.compressed.size + 1)
        file.compressed.check(compressed)
        size = _header_size(file.shape) + math.prod(file.shape)
        return parse_idx(gunzip(compressed, size), file.shape)
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing (sha256 {file.compressed.sha256[:12]}...): put the original MNIST file of that name "
            "there, or leave out --data-dir to have it downloaded"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is damaged: {error}; put the original MNIST file of that name there, "
            "or leave out --data-dir to have it downloaded"
        ) from None


def parse_idx(content: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes that must hold an array of exactly this shape.

    The format: two zero bytes, the type (8 for unsigned bytes), the number of axes, each axis's length as a big-endian
    32-bit integer, then the bytes in C order (the format's description on the original MNIST page).

    Raises:
        ValueError: the magic number, an axis or the size is not as expected.
    """
    header = _header_size(shape)
    if len(content) < header:
        raise ValueError(f"its header needs {header} bytes, it has {len(content)}")
    magic, *axes = struct.unpack_from(f">{1 + len(shape)}I", content)
    expected_magic = 0x0800 + len(shape)
    if magic != expected_magic:
        raise ValueError(f"its magic number is {magic}, expected {expected_magic}")
    if tuple(axes) != shape:
        raise ValueError(f"it holds an array of shape {tuple(axes)}, expected {shape}")
    if len(content) != header + math.prod(shape):
        raise ValueError(f"it has {len(content)} bytes, its header promises {header + math.prod(shape)}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _header_size(shape: tuple[int, ...]) -> int:
    return 4 + 4 * len(shape)


def _download(file: IdxFile) -> Path:
    """The path of the file in the cache folder, downloaded and checked if it was not there."""
    import pooch  # type: ignore[import-untyped]
    import requests

    def fetch(url: str, target: str, _: object) -> None:
        """Unlike pooch's own, stops at a file's known size and closes the connection when the server refuses."""
        size = 0
        with requests.get(url, stream=True, timeout=TIMEOUT_S) as response, open(target, "wb") as output:
            response.raise_for_status()
            for chunk in response.iter_content(chunk_size=2**16):
                size += len(chunk)
                if size > file.compressed.size:
                    raise ValueError(f"more than the expected {file.compressed.size} bytes came")
                output.write(chunk)

    url = os.environ.get(URL_VARIABLE, DEFAULT_URL).rstrip("/") + "/" + file.name
    folder = Path(pooch.os_cache("rnn-harness")) / FOLDER
    try:
        known = f"sha256:{file.compressed.sha256}"
        return Path(pooch.retrieve(url, known, fname=file.name, path=folder, downloader=fetch))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{file.name} could not be downloaded from {url} ({reason}); put the original file (sha256 "
            f"{file.compressed.sha256[:12]}...) at {folder / file.name}, or at DIR/{FOLDER} and give --data-dir DIR"
        ) from None
