"""From a folder, a list or a pattern to a CSV, by the script that users call."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import make_csv
from videofeatures.planning.rows import read_rows


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder of videos that are only names, and what is not to be taken."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b c.MKV", "deep/er/d.webm", "notes.md", "._a.mp4", ".trash/e.mp4"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def make(*arguments: str) -> int:
    return make_csv.main([*arguments, "--features", "features", "--csv", "my.csv"])


def rows() -> dict[str, str]:
    return {row.source.path: row.feature_paths[0] for row in read_rows("my.csv")}


def test_a_folder_is_mirrored(folder, capsys):
    assert make("videos") == 0
    assert rows() == {
        "videos/a.mp4": "features/a.npy",
        "videos/b c.MKV": "features/b c.npy",
        "videos/deep/er/d.webm": "features/deep/er/d.npy",
    }
    assert capsys.readouterr().out == "my.csv: 3 rows\n"


def test_a_pattern_is_mirrored_below_its_fixed_part(folder):
    assert make("videos/**/*.webm", "--suffix", ".npz") == 0
    assert rows() == {"videos/deep/er/d.webm": "features/deep/er/d.npz"}


def test_a_list_is_taken_as_it_is(folder, monkeypatch):
    Path("list.txt").write_text("\ufeffvideos/deep/er/d.webm\n\nvideos/not there.mp4\n")
    assert make("list.txt") == 0
    expected = {
        "videos/deep/er/d.webm": "features/deep/er/d.npy",
        "videos/not there.mp4": "features/not there.npy",
    }
    assert rows() == expected
    with open("list.txt") as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert make("-") == 0
    assert rows() == expected


def test_a_name_in_a_list_may_hold_what_ends_lines_elsewhere(folder):
    names = ["a\u2028b.mp4", "a\x85b.mp4", "a\x0b\x0c\x1cb.mp4", "c d.mp4", "e\u2029.mp4"]
    Path("list.txt").write_bytes("\r\n".join(names).encode())
    assert make("list.txt") == 0
    assert list(rows()) == names


@pytest.mark.parametrize("name", ["~/a.mp4", "a.mp4 ", "\ta.mp4"])
def test_a_slip_in_a_list_is_named(folder, capsys, name):
    Path("list.txt").write_text(f"{name}\n")
    assert make("list.txt") == 2
    assert f"video_path {name!r} begins" in capsys.readouterr().err


def test_videos_can_be_named_one_by_one(folder):
    Path("videos/[1].mp4").touch()  # a name that is no pattern
    assert make("videos/a.mp4", "videos/[1].mp4") == 0
    assert rows() == {"videos/a.mp4": "features/a.npy", "videos/[1].mp4": "features/[1].npy"}


def test_links_are_followed_and_never_in_circles(folder):
    Path("elsewhere").mkdir()
    Path("elsewhere/l.mp4").touch()
    os.symlink("../elsewhere", "videos/linked")
    os.symlink("..", "videos/deep/circle")
    assert make("videos") == 0
    assert "videos/linked/l.mp4" in rows()
    assert len(rows()) == 4


def test_extensions_can_be_chosen(folder):
    assert make("videos", "--extensions", "MD,.webm") == 0
    assert sorted(rows()) == ["videos/deep/er/d.webm", "videos/notes.md"]


def test_two_videos_never_get_one_file(folder, capsys):
    Path("videos/a.avi").touch()
    assert make("videos") == 2
    told = capsys.readouterr().err
    assert "videos/a.mp4: would have the feature file of videos/a.avi, features/a.npy" in told
    assert "--keep_extension" in told
    assert not Path("my.csv").exists()
    assert make("videos", "--keep_extension") == 0
    assert rows()["videos/a.avi"] == "features/a.avi.npy"


def test_folders_that_clash_are_refused(folder, capsys):
    Path("more").mkdir()
    Path("more/a.mp4").touch()
    assert make("videos", "more") == 2
    assert "rename one, or take them in two CSVs" in capsys.readouterr().err


def test_new_videos_are_added_and_no_row_is_lost(folder, capsys):
    assert make("videos") == 0
    Path("videos/new.mp4").touch()
    assert make("videos") == 0
    assert "4 rows, 1 of them new" in capsys.readouterr().out
    Path("videos/new.mp4").unlink()
    before = Path("my.csv").read_bytes()
    assert make("videos") == 2
    assert "rows would be lost, 1 in all, such as videos/new.mp4" in capsys.readouterr().err
    assert Path("my.csv").read_bytes() == before
    assert make("videos", "--overwrite") == 0
    assert len(rows()) == 3


def test_parts_that_stand_in_a_csv_are_rows_that_would_be_lost(folder, capsys):
    lines = ["a.mp4,1.npy,,2", "a.mp4,1-2.npy,1,2", "a.mp4,1-.npy,1,"]
    Path("my.csv").write_text("\n".join(["video_path,feature_path,start,end", *lines]) + "\n")
    assert make("videos") == 2
    said = capsys.readouterr().err
    assert "rows would be lost, 3 in all, such as a.mp4 [" in said


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "nowhere: no such file"),
        ("videos/*.avi", "no file that matches it"),
        ("empty", "empty: no videos in it"),
        ("list.txt", "list.txt: No such file"),
    ],
)
def test_a_source_without_videos_is_named(folder, capsys, source, message):
    Path("empty").mkdir()
    assert make("videos", source) == 2
    assert message in capsys.readouterr().err
    assert not Path("my.csv").exists()


def test_names_that_cannot_be_in_a_csv_are_named(folder, capsys):
    Path("videos/{1}.mp4").touch()
    Path(os.fsdecode(b"videos/\xff.mp4")).touch()
    assert make("videos") == 2
    told = capsys.readouterr().err
    assert "videos/{1}.mp4: feature_path" in told
    assert "b'videos/\\xff.mp4': its name is not UTF-8" in told


def test_a_csv_that_cannot_be_written_is_named(folder, capsys):
    Path("my.csv").mkdir()
    assert make("videos", "--overwrite") == 2
    assert "my.csv" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["~/my.csv", "my.csv ", ""])
def test_a_slip_in_the_name_of_the_csv_makes_no_file(folder, capsys, name):
    assert make_csv.main(["videos", "--features", "features", "--csv", name]) == 2
    assert capsys.readouterr().err.startswith("--csv: ")
    assert {path.name for path in folder.iterdir()} == {"videos"}
