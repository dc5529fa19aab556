"""A file that exists is complete."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from videofeatures.errors import describe_os_error
from videofeatures.files import (
    hash_file,
    hidden_name,
    path_problem,
    replace_file,
    replace_text,
    stat_or_none,
    text_cell,
)


def test_an_interrupted_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.npy"
    path.write_text("before")

    def interrupted():
        with replace_file(path) as file:
            file.write(b"half")
            file.flush()
            assert path.read_text() == "before"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]
    assert path.read_text() == "before"


def test_a_file_has_the_permissions_that_the_user_s_mask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        with replace_file(tmp_path / "a.npy") as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.npy").stat().st_mode & 0o777 == 0o640


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("x" * 251 + ".npy")
    with replace_file(path) as file:
        file.write(b"x")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_is_to_be_done_before_the_rename_is_done_with_the_whole_file(tmp_path):
    path = tmp_path / "a.npy"
    path.write_text("before")
    seen = []

    def look(file) -> None:
        file.seek(0)
        seen.append((file.read(), path.read_text()))

    with replace_file(path, before=look) as file:
        file.write(b"after")
    assert seen == [(b"after", "before")]

    def fail(_) -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"), replace_file(path, before=fail) as file:
        file.write(b"never")
    assert path.read_text() == "after"
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def temporary_files(folder: Path, *whose: Path) -> list[Path]:
    files = [folder / f"{hidden_name(path)}.{k}.part" for k, path in enumerate(whose)]
    for file in files:
        file.touch()
    return files


def test_forgotten_temporary_files_of_this_file_are_removed_and_no_others(tmp_path):
    path, other = tmp_path / "a.csv", tmp_path / "b.csv"
    _, of_other = temporary_files(tmp_path, path, other)
    with replace_text(path, tidy=True) as file:
        # A writer that lives keeps its own.
        with replace_text(path, tidy=True) as second:
            second.write("y")
        assert path.read_text() == "y"
        file.write("x")
    assert path.read_text() == "x"
    assert set(tmp_path.iterdir()) == {path, of_other}


def test_on_a_disk_without_locks_age_tells_what_is_forgotten(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    path = tmp_path / "a.csv"
    old, new = temporary_files(tmp_path, path, path)
    os.utime(old, (0, 0))
    with replace_text(path, tidy=True) as file:
        file.write("x")
    assert set(tmp_path.iterdir()) == {path, new}


def test_a_file_with_the_same_content_can_be_left_alone(tmp_path):
    path = tmp_path / "a.csv"
    for text, is_new in (("x", True), ("x", False), ("y", True)):
        before = stat_or_none(str(path))
        with replace_text(path, keep_same=True) as file:
            file.write(text)
        after = stat_or_none(str(path))
        assert (before is None or before.st_ino != after.st_ino) == is_new
        assert path.read_text() == text
        assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_seen_has_no_facts_and_no_hash(tmp_path):
    assert stat_or_none(str(tmp_path / "a")) is None
    assert hash_file(tmp_path / "a") is None
    (tmp_path / "a").write_text("x")
    assert stat_or_none(str(tmp_path / "a")).st_size == 1
    assert len(hash_file(tmp_path / "a")) == 16


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("", "is empty"),
        (" \t", "is empty"),
        (" a", "' a' begins or ends with white space"),
        ("a\n", r"'a\n' begins or ends with white space"),
        ("a\u00a0", "begins or ends with white space"),
        ("~", "'~' begins with `~`"),
        ("~user/a", "'~user/a' begins with `~`"),
        ("a\0b", r"'a\x00b' holds a NUL"),
        ("./~a b", None),
        ("a/ b /~c", None),
        ("-a", None),
    ],
)
def test_the_text_of_a_path_is_checked(path, problem):
    told = path_problem(path)
    assert told == problem if problem is None else problem in str(told)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\r=1"])
def test_a_text_is_no_formula(text):
    assert text_cell(text) == f"'{text}"
    assert text_cell(f"x{text}") == f"x{text}"
    assert text_cell(None) == text_cell("") == ""


def test_what_cannot_be_written_has_its_own_name_in_the_error(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(IsADirectoryError) as caught, replace_file(path):
        pass
    assert describe_os_error(caught.value) == f"{path}: Is a directory"
    with pytest.raises(OSError, match="No space") as full, replace_file(path):
        raise OSError(28, "No space left on device")  # as a write has it, without a name
    assert describe_os_error(full.value) == f"{path}: No space left on device"
