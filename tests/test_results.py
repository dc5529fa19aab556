"""Where results are, on a disk and in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from videofeatures.results import leave_copy, place_in, work_folder


@pytest.mark.parametrize(
    ("results", "folder", "records"),
    [
        ("results", "results", "results/records"),
        ("a/b/", "a/b", "a/b/records"),
        ("/abs", "/abs", "/abs/records"),
        ("s3://bucket/run", "results/s3/bucket/run", "s3://bucket/run/records"),
        ("s3://bucket/a b/ü/", "results/s3/bucket/a b/ü", "s3://bucket/a b/ü/records"),
        ("gs://bucket/run", "results/gs/bucket/run", "gs://bucket/run/records"),
    ],
)
def test_what_snakemake_works_with_is_on_a_disk_and_the_rest_where_it_is_said(
    results, folder, records
):
    assert work_folder(results) == Path(folder)
    assert place_in(results, "records") == records


def test_of_what_is_on_a_disk_no_copy_is_left(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("x")
    assert leave_copy(tmp_path, path) == str(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_copy_in_a_bucket_is_named_and_has_its_type(s3_server, tmp_path):
    path = tmp_path / "report.html"
    for text in ("one", "two"):
        path.write_text(text)
        assert leave_copy("s3://bucket/run/", path) == "s3://bucket/run/report.html"
        assert s3_server.get("run/report.html") == text.encode()
    found = s3_server.client.head_object(Bucket="bucket", Key="run/report.html")
    assert found["ContentType"] == "text/html"


def test_a_copy_that_cannot_be_left_is_told_with_the_place_of_the_file(s3_server, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("x")
    s3_server.fault = lambda request: request.fail(403, "AccessDenied")
    told = leave_copy("s3://bucket/run", path)
    url = "s3://bucket/run/report.html"
    assert told == f"{path} ({url} could not be written: bucket: no permission (403))"
