"""The check says what is ready, and what to do about what is not."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from PIL import Image

from conftest import Workflow, make_clip, make_recipe, make_target
from networks.hub_server import LARGE_BYTES, run_hub, use_hub
from videofeatures.errors import UserError
from videofeatures.networks.hub import find_origin
from videofeatures.networks.weights import Weights
from videofeatures.settings import Settings
from videofeatures.workflow import checks


def run_check(workflow: Workflow, **config: object) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit status, and by subject, `ok` or `FIX` and what is said."""
    values = [f"{key}={value}" for key, value in (workflow.config | config).items()]
    command = [sys.executable, "scripts/check.py", *values]
    result = subprocess.run(command, cwd=workflow.folder, capture_output=True, text=True)
    assert result.stderr == ""
    found = {}
    for line in result.stdout.splitlines():
        if line[:5].strip():  # a message of several lines goes on below
            found[line[5:19].strip()] = (line[:5].strip(), line[19:])
    return result.returncode, found


def test_a_machine_that_is_ready(workflow, real_clips):
    workflow.write_rows(
        ("gone.mp4", "features/gone.npy"), (real_clips["bikes"], "features/bikes.npy")
    )
    before = workflow.state()
    status, found = run_check(workflow)
    assert {subject: verdict for subject, (verdict, _) in found.items()} == dict.fromkeys(
        ("ffmpeg", "videos", "folders", "disk", "device", "weights", "a video"), "ok"
    )
    assert status == 0
    assert "h264, hevc, vp8, vp9, av1" in found["ffmpeg"][1]
    assert "2 rows, 0 done, 2 pending: 10 s of video; 1 missing" in found["videos"][1]
    assert "SHA-256 57934424" in found["weights"][1]
    assert "640×272, h264, 25 frames/s, 10 s" in found["a video"][1]
    with Image.open(workflow.folder / "results" / "check.jpg") as sheet:
        assert sheet.width > 8 * 100
    assert set(workflow.state()) - set(before) == {"results/check.jpg"}


def test_a_clip_for_a_3d_network_is_shown_by_its_middle(workflow, real_clips):
    workflow.write_rows((real_clips["bikes"], "features/bikes.npz"))
    status, found = run_check(workflow, backbone="resnext101", weights="random")
    assert status == 0
    assert "8 clips decoded" in found["a video"][1]


def test_what_is_wrong_with_the_input_is_told_first(workflow):
    (workflow.folder / "videos.csv").write_text("video_path,feature_path\na.mp4,a.txt\n")
    status, found = run_check(workflow, resize_size=1)
    assert status == 1
    assert list(found)[:2] == ["ffmpeg", "input"]
    assert found["input"][0] == "FIX"
    assert "resize_size" in found["input"][1]


def test_weights_that_are_not_there(workflow, real_clips):
    workflow.write_rows((real_clips["bikes"], "features/bikes.npy"))
    status, found = run_check(workflow, backbone="resnext101")
    assert (status, found["weights"][0]) == (1, "FIX")
    assert "put it at model/resnext101.pth" in found["weights"][1]
    assert "a video" not in found


def test_videos_that_are_all_elsewhere_or_broken(workflow):
    workflow.write_rows(("/elsewhere/a.mp4", "features/a.npy"))
    status, found = run_check(workflow)
    assert status == 1
    assert "Are the paths those of this machine?" in found["videos"][1]
    assert found["a video"] == ("FIX", "none of the CSV is there")
    (workflow.folder / "b.mp4").write_text("nothing")
    workflow.write_rows(("b.mp4", "features/b.npy"))
    status, found = run_check(workflow)
    assert status == 1
    assert found["a video"][1].startswith("b.mp4: text, not a video: Invalid data found")


def test_an_ffmpeg_that_cannot_run(workflow, real_clips, monkeypatch, tmp_path):
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    workflow.write_rows((real_clips["bikes"], "features/bikes.npy"))
    status, found = run_check(workflow)
    assert (status, found["ffmpeg"][0], found["a video"][0]) == (1, "FIX", "FIX")
    assert str(fake) in found["ffmpeg"][1]


