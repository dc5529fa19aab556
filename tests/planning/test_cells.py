"""A CSV is read literally; what it holds in another form than it seems is named by its line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from videofeatures.errors import UserError
from videofeatures.planning.cells import read_cells

HEADER = "video_path,feature_path\n"


def read(path: Path, content: str | bytes) -> list[tuple[int, list[str]]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_cells(path, ("video_path", "feature_path"), suffixes=(".npy",)))


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "my.csv"


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (HEADER + "a,b\n\nc,d", [(2, ["a", "b"]), (3, ["", ""]), (4, ["c", "d"])]),
        (HEADER + 'a,"b, ""c"""\r\n', [(2, ["a", 'b, "c"'])]),
        (HEADER + '"a\nb\n",c\nd,e\n', [(2, ["a\nb\n", "c"]), (5, ["d", "e"])]),
        (HEADER + '"a\rb",c\n', [(2, ["a\rb", "c"])]),
        (HEADER + "a\u2028b\x85\x0b\x0c,c\n", [(2, ["a\u2028b\x85\x0b\x0c", "c"])]),
        (HEADER + 'a",b\n', [(2, ['a"', "b"])]),
        (HEADER + "a\n", [(2, ["a", ""])]),
        (HEADER + "a,b,,\n", [(2, ["a", "b"])]),
        ('"feature_path","video_path"\r\na,b\r\n', [(2, ["b", "a"])]),
        ('note,video_path,feature_path\n"two\nlines",a,b\n', [(2, ["a", "b"])]),
        (HEADER, []),
        ("\ufeff", []),
        ("\n \n\n", []),
    ],
)
def test_what_is_read(path, content, rows):
    assert read(path, content) == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + '"a,a.npy\nb,b.npy\nc,c.npy\n', ", line 2: quotes open here that do not close"),
        (
            HEADER + "a,a.npy\n" + '"b,b.npy\n' * 2,
            ", line 3: quotes open here, and close in line 4",
        ),
        (
            HEADER + '\n"a,a.npy\nb",b.npy\n',
            ", line 3: quotes open here, close in line 4, and hold",
        ),
        (HEADER + '"a,a.npy\n' + "b,b.npy\n" * 99999, ", line 2: quotes open here that do not"),
        (HEADER + '"a" b,a.npy\n', ", line 2: quotes open here, and close before the cell ends"),
        (
            "video_path,feature_path,note\n" + 'a,a.npy,"x\nb,b.npy,"y"\n',
            ", line 2: quotes open here, and close in line 3",
        ),
        (
            "video_path,feature_path,note\n" + 'a,a.npy,"x\nb,b.npy,y"\n',
            ", line 2: quotes open here, close in line 3, and hold rows",
        ),
        (HEADER + "a,b\nc, d.mp4,e\n", ", line 3: has 3 cells, and the first line names 2"),
        (HEADER + "a,b,c\nd,e,f\n", ", line 2: has 3 cells"),
        (HEADER + "a,b\na\rb,c\n", ", line 3: holds a carriage return"),
        (HEADER.replace("\n", "\r") + "a,b\r", ", line 1: holds a carriage return"),
        (HEADER.encode() + b"a,b\n\xe9,c\n", ", line 3: is not UTF-8 (byte 0xe9). Save it as"),
        (HEADER.encode("utf-16"), ": is UTF-16. Save it as UTF-8"),
        (HEADER.encode("utf-16-le"), ": holds NUL characters, as UTF-16 does"),
        ("\n" + HEADER + "a,b\n", ": the first line is blank"),
        ("\n \n" + HEADER + "a,b\n", ": the first 2 lines are blank, and the columns video_path,"),
        ("video,feature_path\n", ": the first line must name the column video_path (found: video,"),
        ("a,b\n", ": the first line must name the columns video_path and feature_path (found: a"),
        ("video_path, feature_path\n", "(found: 'video_path', ' feature_path'). Write the names w"),
        ("video_path;feature_path\n", ". Its cells are separated by semicolons: save it with comm"),
        ("video_path\tfeature_path\n", ". Its cells are separated by tabs: save it with commas"),
        ("video_path,feature_path,video_path\n", ": the first line names the column video_path 2"),
    ],
)
def test_what_is_said_of_its_form(path, content, message):
    with pytest.raises(UserError) as caught:
        read(path, content)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}")
    assert len(caught.value.problems) == 1


def test_what_is_no_file_is_told_by_what_it_is(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    for name, message in {
        "folder": "is a folder, not a CSV",
        "pipe": "is a pipe or a device, and must be a file",
        "nothing": "no such file. Write a CSV with the columns video_path,feature_path",
        "file/below": "cannot be read: Not a directory",
        "x" * 300: "cannot be read: File name too long",
    }.items():
        with pytest.raises(UserError) as caught:
            list(read_cells(tmp_path / name, ("video_path",), suffixes=()))
        assert f"{tmp_path / name}: {message}" in str(caught.value)


def test_a_column_that_may_be_missing_has_empty_cells(path):
    path.write_text("b,a\n1,2\n3\n")
    cells = read_cells(path, ("a",), optional=("b", "c"), suffixes=(".npy",))
    assert list(cells) == [(2, ["2", "1", ""]), (3, ["", "3", ""])]
