"""A sample's key is unique, and the same whatever other rows there are."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pytest

from conftest import write_csv
from videofeatures.errors import UserError
from videofeatures.packing.keys import key_of, read_keys, tar_name
from videofeatures.planning.rows import Row
from videofeatures.source import Source


def make_row(path: str, number: int = 0, **part: float) -> Row:
    return Row(Source(path, **part), (f"features/{number}.npy",))


def keys(*rows: Row) -> list[str]:
    return read_keys(rows, "none.csv", "video_path")


def test_a_key_is_the_path_of_the_video():
    rows = [make_row("videos/a.mp4"), make_row("/data/ä b.webm"), make_row("./c.mp4")]
    assert keys(*rows) == ["videos/a.mp4", "data/ä b.webm", "c.mp4"]


def test_parts_of_a_video_have_a_media_fragment_behind_it():
    parts = [{"start_seconds": 1.5, "end_seconds": 20.0}, {"end_seconds": 3.0}]
    parts += [{"start_seconds": 4.0}, {}]
    found = keys(*(make_row("a.mp4", k, **part) for k, part in enumerate(parts)))
    assert found == ["a.mp4#t=1.5,20", "a.mp4#t=0,3", "a.mp4#t=4", "a.mp4"]


def test_a_url_is_a_key_without_what_is_signed():
    signed = "https://host/a.mp4?X-Amz-Signature=word"
    rows = [make_row("s3://bucket/v/a.mp4"), make_row(signed), make_row("s3://bucket/b?.mp4")]
    found = keys(*rows)
    assert found == ["s3:/bucket/v/a.mp4", "https:/host/a.mp4", "s3:/bucket/b?.mp4"]
    with pytest.raises(UserError, match=r"would both be the sample https:/host/a\.mp4"):
        keys(make_row(signed, 1), make_row("https://host/a.mp4?id=2", 2))


@pytest.mark.parametrize("second", ["a.mp4", "./a.mp4", "/a.mp4"])
def test_two_rows_of_one_key_are_told_with_what_tells_them_apart(second):
    with pytest.raises(UserError) as caught:
        keys(make_row("a.mp4", 1), make_row("b.mp4", 2), make_row(second, 3))
    message = str(caught.value)
    assert "features/1.npy and features/3.npy would both be the sample a.mp4" in message
    assert "key=feature_path" in message


def test_a_key_inside_another_is_told():
    with pytest.raises(UserError, match="the sample a/b would be inside the sample a"):
        keys(make_row("a", 1), make_row("a/b", 2))


@pytest.mark.parametrize("text", ["", " ", ".", "..", "/", "a\0"])
def test_what_is_no_name_is_told(text):
    with pytest.raises(UserError, match="is no name for a sample"):
        keys(make_row(text))


def test_another_column_names_samples(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text("video_path,id,feature_path\na.mp4,x 1,a.npy\n\na.mp4,x 2,b.npy\n,ignored,\n")
    rows = [make_row("a.mp4", 1), make_row("a.mp4", 2)]
    assert read_keys(rows, path, "id") == ["x 1", "x 2"]
    assert read_keys(rows, path, "feature_path") == ["a.npy", "b.npy"]


def test_a_column_that_is_not_there_is_told(tmp_path):
    path = write_csv(tmp_path / "my.csv", [("a.mp4", "a.npy")])
    with pytest.raises(UserError, match="id"):
        read_keys([make_row("a.mp4")], path, "id")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("videos/a.mp4", "videos/a%2Emp4"),
        ("v.1/a", "v.1/a"),
        ("v.1/.a..b", "v.1/%2Ea%2E%2Eb"),
        ("100%/a\nb", "100%25/a%0Ab"),
        ("__a__/b", "%5F_a__/b"),
        ("ä ö#t=1,2", "ä ö#t=1,2"),
        ("a.mp4#t=1.5,2", "a%2Emp4#t=1%2E5,2"),
    ],
)
def test_a_key_can_stand_in_a_tar_and_be_had_back(key, name):
    assert tar_name(key) == name
    assert unquote(name) == key


def test_keys_are_normalised_as_names_in_hdf5_are():
    assert [key_of(text) for text in ("a//b/", "./a/../b", "//x")] == ["a/b", "b", "x"]
    assert Path(key_of("a/./b")) == Path("a/b")
