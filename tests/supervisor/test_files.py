"""Reading files on behalf of the loader."""

import os
from pathlib import Path

import pytest

from supervisor.errors import FileRefused
from supervisor.files import read_file


def test_a_file_comes_with_its_owner_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "psk"
    path.write_bytes(b"secret")
    path.chmod(0o640)
    file = read_file(str(path), 100)
    assert (file.content.reveal(), file.mode, file.uid) == (b"secret", 0o640, os.getuid())
    assert "secret" not in repr(file)


def test_a_file_of_exactly_the_limit_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    path = tmp_path / "spd"
    path.write_bytes(bytes(100))
    assert len(read_file(str(path), 100).content) == 100
    path.write_bytes(bytes(101))
    with pytest.raises(FileRefused, match="longer than 100 bytes"):
        read_file(str(path), 100)


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(FileRefused, match="a symbolic link"):
        read_file(str(tmp_path / "link"), 100)


def test_a_fifo_is_refused_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(FileRefused, match="not a regular file"):
        read_file(str(tmp_path / "fifo"), 100)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match="not a regular file"):
        read_file(str(tmp_path), 100)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match=r"/nothing: No such file or directory"):
        read_file(str(tmp_path / "nothing"), 100)


@pytest.mark.parametrize("path", ["psk", "../psk", "", "/etc/\0"])
def test_a_path_must_be_absolute_and_sane(path: str) -> None:
    with pytest.raises(FileRefused, match="not an absolute path"):
        read_file(path, 100)
