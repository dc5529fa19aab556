"""A file that exists is complete."""

from __future__ import annotations

import os

import pytest

from videofeatures.files import hash_file, hidden_name, replace_file, replace_text, stat_or_none


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


def test_forgotten_temporary_files_of_this_file_are_removed_and_no_others(tmp_path):
    path, other = tmp_path / "a.csv", tmp_path / "b.csv"
    old, new, of_other = (
        tmp_path / f"{hidden_name(whose)}.{k}.part" for k, whose in enumerate((path, path, other))
    )
    for left in (old, new, of_other):
        left.touch()
    for left in (old, of_other):
        os.utime(left, (0, 0))
    with replace_text(path, tidy=True) as file:
        file.write("x")
    assert set(tmp_path.iterdir()) == {path, new, of_other}


def test_what_cannot_be_seen_has_no_facts_and_no_hash(tmp_path):
    assert stat_or_none(str(tmp_path / "a")) is None
    assert hash_file(tmp_path / "a") is None
    (tmp_path / "a").write_text("x")
    assert stat_or_none(str(tmp_path / "a")).st_size == 1
    assert len(hash_file(tmp_path / "a")) == 16
