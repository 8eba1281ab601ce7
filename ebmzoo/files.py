"""Writing a file whole or not at all: the one place (anyone may import it)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def written_whole(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file beside ``path`` for writing; when the block ends well it is synced and takes that name in one move.

    Readers see the old file or the new one, never a part; after an error the old one is untouched.

    Raises:
        OSError: as the system gives it: the disk is full, or cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with written_whole(folder + "/a.txt") as file:
        ...         length = file.write(b"all of it")
        ...     Path(folder, "a.txt").read_text()
        'all of it'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the rename itself must reach the disk too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
