"""Sets of images in the formats in which they are published, written here."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np


def pixels(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (n, *shape), dtype=np.uint8)


def python2_batch(data: np.ndarray) -> bytes:
    """The bytes that Python 2 wrote for {'batch_label': 'x', 'labels': [...], 'data': array}: CIFAR-10's."""

    def text(value: bytes) -> bytes:
        short = len(value) < 256
        return (b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))) + value

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    array = b"".join(
        [
            b"cnumpy.core.multiarray\n_reconstruct\n",
            b"cnumpy\nndarray\n" + integer(0) + b"\x85" + text(b"b") + b"\x87R",
            b"(" + integer(1) + integer(data.shape[0]) + integer(data.shape[1]) + b"\x86",
            b"cnumpy\ndtype\n" + text(b"u1") + integer(0) + integer(1) + b"\x87R",
            b"(" + integer(3) + text(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb",
            b"\x89" + text(data.tobytes()) + b"tb",
        ]
    )
    labels = b"](" + b"".join(integer(i % 10) for i in range(len(data))) + b"e"
    items = text(b"batch_label") + text(b"x") + text(b"labels") + labels + text(b"data") + array
    return b"\x80\x02}(" + items + b"u."


def cifar(folder: Path, n: int = 3) -> np.ndarray:
    folder.mkdir(parents=True)
    data = pixels(6 * n, 3072)
    for i, name in enumerate([f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]):
        (folder / name).write_bytes(python2_batch(data[i * n : (i + 1) * n]))
    return data.reshape(-1, 3, 32, 32)
