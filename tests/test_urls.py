"""Which URLs of a CSV are used, and that nothing secret in one is shown."""

from __future__ import annotations

import pytest

from videofeatures.settings import config_problems
from videofeatures.urls import absolute, is_url, redact, url_problem


@pytest.mark.parametrize(
    "path", ["a.mp4", "/a/b.mp4", "a::b.mp4", "./s3:/a.mp4", "12:30/a.mp4", "-s3://a", "//a/b.mp4"]
)
def test_paths_of_a_disk_are_no_urls(path):
    assert not is_url(path)


@pytest.mark.parametrize(
    "path",
    ["s3://b/a.mp4", "S3://b/a", "file:///etc/passwd", "simplecache::s3://b/a", "zip://a::s3://b"],
)
def test_whatever_fsspec_would_take_for_a_url_is_one(path):
    assert is_url(path)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("s3://b/a.mp4", "unless you say so: `allowed_schemes: https,s3`"),
        ("file:///etc/passwd", "scheme 'file', which is none of"),
        ("local:///etc/passwd", "scheme 'local'"),
        ("memory://a", "scheme 'memory'"),
        ("HTTPS://host/a.mp4", "scheme 'HTTPS'"),
        ("zip://a.mp4::https://host/b.zip", "chains URLs"),
        ("simplecache::https://host/a.mp4", "chains URLs"),
        ("https://host/a::b.mp4", "chains URLs"),
        ("https://user:word@host/a.mp4", "holds credentials"),
        ("https://host", "names no file"),
        ("https://host/a/", "names no file"),
        ("https://host/../a.mp4", "`.` or `..`"),
    ],
)
def test_what_is_not_allowed_is_refused(url, problem):
    found = url_problem(url, {"https"})
    assert problem in found
    assert "word" not in found


def test_what_is_allowed_is_used():
    assert url_problem("https://host/a.mp4?id=1", {"https"}) is None
    assert url_problem("s3://bucket/a b?.mp4", {"https", "s3"}) is None
    assert url_problem("s3://bucket/a.npy", {"s3"}, is_output=True) is None


@pytest.mark.parametrize("url", ["https://host/a.npy", "s3://bucket/a?b.npy"])
def test_some_can_be_read_only(url):
    assert url_problem(url, {"https", "s3"}) is None
    assert url_problem(url, {"https", "s3"}, is_output=True)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("gs://b/run", "unless you say so: `allowed_schemes: gs,https,s3`"),
        ("https://host/run", "cannot be written: only az, gs, s3 can"),
        ("s3://key:word@bucket/run", "holds credentials"),
        ("s3://bucket", "names no folder. Write s3://bucket/folder"),
        ("s3://bucket//", "names no folder"),
        ("s3://", "names no folder"),
        ("s3://bucket/run?versionId=1", "holds `?` or `#`"),
        ("s3://bucket/a//b", "holds `//`"),
        ("s3://bucket/../run", "`.` or `..`"),
        ("zip://a::s3://bucket/run", "chains URLs"),
    ],
)
def test_not_all_can_be_a_folder_that_is_written(url, problem):
    found = url_problem(url, {"https", "s3"}, is_folder=True)
    assert problem in found
    assert "word" not in found
    assert "CSV" not in found.replace("a CSV or a configuration", "")


@pytest.mark.parametrize("url", ["s3://bucket/run", "s3://bucket/run/", "s3://bucket/a b/c"])
def test_some_are_a_folder_that_is_written(url):
    assert url_problem(url, {"s3"}, is_folder=True) is None


@pytest.mark.parametrize("scheme", ["file", "local", "simplecache", "zip", "memory", "reference"])
def test_what_reads_local_files_cannot_be_allowed(scheme):
    (problem,) = config_problems({"allowed_schemes": f"s3,{scheme}"})
    assert "allowed_schemes: " in problem
    assert config_problems({"allowed_schemes": "s3, https"}) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:word@host/a.mp4", "https://host/a.mp4"),
        ("s3://KEY:word@bucket/a.mp4", "s3://bucket/a.mp4"),
        ("https://h/a?X-Amz-Signature=word&X-Amz-Date=1", "https://h/a?…"),
        ("https://h/a?word", "https://h/a?…"),
        ("https://h?token=word", "https://h?…"),
        ("no (https://h/a?sig=word) and s3://b/c?.mp4", "no (https://h/a?… and s3://b/c?.mp4"),
        ("X-Amz-Security-Token=word, so", "X-Amz-Security-Token=…, so"),
        ("aws_secret_access_key=word", "aws_secret_access_key=…"),
        ("Authorization: Bearer word.word", "Authorization: Bearer …"),
        ("the key AKIAIOSFODNN7EXAMPLE is not", "the key … is not"),
        ("videos/a?b=c.mp4: 3 features", "videos/a?b=c.mp4: 3 features"),
    ],
)
def test_nothing_secret_is_shown(text, shown):
    assert redact(text) == shown


def test_a_url_is_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert absolute("s3://b/a.npy") == "s3://b/a.npy"
    assert absolute("a.npy") == str(tmp_path / "a.npy")