def test_an_ffmpeg_without_a_decoder(monkeypatch, tmp_path):
    fake = tmp_path / "ffmpeg"
    listed = "\n".join(f" DEV.L. {codec}  x" for codec in checks.CODECS if codec != "av1")
    fake.write_text(f"#!/bin/sh\necho 'ffmpeg version 9'\necho '{listed}'\necho ' .EV.L. av1 x'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    found = checks.check_ffmpeg()
    assert not found.is_ok
    assert "cannot decode av1. " in found.text


def test_too_little_room_on_the_disk(monkeypatch, tmp_path):
    clip = make_clip(tmp_path / "a.mp4", seconds=2)
    expected = checks.estimate([make_target(clip, "a.npy")], Settings(), max_seconds=60)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=8191))
    found = checks.check_disk([str(tmp_path / "new" / "folder")], [make_recipe()], expected)
    assert not found.is_ok  # two rows of 4096 bytes
    assert "Make room" in found.text


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    found = checks.check_folders([str(tmp_path), str(tmp_path / "file" / "below")])
    assert not found.is_ok
    assert str(tmp_path / "file") in found.text
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_check_that_fails_in_an_unknown_way_ends_no_other():
    def broken() -> checks.Finding:
        raise RuntimeError("how odd")

    assert checks._guarded("moon", broken) == (False, "moon", "RuntimeError: how odd")


@pytest.mark.parametrize("arguments", [["nonsense"], ["--configfile", "nowhere.yaml"]])
def test_arguments_that_mean_nothing(workflow, arguments):
    command = [sys.executable, "scripts/check.py", *arguments]
    result = subprocess.run(command, cwd=workflow.folder, capture_output=True, text=True)
    assert result.returncode == 2
    assert arguments[-1] in result.stderr


def test_weights_on_a_hub_are_looked_for_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with run_hub() as server:
        use_hub(server.address, tmp_path / "home", monkeypatch)
        server.files["owner/net", "model.safetensors"] = b"x" * LARGE_BYTES
        origin = find_origin("owner/net", ["model.safetensors"])
        weights = Weights("resnet152", origin, "0" * 8)
        finding = checks.check_weights(weights)
        assert finding.is_ok
        assert finding.text == f"{origin} will be fetched by the first run"
        server.failing = True
        with pytest.raises(UserError, match=r"`hf download owner/net model.safetensors`"):
            checks.check_weights(weights)


def test_a_device_that_is_to_decode_is_tried(tmp_path, monkeypatch):
    fake = tmp_path / "ffmpeg"
    fake.write_text('#!/bin/sh\ncase "$*" in *"-hwaccel vaapi "*) exit 0;; esac\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    assert checks.check_decoding("vaapi").is_ok
    with pytest.raises(UserError, match="hwaccel: cuda: ffmpeg cannot decode on such a device"):
        checks.check_decoding("cuda")
    checks.find_hwaccel.cache_clear()
    try:
        assert checks.check_decoding("auto").text == "vaapi, and the CPU"
    finally:
        checks.find_hwaccel.cache_clear()


def test_a_bucket_of_results_is_written_and_read(s3_server):
    finding = checks.check_bucket("s3://bucket/run/")
    assert finding.is_ok
    assert "s3://bucket/run/: written and read in" in finding.text
    assert s3_server.list() == []
    # Runs remove nothing there.
    s3_server.fault = lambda r: r.fail(403, "AccessDenied") if r.method == "DELETE" else None
    assert checks.check_bucket("s3://bucket/run").is_ok


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_a_bucket_of_results_that_is_not_for_us_is_named(s3_server, method):
    s3_server.fault = lambda r: r.fail(403, "AccessDenied") if r.method == method else None
    finding = checks.check_bucket("s3://bucket/run")
    assert str(finding) == (
        "FIX  results       s3://bucket/run/.videofeatures-check: cannot be written and read: "
        "bucket: no permission (403). Allow it, or choose another"
    )


def test_a_bucket_that_gives_back_other_bytes_is_named(s3_server):
    s3_server.fault = lambda r: r.edit(lambda _: b"y") if r.method == "GET" else None
    assert str(checks.check_bucket("s3://bucket/run")) == (
        "FIX  results       s3://bucket/run/.videofeatures-check: other bytes came back than were "
        "written. Choose another storage for results"
    )
