"""The CSV is read literally, and every problem in it is told at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conftest import write_csv
from videofeatures.errors import UserError
from videofeatures.planning import places
from videofeatures.planning.rows import Row, find_own_paths, read_rows
from videofeatures.settings import Config
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
        (HEADER + "a.mp4, f/a.npy\n", "feature_path ' f/a.npy' begins or ends with white space"),
        (HEADER + "a.mp4,a.npy \n", "feature_path 'a.npy ' begins or ends with white space"),
        (HEADER + "a.mp4\t,a.npy\n", r"video_path 'a.mp4\t' begins or ends with white space"),
        (HEADER + "a.mp4,\u3000a.npy\n", "begins or ends with white space"),
        (HEADER + "a.mp4,~/a.npy\n", "feature_path '~/a.npy' begins with `~`"),
        (HEADER + "~me/a.mp4,a.npy\n", "video_path '~me/a.mp4' begins with `~`"),
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


def problems(tmp_path, *rows: tuple[str, str], **own_paths: str) -> list[str]:
    """What is wrong with these rows, without the name of the CSV."""
    path = write_csv(tmp_path / "videos.csv", list(rows))
    try:
        read_rows(path, own_paths={name: what for what, name in own_paths.items()})
    except UserError as error:
        return [problem.removeprefix(f"{path}, ") for problem in error.problems]
    return []


def test_what_leads_to_one_file_is_one_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("f").mkdir()
    Path("l").symlink_to("f")
    Path("f/own.npy").symlink_to("a.npy")  # a link that is replaced, and not what it leads to
    (told,) = problems(tmp_path, ("a", "f/a.npy"), ("b", "l/a.npy"), ("c", "f/own.npy"))
    assert told == (
        "line 3: feature_path l/a.npy is that of line 2 too, where it is called f/a.npy. "
        "Give every row a feature_path of its own"
    )
    assert len(problems(tmp_path, ("a", "l/x/y/a.npy"), ("b", f"{tmp_path}/f/x/y/a.npy"))) == 1
    assert problems(tmp_path, ("a", "f/x/a.npy"), ("b", "x/a.npy"), ("c", "l/a.npy")) == []


def test_what_differs_by_case_is_two_files_where_the_disk_tells_them_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [("a", "F/É.npy"), ("b", "F/é.npy"), ("c", "f/é.npy"), ("d", "F/E\u0301.npy")]
    assert problems(tmp_path, *rows) == []
    monkeypatch.setattr(places, "_is_case_blind", lambda folder: True)
    assert [problem.split(" too")[0] for problem in problems(tmp_path, *rows)] == [
        "line 3: feature_path F/é.npy is that of line 2",
        "line 4: feature_path f/é.npy is that of line 2",
        "line 5: feature_path F/E\u0301.npy is that of line 2",
    ]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([("v/a.npy", "v/a.npy")], "line 2: feature_path v/a.npy is the video of line 2"),
        ([("a", "v/b.npy"), ("v/b.npy", "b.npy")], "line 2: feature_path v/b.npy is the video of"),
        ([("v/b.npz", "b.npy"), ("a", "l/b.npz")], "line 3: feature_path l/b.npz is the video of"),
        ([("link.npy", "c.npy"), ("a", "v/c.npy")], "line 3: feature_path v/c.npy is the video of"),
        ([("link.npy", "link.npy")], "line 2: feature_path link.npy is the video of line 2"),
    ],
)
def test_a_video_is_never_a_feature_file(tmp_path, monkeypatch, rows, line):
    monkeypatch.chdir(tmp_path)
    Path("l").symlink_to("v")
    Path("link.npy").symlink_to("v/c.npy")
    (told,) = problems(tmp_path, *rows)
    assert told.startswith(line)


def test_a_video_may_be_called_like_a_feature_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert problems(tmp_path, ("v/a.npy", "f/a.npy"), ("v/b.npy", "f/b.npy")) == []


def test_what_belongs_to_a_run_is_never_a_feature_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("linked").symlink_to("results/records")
    config = Config(videos="rows.npy", weights="mine.npz")
    Path("mine.npz").touch()
    own_paths = find_own_paths([config])
    rows = [
        ("a", "rows.npy"),
        ("b", "./mine.npz"),
        ("c", "results/plan/c.npy"),
        ("d", "linked/deep/d.npy"),
        ("e", ".snakemake/e.npy"),
        ("f", "resources/weights/f.npy"),
        ("g", "results/g.npy"),
        ("h", "results/records.npy"),
        ("i", "auto/i.npy"),
    ]
    write_csv(Path("rows.npy"), rows)
    with pytest.raises(UserError) as caught:
        read_rows("rows.npy", own_paths=own_paths)
    assert [problem.split(",")[1].split(":")[0] for problem in caught.value.problems] == [
        f" line {number}" for number in range(2, 8)
    ]
    told = str(caught.value)
    assert "feature_path rows.npy is the CSV itself, which would be replaced" in told
    assert "is the file of the weights" in told
    assert f"linked/deep/d.npy is in {tmp_path}/results/records, a folder of runs" in told


def test_no_feature_file_stands_among_the_records_of_a_bucket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own_paths = find_own_paths([Config(results="s3://bucket/run/", allowed_schemes="s3")])
    rows = [
        ("a", "s3://bucket/run/records/a.npy"),
        ("b", "s3://bucket/run/records/deep/b.npy"),
        ("c", "results/s3/bucket/run/plan/c.npy"),
        ("d", "s3://bucket/run/d.npy"),
        ("e", "s3://bucket/Run/records/e.npy"),
        ("f", "s3://other/run/records/f.npy"),
    ]
    write_csv(Path("videos.csv"), rows)
    with pytest.raises(UserError) as caught:
        read_rows("videos.csv", own_paths=own_paths, allowed_schemes={"s3"})
    assert [problem.split(",")[1].split(":")[0] for problem in caught.value.problems] == [
        f" line {number}" for number in range(2, 5)
    ]
    assert "is in s3://bucket/run/records, a folder of runs, for records" in str(caught.value)


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
    read(tmp_path, HEADER + f"a.mp4,{locked}/new/a.npy\n")
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(0o755)
        if folder.name.startswith("pytest-of-"):  # pytest makes it and all below, for one user
            break
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


# --- parts of videos

PARTS = "video_path,feature_path,start,end\n"


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (PARTS + "a,a.npy,12.5,20\n", [(12.5, 20.0)]),
        (PARTS + "a,a.npy,12.5,\n", [(12.5, None)]),
        (PARTS + "a,a.npy,,20.\n", [(None, 20.0)]),
        (PARTS + "a,a.npy,,\nb,b.npy\n", [(None, None), (None, None)]),
        (PARTS + "a,a.npy,0,.5\n", [(None, 0.5)]),
        (PARTS + "a,a.npy,0.000,0.001\n", [(None, 0.001)]),
        (PARTS + "a,a.npy,1e-05,2E1\n", [(1e-05, 20.0)]),
        (PARTS + "a,a.npy,0.033367,0.066734\n", [(0.033367, 0.066734)]),
        ("end,video_path,feature_path\n3,a,a.npy\n", [(None, 3.0)]),
        ("start,feature_path,note,video_path\n3,a.npy,x,a\n", [(3.0, None)]),
        (PARTS + "a,a.npy,0,10\na,b.npy,10,20\na,c.npy\n", [(None, 10), (10, 20), (None, None)]),
    ],
)
def test_a_row_may_be_a_part_of_a_video(tmp_path, monkeypatch, content, parts):
    monkeypatch.chdir(tmp_path)
    assert [row.source.part for row in read(tmp_path, content)] == parts


NOT_SECONDS = "is not a number of seconds. Write it in digits"


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (" 1", "", f"line 2: start ' 1' {NOT_SECONDS}"),
        ("1:30", "", f"line 2: start '1:30' {NOT_SECONDS}"),
        ("", "nan", f"line 2: end 'nan' {NOT_SECONDS}"),
        ("", "inf", f"line 2: end 'inf' {NOT_SECONDS}"),
        ('"1,5"', "", f"line 2: start '1,5' {NOT_SECONDS}"),
        ("-1", "", f"line 2: start '-1' {NOT_SECONDS}"),
        ("+1", "", f"line 2: start '+1' {NOT_SECONDS}"),
        ("٣", "", f"line 2: start '٣' {NOT_SECONDS}"),
        ("1_000", "", f"line 2: start '1_000' {NOT_SECONDS}"),
        ("0x10", "", f"line 2: start '0x10' {NOT_SECONDS}"),
        ("1s", "", f"line 2: start '1s' {NOT_SECONDS}"),
        (".", "", f"line 2: start '.' {NOT_SECONDS}"),
        ("1e999", "", "line 2: start '1e999' is no time in a video, in seconds"),
        ("", "1000000000", "line 2: end '1000000000' is no time in a video, in seconds"),
        ("5", "5.0", "line 2: start and end are both '5.0': nothing is between them"),
        ("0", "0", "line 2: start and end are both '0': nothing is between them"),
        ("", "0", "line 2: end '0' is where videos start"),
        ("7", "5", "line 2: end '5' is before start '7'"),
    ],
)
def test_what_is_no_part_is_named(tmp_path, monkeypatch, start, end, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        read(tmp_path, PARTS + f"a,a.npy,{start},{end}\n")
    assert f"videos.csv, {message}" in str(caught.value)
    assert len(caught.value.problems) == 1


def test_parts_alone_are_no_row(tmp_path):
    with pytest.raises(UserError, match="line 2: video_path is empty"):
        read(tmp_path, PARTS + ",,1,2\n")


def test_parts_of_one_video_have_files_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"line 3: feature_path a.npy is that of line 2 too"):
        read(tmp_path, PARTS + "a,a.npy,1,2\na,a.npy,2,3\n")


def test_a_column_of_parts_that_is_named_twice_is_a_problem(tmp_path):
    with pytest.raises(UserError, match=r"names the column start 2 times"):
        read(tmp_path, "video_path,start,feature_path,start\na,1,a.npy,2\n")


def test_a_thousand_parts_of_one_video_are_rows_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = "".join(f"a.mp4,{k}.npy,{k},{k + 1}\n" for k in range(1000))
    rows = read(tmp_path, PARTS + lines)
    assert [row.source.offset_seconds for row in rows] == list(range(1000))
    assert len({row.source for row in rows}) == 1000


BOTH = ("resnet152", "timm--a")


def read_both(path: Path, text: str) -> list[tuple[str, ...]]:
    path.write_text(text, encoding="utf-8")
    return [row.feature_paths for row in read_rows(path, BOTH)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "video_path,feature_path\na.mp4,x/{backbone}/a.npy\n",
            ("x/resnet152/a.npy", "x/timm--a/a.npy"),
        ),
        (
            "video_path,feature_path,feature_path_timm--a\na.mp4,a.npy,y/a.npz\n",
            ("a.npy", "y/a.npz"),
        ),
        (
            "feature_path_timm--a,video_path,feature_path_resnet152\ny.npy,a.mp4,{backbone}.npy\n",
            ("resnet152.npy", "y.npy"),
        ),
    ],
)
def test_each_recipe_has_a_feature_file_of_its_own(tmp_path, text, expected):
    assert read_both(tmp_path / "videos.csv", text) == [expected]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("video_path,feature_path\na.mp4,a.npy\n", "line 2: feature_path a.npy would be that of 2"),
        (
            "video_path,feature_path_timm--a\na.mp4,a.npy\n",
            "the first line must name the column feature_path (found: video_path, feature_path_ti",
        ),
        (
            "video_path,feature_path,feature_path_timm--a\na.mp4,a.npy,\n",
            "line 2: feature_path is empty",
        ),
        (
            "video_path,feature_path\na.mp4,{backbone}.npy\nb.mp4,timm--a.npy\n",
            "line 3: feature_path timm--a.npy would be that of 2",
        ),
        (
            "video_path,feature_path,feature_path_timm--a\na.mp4,a.npy,b.npy\nb.mp4,b.npy,c.npy\n",
            "line 3: feature_path b.npy is that of line 2 too",
        ),
        ("video_path,feature_path\na.mp4,{backbon}.npy\n", "holds a brace or a line break"),
    ],
)
def test_a_feature_file_of_two_recipes_is_told(tmp_path, text, problem):
    with pytest.raises(UserError) as error:
        read_both(tmp_path / "videos.csv", text)
    assert problem in str(error.value)


def test_without_a_recipe_a_path_stays_as_it_is_written(tmp_path):
    path = tmp_path / "videos.csv"
    path.write_text("video_path,feature_path\na.mp4,x/{backbone}/a.npy\n")
    assert [row.feature_paths for row in read_rows(path)] == [("x/{backbone}/a.npy",)]
