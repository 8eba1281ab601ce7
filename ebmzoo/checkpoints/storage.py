"""Files of weights: written whole or not at all, and read as tensors only if every byte is what was written."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from ebmzoo.files import written_whole

Location = str | torch.device


class WholeFiles(TorchCheckpointIO):
    """Lightning's checkpoint files, written aside, synced and renamed: killed at any moment, a run leaves whole ones.

    Lightning's own writer passes through the system's temporary folder, from where the last move may be a copy. The
    command line uses this one; in Python it is ``Trainer(plugins=[WholeFiles()])``.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; see `write_whole`."""
        write_whole(checkpoint, path)


def write_whole(checkpoint: Any, path: str | Path) -> None:
    """Save tensors and plain data so that ``path`` holds either what it held before or all of this.

    Raises:
        OSError: one line, where the disk is full or cannot be written; the file that was there is untouched.
    """
    path, written = Path(path), 0
    try:
        with written_whole(path) as file:
            try:
                torch.save(checkpoint, file)
            finally:
                written = file.tell()
    except (OSError, RuntimeError) as error:  # torch's writer turns what the system says into a RuntimeError
        raise _unwritten(path, error, written) from error


def _unwritten(path: Path, error: Exception, written: int) -> OSError:
    # Torch's archive writer knows of a full disk only that its position is not where it should be.
    cut = "unexpected pos" in str(error) or shutil.disk_usage(path.parent).free < 2**20
    full = isinstance(error, RuntimeError) and cut
    if full or getattr(error, "errno", None) == errno.ENOSPC:
        kept = "; the one that was there is untouched" if path.exists() else ""
        return OSError(f"no room for {path}: the disk was full after {written:,} bytes{kept}")
    return OSError(f"cannot write {path}: {getattr(error, 'strerror', None) or str(error).splitlines()[0]}")


# -- reading ------------------------------------------------------------------------------------------------------


def read_archive(path: Path, map_location: Location = "cpu") -> Any:
    """The content of a file of ``torch.save``: tensors and plain data, after its checksums were verified.

    Raises:
        ValueError: one line: not such a file, damaged anywhere, larger inside than outside, or with code in it; or
            there is no such device.
        OSError: one line: the system could not read the file, which may be a good one.
        MemoryError: it does not fit into the memory.
    """
    broken = f"{path} is not a checkpoint, or a broken one"
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            # torch.save stores and never compresses: what unpacks to more than it is was made to fill the memory.
            if any(one.compress_type != zipfile.ZIP_STORED for one in entries):
                raise ValueError(f"{broken}: it is compressed, which torch.save never does")
            if sum(one.file_size for one in entries) > path.stat().st_size:
                raise ValueError(f"{broken}: it says that it holds more than it is large")
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{broken}: the checksum of {damaged} does not hold")
        content = torch.load(path, map_location="cpu", weights_only=True)
        largest = max((tensor.numel() * tensor.element_size() for tensor in _tensors(content, set())), default=0)
    except UnpicklingError as error:
        if "weights_only" in str(error) and (name := re.search(r"GLOBAL (\S+)", str(error))):
            raise ValueError(
                f"{path} holds more than tensors and plain data ({name[1]}): refused, nothing of it was run"
            ) from error
        raise ValueError(f"{broken}: it cannot be read as tensors") from error
    except RecursionError as error:
        raise ValueError(f"{broken}: it is nested without end") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can fail anywhere in the readers
        if isinstance(error, ValueError) and str(error).startswith(broken):
            raise
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which a place outside the file gives
            raise _unread(path, error) from error
        if isinstance(error, RuntimeError) and "allocate memory" in str(error):  # torch's word for it
            raise MemoryError(f"no memory for {path}") from error
        raise ValueError(f"{broken}: it cannot be read as tensors") from error
    if largest > path.stat().st_size:
        raise ValueError(f"{broken}: a tensor of it is larger than the file")
    return _moved(content, map_location, path)


def when_written(path: Path) -> float:
    """Seconds since 1970 at which a checkpoint was written, as it says itself: a copy has the times of the copying.

    Where it does not say so, or cannot be read, the time of the file. Its tensors are not read.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return float(content["ebmzoo"]["written"])
    except Exception:  # a damaged file can fail anywhere in the readers; the one who reads it whole says how
        return path.stat().st_mtime


def _unread(path: Path, error: OSError) -> OSError:
    return OSError(f"cannot read {path}: {error.strerror or error}")


def _moved(content: Any, device: Location, path: Path) -> Any:
    """What was read, on a device: a missing one is no fault of the file."""
    try:
        device = torch.device(device)
        return content if device.type == "cpu" else move_data_to_device(content, device)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"{path} cannot be brought to {device}: {str(error).splitlines()[0]}") from error


def _tensors(value: Any, done: set[int]) -> Iterator[Tensor]:
    """The tensors of plain data, each of its parts looked through once; what contains itself has no end."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple) and id(value) not in done:
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item, done)
        done.add(id(value))


# -- safetensors --------------------------------------------------------------------------------------------------


def write_export(weights: Mapping[str, Tensor], about: Mapping[str, Any], path: str | Path) -> None:
    """Write named tensors as safetensors, with plain data about them and their digest in the file's metadata.

    Raises:
        OSError: one line, if the file cannot be written.
    """
    from safetensors.torch import save

    path = Path(path)
    # Clones: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    about = {**about, "sha256": _digest(tensors)}
    data = save(tensors, metadata={"ebmzoo": json.dumps(about)})
    try:
        with written_whole(path) as file:
            file.write(data)
    except OSError as error:
        raise _unwritten(path, error, 0) from error


def read_export(path: Path, map_location: Location = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_export` wrote: the tensors and the data about them.

    Raises:
        ValueError: one line: not such a file, or damaged; or there is no such device.
        OSError: one line: the system could not read the file, which may be a good one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["ebmzoo"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except OSError as error:
        raise _unread(path, error) from error
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no model of `ebmzoo export`, or a broken one") from error
    if not isinstance(about, dict) or about.get("sha256") != _digest(tensors):
        raise ValueError(f"{path} is a broken model: its checksum does not hold")
    return _moved(tensors, map_location, path), about


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()


def check_version(written: str | None, path: str | Path) -> None:
    """Refuse what an older version wrote, whose methods have other names for their parts.

    Raises:
        ValueError: it says which version that was.
    """
    if written is not None and written.startswith("0.1."):
        raise ValueError(
            f"{path} was written by ebmzoo {written}, whose parts have other names than this version's: read it with "
            f"that version, or train again"
        )
