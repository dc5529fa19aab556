"""Rows whose videos and features are in a bucket, on a server that fails, by what users call."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
import pytest
import webdataset

from conftest import ROOT, RunFolder, make_clip, start_session, wait_for, write_csv

pytest.importorskip("s3fs")
pytest.importorskip("moto")

from s3_server import SECRET, Fault, Request
from videofeatures.extraction.uploads import MAX_UPLOADS
from videofeatures.record_files import FLUSH_SECONDS

NAMES = tuple(f"v{k}" for k in range(6))
RUN = "s3://bucket/run"


class Bucket(RunFolder):
    """Videos in a bucket, and `extract.py` on a CSV of them."""

    def __init__(self, folder: Path, server):
        super().__init__(folder)
        self.server = server
        self.scratch = folder / "scratch"
        self.clips = {}
        for k, name in enumerate(NAMES):
            self.clips[name] = make_clip(folder / "clips" / f"{name}.mp4", seconds=1 + k % 3)
            server.put(f"videos/{name}.mp4", self.clips[name].read_bytes())
        self.write_rows(*self.rows(NAMES))
        server.forget()

    def rows(self, names):
        return [(f"s3://bucket/videos/{n}.mp4", f"s3://bucket/features/{n}.npy") for n in names]

    def write_rows(self, *rows):
        write_csv(self.folder / "videos.csv", rows)

    def command(self, *options: str, results: Path | str | None = None) -> list[str]:
        return [
            *(sys.executable, str(ROOT / "scripts" / "extract.py"), "--csv", "videos.csv"),
            *("--backbone", "efficientnet_lite0", "--weights", "random", "--threads", "2"),
            *("--results", str(results or self.results), "--scratch", str(self.scratch)),
            # Each frame by itself: which ones share a batch is not the same twice.
            *("--batch_size", "1", "--allowed_schemes", "s3", *options),
        ]

    def extract(self, *options: str, status: int = 0, folder: Path | None = None, **given) -> str:
        result = subprocess.run(
            self.command(*options, **given),
            cwd=folder or self.folder,
            capture_output=True,
            text=True,
        )
        assert result.returncode == status, result.stdout + result.stderr
        return result.stderr

    def elsewhere(self, name: str) -> Path:
        """A folder with the same CSV, and nothing else."""
        folder = self.folder / name
        folder.mkdir()
        shutil.copy(self.folder / "videos.csv", folder)
        return folder

    def lines_in_bucket(self) -> list[dict]:
        """All lines of all processes, of results in the bucket."""
        keys = sorted(key for key in self.server.list() if key.startswith("run/records/"))
        text = b"".join(map(self.server.get, keys)).decode()
        return [json.loads(line) for line in text.splitlines()]

    def count_in_bucket(self, status: str) -> Counter[str]:
        """How often this was recorded of each row there."""
        lines = [line for line in self.lines_in_bucket() if line["status"] == status]
        return Counter(Path(line["feature_path"]).stem for line in lines)

    def manifest_in_bucket(self) -> dict[str, dict[str, str]]:
        text = self.server.get("run/manifest.csv").decode()
        lines = csv.DictReader(io.StringIO(text))
        return {Path(line["feature_path"]).stem: line for line in lines}

    def num_puts(self, start: str) -> int:
        """Of objects whose keys start so."""
        return self.server.puts(start).total()

    def in_bucket(self) -> dict[str, np.ndarray]:
        keys = [key for key in self.server.list() if key.startswith("features/")]
        return {Path(k).stem: np.load(io.BytesIO(self.server.get(k))) for k in keys}

    def secrets(self) -> list[Path]:
        """Files of the run in which a secret stands."""
        files = [p for p in self.folder.rglob("*") if p.is_file() and p.suffix != ".mp4"]
        return [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.fixture
def bucket(tmp_path, s3_server) -> Bucket:
    return Bucket(tmp_path, s3_server)


@pytest.fixture
def from_disk(bucket) -> dict[str, np.ndarray]:
    """The features of the same videos on a disk."""
    bucket.write_rows(*((clip, f"features/{name}.npy") for name, clip in bucket.clips.items()))
    bucket.extract(results=bucket.folder / "on disk")
    features = bucket.features()
    bucket.write_rows(*bucket.rows(NAMES))
    bucket.server.forget()
    return features


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, features in found.items():
        np.testing.assert_array_equal(features, expected[name], strict=True)


def test_rows_of_a_bucket_are_done_as_those_of_a_disk(bucket, from_disk):
    bucket.extract()
    assert_same(bucket.in_bucket(), from_disk)
    server = bucket.server
    assert {server.keys["PUT", f"features/{n}.npy"] for n in NAMES} == {1}
    assert {server.keys["GET", f"videos/{n}.mp4"] for n in NAMES} == {1}
    assert list(bucket.scratch.iterdir()) == []
    assert {line["state"] for line in bucket.manifest().values()} == {"done"}
    records = [line for line in bucket.records() if line["status"] == "done"]
    assert all(line["video_etag"] and line["video_path"].startswith("s3://") for line in records)
    server.forget()
    assert "6 rows: 6 done, 0 pending" in bucket.extract()
    assert not server.counts["PUT"]
    # A video that is another one is pending; so is one whose features are gone.
    server.put("videos/v0.mp4", bucket.clips["v1"].read_bytes())
    server.client.delete_object(Bucket="bucket", Key="features/v2.npy")
    told = bucket.extract()
    assert "1 the video has changed since" in told
    assert "1 no feature file" in told
    assert_same(bucket.in_bucket(), from_disk | {"v0": from_disk["v1"]})


def test_what_was_made_of_a_bucket_is_packed(bucket):
    bucket.extract()
    found = bucket.in_bucket()
    for pack_format, name in (("hdf5", "f.h5"), ("webdataset", "f-%06d.tar")):
        command = [sys.executable, ROOT / "scripts" / "pack.py", "videos=videos.csv"]
        command += ["backbone=efficientnet_lite0", "weights=random", "allowed_schemes=s3"]
        command += [f"results={bucket.results}", f"format={pack_format}", f"output={name}"]
        command += ["--configfile", ROOT / "config" / "config.yaml"]
        result = subprocess.run(
            list(map(str, command)), cwd=bucket.folder, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        assert "6 of 6 rows, 6 new" in result.stdout
    with h5py.File(bucket.folder / "f.h5") as pack:
        packed = {n: pack[f"s3://bucket/videos/{n}.mp4/features"][()] for n in NAMES}
    assert_same(packed, found)
    shards = webdataset.WebDataset([str(bucket.folder / "f-000000.tar")], shardshuffle=False)
    packed = {Path(s["json"]["key"]).stem: s["features.npy"] for s in shards.decode()}
    assert_same(packed, found)
    assert bucket.secrets() == []


def test_rows_of_disks_and_buckets_stand_in_one_csv(bucket, from_disk):
    clips = bucket.clips
    bucket.write_rows(
        *bucket.rows(NAMES[:2]),
        (clips["v2"], "s3://bucket/features/v2.npy"),
        ("s3://bucket/videos/v3.mp4", "mixed/v3.npy"),
        ("s3://bucket/videos/none.mp4", "mixed/none.npy"),
    )
    told = bucket.extract(status=1)
    assert "s3://bucket/videos/none.mp4: no such file" in told
    assert_same(bucket.in_bucket(), {name: from_disk[name] for name in NAMES[:3]})
    assert_same({"v3": np.load(bucket.folder / "mixed" / "v3.npy")}, {"v3": from_disk["v3"]})
    assert bucket.manifest()["none"]["state"] == "missing"


def fail_one_in_ten(request: Request) -> Iterable[bytes] | None:
    if request.number % 10 != 7:
        return None
    kinds = [request.cut, request.reset, lambda: request.fail(503, "SlowDown")]
    return kinds[request.number // 10 % 3]()


def test_a_server_that_fails_one_request_in_ten_costs_nothing(bucket, from_disk):
    bucket.server.fault = fail_one_in_ten
    bucket.extract()
    bucket.server.fault = lambda request: None
    assert_same(bucket.in_bucket(), from_disk)
    assert bucket.count("done") == dict.fromkeys(NAMES, 1)


@pytest.mark.parametrize(
    ("status", "code", "reason", "is_machine"),
    [
        (403, "AccessDenied", "no permission", False),
        (400, "ExpiredToken", "the credentials are missing, wrong or expired", True),
    ],
)
def test_a_refused_video_costs_its_row(bucket, status, code, reason, is_machine):
    def fault(request):
        is_refused = request.key == "videos/v1.mp4"
        return request.fail(status, code) if is_refused else None

    bucket.server.fault = fault
    told = bucket.extract(status=1)
    assert reason in told
    (failed,) = [line for line in bucket.records() if line["status"] == "failed"]
    assert failed["is_machine"] == is_machine
    assert len(bucket.in_bucket()) == 5
    assert bucket.secrets() == []
    bucket.server.fault = lambda request: None
    bucket.extract()
    assert len(bucket.in_bucket()) == 6


def test_what_cannot_be_written_is_not_done(bucket):
    def fault(request):
        return request.fail(403, "AccessDenied") if request.method == "PUT" else None

    bucket.server.fault = fault
    told = bucket.extract(status=1)
    assert "no permission" in told
    assert bucket.in_bucket() == {}
    bucket.server.fault = lambda request: None
    bucket.extract()
    assert len(bucket.in_bucket()) == 6


def hang_from_third() -> Fault:
    """Two features are written, and no further one."""
    numbers = itertools.count(1)

    def fault(request: Request) -> Iterable[bytes] | None:
        is_feature = request.method == "PUT" and request.key.startswith("features/")
        return request.hang() if is_feature and next(numbers) >= 3 else None

    return fault


def test_a_kill_loses_nothing_and_leaves_nothing(bucket, from_disk):
    """Killed when two features are there, and another one is on its way."""
    server = bucket.server
    server.fault = hang_from_third()
    process = start_session(bucket.command(), bucket.folder, stderr=subprocess.DEVNULL)
    wait_for(lambda: server.puts().total() >= 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(bucket.scratch.iterdir())
    bucket.server.fault = lambda request: None
    bucket.server.forget()
    bucket.extract()
    assert_same(bucket.in_bucket(), from_disk)
    assert list(bucket.scratch.iterdir()) == []
    writes = server.puts()
    assert set(writes.values()) == {1}
    assert len(writes) == 4
    assert list((bucket.results / "plan").iterdir()) == []


def test_two_runs_with_results_of_their_own_write_each_file_once(bucket, from_disk):
    processes = [
        start_session(bucket.command(results=bucket.folder / name), bucket.folder)
        for name in ("one", "two")
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert_same(bucket.in_bucket(), from_disk)
    writes = bucket.server.puts()
    assert len(writes) == 6
    for name in ("one", "two"):
        lines = list(csv.DictReader((bucket.folder / name / "manifest.csv").open()))
        assert {line["state"] for line in lines} == {"done"}


def test_a_csv_reads_nothing_elsewhere_unless_it_is_allowed(bucket):
    bucket.write_rows(
        ("s3://bucket/videos/v0.mp4", "a.npy"),
        ("file:///etc/passwd", "b.npy"),
        ("zip://a::s3://bucket/v", "c.npy"),
        ("https://me:word@host/a.mp4", "d.npy"),
    )
    told = bucket.extract("--allowed_schemes", "https", status=2)
    assert "unless you say so: `allowed_schemes: https,s3`" in told
    assert "scheme 'file', which is none of" in told
    assert "chains URLs" in told
    assert "word" not in told
    assert not bucket.server.counts


def test_parts_of_one_video_are_brought_once(bucket):
    rows = [("s3://bucket/videos/v2.mp4", f"s3://bucket/parts/{k}.npy", k, k + 1) for k in range(3)]
    with open(bucket.folder / "videos.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("video_path", "feature_path", "start", "end"), *rows])
    bucket.extract()
    assert bucket.server.keys["GET", "videos/v2.mp4"] == 1
    assert len([key for key in bucket.server.list() if key.startswith("parts/")]) == 3


def test_what_is_larger_than_the_scratch_folder_fails_by_itself(bucket):
    bucket.server.put("videos/v0.mp4", bytes(1_500_000))
    told = bucket.extract("--scratch_mb", "1", status=1)
    assert "v0.mp4: has 1.5 MB, and `scratch_mb` allows 1 MB: raise it" in told
    assert len(bucket.in_bucket()) == 5


def test_records_of_stale_files_that_were_not_replaced_stay_true(bucket):
    """Killed behind the record, before the upload: the old features are known for what they are."""
    bucket.extract()
    old = bucket.in_bucket()
    bucket.server.fault = lambda r: r.hang() if r.method == "PUT" else None
    command = bucket.command("--crop_size", "192")
    process = start_session(command, bucket.folder, stderr=subprocess.DEVNULL)
    wait_for(lambda: bucket.count("done").total() == 7)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    bucket.server.fault = lambda request: None
    assert_same(bucket.in_bucket(), old)
    assert "6 rows: 6 done, 0 pending" in bucket.extract()
    assert "6 rows: 0 done, 6 pending" in bucket.extract("--crop_size", "192")


def test_results_in_a_bucket_are_those_of_a_disk_and_seen_from_everywhere(bucket, from_disk):
    started = time.monotonic()
    told = bucket.extract(results=RUN)
    seconds = time.monotonic() - started
    assert "s3://bucket/run/manifest.csv lists every row" in told
    assert_same(bucket.in_bucket(), from_disk)
    # One to see whether that can be, one for each row, one at the end, and those of what waited.
    assert 8 <= bucket.num_puts("run/records/") <= 8 + seconds / FLUSH_SECONDS
    on_disk = csv.DictReader((bucket.folder / "on disk" / "manifest.csv").open())
    expected = {Path(line["feature_path"]).stem: line for line in on_disk}
    found = bucket.manifest_in_bucket()
    for name, line in expected.items():
        for column in ("state", "reason", "num_features", "feature_dim", "duration_seconds"):
            assert found[name][column] == line[column]
    work = bucket.folder / "results" / "s3" / "bucket" / "run"
    assert sorted(path.name for path in work.iterdir()) == ["manifest.csv", "plan"]
    assert list((work / "plan").iterdir()) == []
    # Of another machine, there is no file here.
    bucket.server.forget()
    elsewhere = bucket.elsewhere("elsewhere")
    assert "6 rows: 6 done, 0 pending" in bucket.extract(results=f"{RUN}/", folder=elsewhere)
    assert set(bucket.server.puts()) == {"run/manifest.csv"}
    assert {line["state"] for line in bucket.manifest_in_bucket().values()} == {"done"}
    assert bucket.secrets() == []


def test_a_kill_loses_nothing_though_all_that_is_known_is_in_a_bucket(bucket):
    """Killed when two features are there, and another one is on its way; the next run knows nothing
    of the disk of the first one."""
    server = bucket.server
    server.fault = hang_from_third()
    command = bucket.command(results=RUN)
    process = start_session(command, bucket.folder, stderr=subprocess.DEVNULL)
    wait_for(lambda: bucket.num_puts("features/") >= 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    server.fault = lambda request: None
    server.forget()
    bucket.extract(results=RUN, folder=bucket.elsewhere("elsewhere"))
    assert bucket.in_bucket().keys() == set(NAMES)
    writes = server.puts("features/")
    assert set(writes.values()) == {1}
    assert len(writes) == 4
    done = bucket.count_in_bucket("done")
    assert done.keys() == set(NAMES)
    # Twice: those on their way, and one that waited for its turn.
    assert done.total() <= 6 + MAX_UPLOADS + 1
    assert {line["state"] for line in bucket.manifest_in_bucket().values()} == {"done"}


def test_two_runs_without_a_disk_in_common_share_results_in_a_bucket_that_fails_now_and_then(
    bucket,
):
    """One request in ten."""
    bucket.server.fault = fail_one_in_ten
    processes = [
        start_session(bucket.command(results=RUN), bucket.elsewhere(name)) for name in ("1", "2")
    ]
    assert [process.wait() for process in processes] == [0, 0]
    bucket.server.fault = lambda request: None
    assert bucket.in_bucket().keys() == set(NAMES)
    statuses = Counter(line["status"] for line in bucket.lines_in_bucket())
    assert statuses["process"] == statuses["end"] == 2
    assert statuses["failed"] == 0
    # What both have made is the same, and so both may have recorded it.
    assert bucket.count_in_bucket("placed").keys() == set(NAMES)
    assert {line["state"] for line in bucket.manifest_in_bucket().values()} == {"done"}


def test_records_that_a_bucket_refuses_end_the_job_by_one_message(bucket):
    """From the time on when two rows are done."""

    def fault(request):
        is_record = request.method == "PUT" and request.key.startswith("run/records/")
        if is_record and bucket.num_puts("features/") >= 2:
            return request.fail(403, "AccessDenied")
        return None

    bucket.server.fault = fault
    told = bucket.extract(results=RUN, status=2)
    assert told.count("records cannot be written: bucket: no permission (403)") == 1
    assert "Traceback" not in told
    bucket.server.fault = lambda request: None
    kept = bucket.in_bucket()
    assert 2 <= len(kept) < 6
    bucket.server.forget()
    told = bucket.extract(results=RUN)
    assert f"6 rows: {len(kept)} done, {6 - len(kept)} pending" in told
    assert bucket.num_puts("features/") == 6 - len(kept)
    assert {line["state"] for line in bucket.manifest_in_bucket().values()} == {"done"}


def test_results_of_a_workflow_are_in_a_bucket(workflow, s3_server):
    """Of features on a disk, which are renamed into their places."""
    clips = [make_clip(workflow.folder / f"{name}.mp4") for name in "ab"]
    workflow.write_rows(*((clip, f"features/{clip.stem}.npy") for clip in clips))
    given = {"results": RUN, "allowed_schemes": "s3", "report": "true"}
    workflow.run("-n", **given)
    assert s3_server.list() == []
    told = workflow.run(**given).stderr
    work = workflow.folder / "results" / "s3" / "bucket" / "run"
    assert "2 of 2 pending rows done" in told
    assert f"{RUN}/manifest.csv lists every row" in told
    assert f"{RUN}/report.html: open it in a browser" in told
    files = {path.relative_to(work).parts[0] for path in work.rglob("*") if path.is_file()}
    assert files == {"logs", "manifest.csv", "report.html"}
    (records,) = [key for key in s3_server.list() if key.startswith("run/records/extract_")]
    assert {*s3_server.list()} == {records, "run/manifest.csv", "run/report.html"}
    assert b"bokeh" in s3_server.get("run/report.html")
    shutil.rmtree(work)  # nothing in there is needed
    assert "Nothing to be done" in workflow.run(**given | {"report": "false"}).stderr
    workflow.results = work
    assert {line["state"] for line in workflow.manifest().values()} == {"done"}

    def run_script(name: str, *values: str) -> str:
        config = workflow.config | given
        command = [sys.executable, f"scripts/{name}.py", *(f"{k}={v}" for k, v in config.items())]
        result = subprocess.run(
            [*command, *values], cwd=workflow.folder, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    assert "2 of 2 rows, 2 new" in run_script("pack", "format=hdf5", "output=f.h5")
    told = run_script("make_manifest")
    assert told == f"2 done, 0 failed, 0 missing, 0 pending: {RUN}/manifest.csv lists every row\n"
    assert f"{RUN}/report.html: open it" in run_script("make_report", "--keep_manifest")
    assert f"ok   results       {RUN}: written and read in " in run_script("check")
    assert (work / "check.jpg").exists()


def test_the_workflow_does_rows_of_a_bucket(workflow, s3_server):
    s3_server.put("videos/a.mp4", make_clip(workflow.folder / "a.mp4").read_bytes())
    s3_server.put("videos/deep/b.mp4", make_clip(workflow.folder / "b.mp4").read_bytes())
    make_csv = [sys.executable, "scripts/make_csv.py", "s3://bucket/videos", "--csv", "videos.csv"]
    subprocess.run(
        [*make_csv, "--features", "s3://bucket/features"], cwd=workflow.folder, check=True
    )
    given = {"allowed_schemes": "s3"}
    told = workflow.run("-n", **given).stderr
    assert "s3://bucket/features/deep/b.npy  ←  s3://bucket/videos/deep/b.mp4" in told
    assert "2 videos to be brought" in told
    refused = workflow.run("-n", check=False)
    assert "unless you say so" in refused.stdout + refused.stderr
    workflow.run(**given, report="true")
    assert {"features/a.npy", "features/deep/b.npy"} <= set(s3_server.list())
    assert {line["state"] for line in workflow.manifest().values()} == {"done"}
    assert (workflow.results / "report.html").exists()
    assert "0 pending" in workflow.run("-n", **given).stderr
    s3_server.client.delete_object(Bucket="bucket", Key="features/a.npy")
    s3_server.client.delete_object(Bucket="bucket", Key="features/deep/b.npy")
    for _ in range(2):
        workflow.run("s3://bucket/features/a.npy", **given)
        assert s3_server.keys["PUT", "features/a.npy"] == 2
        assert s3_server.keys["PUT", "features/deep/b.npy"] == 1
    workflow.run("-F", "s3://bucket/features/a.npy", **given)
    assert s3_server.keys["PUT", "features/a.npy"] == 3
    workflow.run(**given)
    assert s3_server.keys["PUT", "features/deep/b.npy"] == 2
    check = [sys.executable, "scripts/check.py", *(f"{k}={v}" for k, v in workflow.config.items())]
    found = subprocess.run(
        [*check, "allowed_schemes=s3"], cwd=workflow.folder, capture_output=True, text=True
    ).stdout
    assert "ok   elsewhere     s3://bucket/videos/a.mp4: " in found
    assert "/s)" in found
