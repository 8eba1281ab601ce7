"""A file is written whole or not at all."""

import errno
import os

import pytest

from ebmzoo.files import written_whole


def test_a_file_takes_its_name_when_all_of_it_is_written(tmp_path):
    path = tmp_path / "in" / "a.txt"
    with written_whole(path) as file:
        file.write(b"first")
        assert not path.exists()
    with written_whole(str(path)) as file:
        file.write(b"second")
        assert path.read_bytes() == b"first"
    assert path.read_bytes() == b"second" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch, function):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, function, full)
    with pytest.raises(OSError, match="No space left"), written_whole(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_block_that_is_broken_off_writes_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "a.txt") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
