"""Reading of one array of bytes out of a MATLAB 5 file, as SVHN publishes its images.

`scipy.io.loadmat` reads these files too, but damage in the header of one that is not compressed can crash the whole
process there (12 of 1,536 single bits did); here it ends in one line that names the file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ebmzoo.data.files import reason_of

_BYTES, _MATRIX, _COMPRESSED = 2, 14, 15  # types of data elements
_UINT8 = 9  # class of an array
_HEADER = 128


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
        # Mapped: the extra images are 1.3 GB, and 1.6 GB inflated.
        content = np.memmap(path, np.uint8, "r").data if path.stat().st_size else memoryview(b"")
        if content[124:_HEADER] != b"\x00\x01IM":
            raise ValueError("it does not begin as one, or is not little-endian")
        for kind, body in _elements(content[_HEADER:]):
            if kind == _COMPRESSED:
                kind, body = next(_elements(memoryview(zlib.decompress(body))), (0, body))
            if kind == _MATRIX and (images := _images(body, name, shape)) is not None:
                return images
    except (OSError, ValueError, struct.error, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as a MATLAB 5 file of images: {reason_of(error)}") from error
    raise ValueError(f"{path} holds no array {name}")


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type and content of one data element after the other."""
    while data:
        kind, length = struct.unpack_from("<II", data)
        start, end = 8, 8 + length
        if kind >> 16:  # a short one, packed into its tag
            start, end, kind = 4, 4 + (kind >> 16), kind & 0xFFFF
        if end > len(data):
            raise ValueError(f"it ends after {len(data) - start} of {end - start} bytes")
        yield kind, data[start:end]
        data = data[end if kind == _COMPRESSED else max(8, end + -end % 8) :]


def _images(body: memoryview, name: str, shape: tuple[int, int, int]) -> Tensor | None:
    elements = _elements(body)
    flags, dims, label = (next(elements, (0, memoryview(b"")))[1] for _ in range(3))
    if label != name.encode():
        return None
    sizes = struct.unpack(f"<{len(dims) // 4}i", dims)
    if struct.unpack("<II", flags)[0] & 0xFF != _UINT8 or len(sizes) != 4 or sizes[:3] != shape:
        raise ValueError(f"{name} should be uint8 ({', '.join(map(str, shape))}, n), its size is {sizes}")
    kind, pixels = next(elements, (0, memoryview(b"")))
    if kind != _BYTES or not pixels or len(pixels) != np.prod(sizes):
        raise ValueError(f"{name} has {len(pixels)} bytes of type {kind} for a size of {sizes}")
    # Each channel is written column by column.
    columns = np.frombuffer(pixels, np.uint8).reshape(sizes[3], shape[2], shape[1], shape[0])
    return torch.from_numpy(columns.swapaxes(2, 3).copy())
