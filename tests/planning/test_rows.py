"""The CSV is read literally, and every problem in it is told at once."""

from __future__ import annotations

import os

import pytest

from videofeatures.errors import UserError
from videofeatures.planning import rows as rows_module
from videofeatures.planning.rows import Row, read_rows
from videofeatures.source import Source

HEADER = "video_path,feature_path\n"


def read(tmp_path, content: str | bytes) -> list[Row]:
    path = tmp_path / "videos.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_rows(path)


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (HEADER + "a.mp4,a.npy\n", [("a.mp4", "a.npy")]),
        ("\ufeff" + HEADER + "a.mp4,a.npy\n", [("a.mp4", "a.npy")]),
        (HEADER.replace("\n", "\r\n") + "a.mp4,a.npy\r\n", [("a.mp4", "a.npy")]),
        (HEADER + "a.mp4,a.npy", [("a.mp4", "a.npy")]),
        (HEADER + "a.mp4,a.npy\n\n\nb.mp4,b.npz\n", [("a.mp4", "a.npy"), ("b.mp4", "b.npz")]),
        (HEADER + 'a b.mp4,"a, ""b"".npy"\n', [("a b.mp4", 'a, "b".npy')]),
        (HEADER + "é 日本.mp4,é 日本.npy\n", [("é 日本.mp4", "é 日本.npy")]),
        (HEADER + "$HOME;*.mp4,-$a;*.npy\n", [("$HOME;*.mp4", "-$a;*.npy")]),
        (HEADER + "{a}.mp4,a.npy\n", [("{a}.mp4", "a.npy")]),
        (HEADER + "NA,NA.npy\nnull,nan.npy\n", [("NA", "NA.npy"), ("null", "nan.npy")]),
        (HEADER + "01,02.npy\n", [("01", "02.npy")]),
        ("feature_path,note,video_path\na.npy,x,a.mp4\n", [("a.mp4", "a.npy")]),
        (HEADER + "a.mp4,./x//y/../a.npy\n", [("a.mp4", "x/a.npy")]),
        (HEADER, []),
        ("", []),
        (b"\xef\xbb\xbf", []),
    ],
)
def test_what_is_not_bad_input(tmp_path, monkeypatch, content, rows):
    monkeypatch.chdir(tmp_path)
    assert read(tmp_path, content) == [Row(Source(video), (path,)) for video, path in rows]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("video,feature_path\na,a.npy\n", "column video_path (found: video, feature_path)"),
        ("a.mp4,a.npy\n", "columns video_path and feature_path"),
        (HEADER + ",a.npy\n", "line 2: video_path is empty"),
        (HEADER + "a.mp4,\n", "line 2: feature_path is empty"),
        (HEADER + "\na.mp4,  \n", "line 3: feature_path is empty"),
        (HEADER + "a.mp4\n", "line 2: feature_path is empty"),
        (HEADER + "a,a.npy\nb,./a.npy\n", "line 3: feature_path ./a.npy is that of line 2"),
        (HEADER + "a.mp4,a.txt\n", "a.txt must end in .npy or .npz"),
        (HEADER + "a.mp4,a{b}.npy\n", "holds a brace"),
        (HEADER + "a.mp4,a.npy\nb, c.mp4,b.npy\n", "Put quotes around"),
        (b"video_path,feature_path\n\xe9.mp4,a.npy\n", "is not UTF-8"),
        (HEADER + "a,a.npy\nb,a.npy/b.npy\n", "is a folder of one row and the feature file"),
        (HEADER + "a,videos.csv/a.npy\n", "videos.csv is not a folder"),
    ],
)
def test_bad_input_is_named(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        read(tmp_path, content)
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1


def test_all_problems_are_told_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.npy").mkdir()
    content = HEADER + ",a.npy\nb.mp4,\nc.mp4,c.txt\nd.mp4,videos.csv/d.npy\ne.mp4,folder.npy\n"
    with pytest.raises(UserError) as caught:
        read(tmp_path, content)
    assert len(caught.value.problems) == 5


def test_a_csv_is_read_in_parts_that_nobody_notices(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "CHUNK_SIZE", 2)
    text = HEADER + "a.mp4,a.npy\nb.mp4,b.npy\n\nc.mp4,c.npy\nd.mp4,d.npy\n"
    assert [row.source.path for row in read(tmp_path, text)] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    with pytest.raises(UserError, match=r"line 7: feature_path a\.npy is that of line 2 too"):
        read(tmp_path, text + "e.mp4,a.npy\n")


def test_a_long_list_of_problems_is_cut(tmp_path):
    with pytest.raises(UserError) as caught:
        read(tmp_path, HEADER + "".join(f"a.mp4,{k}.txt\n" for k in range(1000)))
    assert len(caught.value.problems) == 1000
    assert "… and 980 more problems" in str(caught.value)


def test_a_missing_csv_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.csv: no such file"):
        read_rows(tmp_path / "nothing.csv")


def test_a_folder_without_permission_is_named(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    read(tmp_path, HEADER + f"a.mp4,{locked}/new/a.npy\n")  # imports pandas, too
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    locked.chmod(0o555)
    # In a process of its own, which is not root if the tests are.
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            read_rows(tmp_path / "videos.csv")
        except UserError as error:
            os._exit(0 if f"no permission on {locked}" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
