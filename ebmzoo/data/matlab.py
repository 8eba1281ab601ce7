"""Reading of one array of bytes out of a MATLAB 5 file, as SVHN publishes its images.

`scipy.io.loadmat` reads these files too, but one that was damaged on its way can crash the whole process
there; here it ends in one line that names the file.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

_BYTES, _MATRIX, _COMPRESSED = 2, 14, 15  # types of data elements
_UINT8 = 9  # class of an array
_HEADER = 128
_READ = 1 << 20  # bytes inflated at a time
_TURNED = 4096  # images turned at a time


class _Inflated(io.RawIOBase):
    """The content of one compressed element, inflated as it is read."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self.file, self.left, self.inflate = file, length, zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.inflate.eof:
            packed = self.inflate.unconsumed_tail
            if not packed:
                packed = self.file.read(min(self.left, _READ))
                self.left -= len(packed)
            out = self.inflate.decompress(packed, len(buffer))
            if out or not packed:
                buffer[: len(out)] = out
                return len(out)
        return 0


def read_matlab_images(path: Path, name: str, shape: tuple[int, int, int]) -> Tensor:
    """The images that a MATLAB 5 file holds as one array, height first and image last.

    Args:
        path: the file, compressed or not.
        name: of the array.
        shape: ``(H, W, C)`` of an image.

    Returns:
        uint8 ``(n, C, H, W)``.

    Raises:
        ValueError: one line that names the file, if it is not such a file or holds no such array.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER)
            if len(header) < _HEADER or header[124:] != b"\x00\x01IM":
                raise ValueError("it does not begin as one, or is not little-endian")
            while head := file.read(8):
                kind, length = struct.unpack("<II", head)
                start = file.tell()
                if kind in (_MATRIX, _COMPRESSED):
                    images = _element(file, length, kind == _COMPRESSED, name, shape)
                    if images is not None:
                        return torch.from_numpy(images)
                file.seek(start + length)
    except (OSError, ValueError, struct.error, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as a MATLAB 5 file of images: {reason}") from error
    raise ValueError(f"{path} holds no array {name}")


def _element(
    file: IO[bytes], length: int, compressed: bool, name: str, shape: tuple[int, int, int]
) -> np.ndarray | None:
    if not compressed:
        return _array(file, name, shape)
    inflated = _Inflated(file, length)
    stream = io.BufferedReader(inflated)
    if _tag(stream)[0] != _MATRIX:
        raise ValueError("a compressed element is not an array")
    images = _array(stream, name, shape)
    # The checksum stands behind the last byte: zlib compares it when it gets there.
    if images is not None and (stream.read(1) or not inflated.inflate.eof):
        raise ValueError(f"the compressed {name} does not end where it should")
    return images


def _tag(stream: IO[bytes]) -> tuple[int, int, bytes | None]:
    """Type and length of the element that follows, and its content where that is packed into the tag."""
    head = stream.read(8)
    kind, length = struct.unpack("<II", head)
    if kind >> 16:
        return kind & 0xFFFF, kind >> 16, head[4 : 4 + (kind >> 16)]
    return kind, length, None


def _small(stream: IO[bytes]) -> bytes:
    """The content of one short element: flags, dimensions, a name."""
    _, length, packed = _tag(stream)
    if packed is not None:
        return packed
    if length > 256:
        raise ValueError(f"a description of {length} bytes")
    return stream.read(length + -length % 8)[:length]


def _array(stream: IO[bytes], name: str, shape: tuple[int, int, int]) -> np.ndarray | None:
    flags, dims = _small(stream), _small(stream)
    if _small(stream) != name.encode():
        return None
    sizes = struct.unpack(f"<{len(dims) // 4}i", dims)
    if struct.unpack("<II", flags)[0] & 0xFF != _UINT8 or len(sizes) != 4 or sizes[:3] != shape:
        raise ValueError(f"{name} should be uint8 ({', '.join(map(str, shape))}, n), its size is {sizes}")
    kind, length, packed = _tag(stream)
    count, rest = divmod(length, shape[0] * shape[1] * shape[2])
    if kind != _BYTES or packed is not None or rest or count != sizes[3] or not count:
        raise ValueError(f"{name} has {length} bytes of type {kind} for a size of {sizes}")
    # Each channel is written column by column.
    columns = np.empty((count, shape[2], shape[1], shape[0]), dtype=np.uint8)
    flat, done = columns.reshape(-1), 0
    while done < length:
        got = stream.readinto(flat[done:])  # type: ignore[attr-defined]  # typing's IO does not know it
        if not got:
            raise ValueError(f"it ends after {done} of the {length} bytes of {name}")
        done += got
    if shape[0] != shape[1]:
        return np.ascontiguousarray(columns.transpose(0, 1, 3, 2))
    for i in range(0, count, _TURNED):  # in place: the extra images are 1.6 GB
        columns[i : i + _TURNED] = columns[i : i + _TURNED].transpose(0, 1, 3, 2).copy()
    return columns
