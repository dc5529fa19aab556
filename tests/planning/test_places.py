"""Paths are compared by where they lead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from videofeatures.planning import places
from videofeatures.planning.places import Places, fold


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "nowhere").symlink_to("not/there")
    (tmp_path / "real" / "file.npy").symlink_to("other.npy")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("a.npy", "work/a.npy"),
        ("new/er/a.npy", "work/new/er/a.npy"),
        ("../link/a.npy", "real/a.npy"),
        ("../link/deep/er/a.npy", "real/deep/er/a.npy"),
        ("../real/file.npy", "real/file.npy"),
        ("../nowhere/a.npy", "not/there/a.npy"),
        ("../../{name}/link/a.npy", "real/a.npy"),
        ("{folder}/link/a.npy", "real/a.npy"),
    ],
)
def test_links_in_folders_are_followed_and_no_others(folder, path, place):
    path = path.format(name=folder.name, folder=folder)
    for _ in range(2):  # the second time from what is known
        assert Places().find(path) == f"{folder}/{place}"
    assert Places().find("/a.npy") == "/a.npy"


def test_each_folder_is_looked_at_once(folder, monkeypatch):
    looks = []
    islink = os.path.islink
    monkeypatch.setattr(os.path, "islink", lambda path: looks.append(path) or islink(path))
    found = Places()
    for k in range(100):
        found.find(f"x/y/{k}.npy")
    assert looks == [f"{folder}/work/x", f"{folder}/work/x/y"]
    assert found.folders >= {f"{folder}/work/x", f"{folder}/work/x/y"}


def test_names_that_a_disk_may_take_for_one_have_one_text():
    assert fold("/A/É.NPY") == fold("/a/é.npy") == fold("/a/E\u0301.npy")
    assert fold("/a/b") != fold("/a/c")


def test_what_differs_by_case_is_one_file_only_on_a_disk_that_says_so(tmp_path, monkeypatch):
    upper, lower = f"{tmp_path}/New/A.npy", f"{tmp_path}/new/a.npy"
    assert Places().is_one_file(lower, lower)
    assert not Places().is_one_file(lower, f"{tmp_path}/new/b.npy")
    assert not Places().is_one_file(upper, lower)
    (tmp_path / "Some.txt").touch()
    assert not Places().is_one_file(upper, lower)
    # As a disk would be that finds what is there by any case of its name.
    monkeypatch.setattr(
        places.os.path,
        "lexists",
        lambda path: os.path.basename(path).lower() in map(str.lower, os.listdir(tmp_path)),
    )
    assert Places().is_one_file(upper, lower)
    (tmp_path / "sOME.TXT").touch()  # it has both, so that it cannot be
    assert not Places().is_one_file(upper, lower)
