"""The real workflow, run as a user runs it."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from conftest import (
    ROOT,
    Workflow,
    make_clip,
    run_ffmpeg,
    run_in_terminal,
    start_session,
    wait_for,
    write_csv,
)
from videofeatures.records import read_records

NOTHING_TO_DO = "Nothing to be done"


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Path]:
    """Four short clips of two shapes."""
    folder = tmp_path_factory.mktemp("clips")
    sizes = ["320x240", "240x320", "320x240", "320x240"]
    return [make_clip(folder / f"{k}.mp4", seconds=2 + k, size=s) for k, s in enumerate(sizes)]


@pytest.fixture
def own_clips(clips, tmp_path) -> list[Path]:
    """Copies that a test may touch."""
    (tmp_path / "clips").mkdir()
    copies = [tmp_path / "clips" / clip.name for clip in clips]
    for clip, copy in zip(clips, copies, strict=True):
        copy.write_bytes(clip.read_bytes())
    return copies


@pytest.fixture
def done(workflow, own_clips) -> Workflow:
    """A workflow of four rows, all done."""
    rows = [(f"clips/{clip.name}", f"features/{clip.stem}.npy") for clip in own_clips]
    workflow.write_rows(*rows)
    workflow.run()
    assert len(workflow.features()) == 4
    return workflow


def assert_same_but_for_rounding(found: np.ndarray, expected: np.ndarray) -> None:
    """Which frames share a batch depends on timing, and changes the last bits."""
    assert (found.shape, found.dtype) == (expected.shape, np.float16)
    np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=1e-3)


def computed(workflow: Workflow) -> list[str]:
    """Rows that were ever worked on, once for each time, sorted."""
    return sorted(workflow.count("started").elements())


def no_leftovers(workflow: Workflow) -> None:
    """No temporary file, plan or stamp is left."""
    assert list(workflow.folder.rglob(".*.part")) == []
    assert list(workflow.folder.glob("results/plan/*")) == []
    assert list(workflow.folder.glob(".snakemake/stale-*")) == []


def test_a_run_makes_every_row_and_a_second_run_has_nothing_to_do(workflow, clips):
    rows = [(clip, f"new/folder/{clip.stem}.npy") for clip in clips]
    workflow.write_rows(*rows)
    first = workflow.run("--resources", "gpu=1")
    assert "4 rows: 0 done, 4 pending in 1 jobs" in first.stderr
    assert "4 of 4 pending rows done, 0 failed" in first.stderr
    for k, (_, feature) in enumerate(rows):
        found = np.load(workflow.folder / feature)
        assert (found.shape, found.dtype) == ((2 + k, 1280), np.float16)
        np.testing.assert_allclose(np.linalg.norm(found.astype(float), axis=1), 1, rtol=2e-3)
    no_leftovers(workflow)
    before = workflow.state()
    second = workflow.run("--resources", "gpu=1")
    assert NOTHING_TO_DO in second.stdout + second.stderr
    assert "4 rows: 4 done, 0 pending" in second.stderr
    assert workflow.state() == before


def test_each_row_s_file_holds_its_own_video(done, real_weights, clips):
    # The same videos, one after the other and each alone, give the same features.
    together = done.features()
    for clip in clips:
        write_csv(done.folder / "one.csv", [(clip, f"alone/{clip.stem}.npy")])
        done.run(videos="one.csv", results="results/alone", batch_size=1)
        alone = np.load(done.folder / "alone" / f"{clip.stem}.npy")
        assert_same_but_for_rounding(together[clip.stem], alone)


def test_the_dry_run_names_what_is_pending_and_changes_nothing(done):
    assert done.pending() == {}
    (done.folder / "features" / "1.npy").unlink()
    before = done.state()
    assert done.pending() == {"features/1.npy": "clips/1.mp4: no feature file"}
    assert done.state() == before
    for command in ("--lint", "--list-rules", "--summary"):
        done.run(command, check=False)
    assert done.state() == before
    no_leftovers(done)


def test_a_deleted_file_is_made_again_and_nothing_else(done):
    before = done.features()
    times = {p.name: p.stat().st_mtime_ns for p in (done.folder / "features").iterdir()}
    (done.folder / "features" / "2.npy").unlink()
    done.run()
    after = {p.name: p.stat().st_mtime_ns for p in (done.folder / "features").iterdir()}
    assert [name for name in sorted(times) if times[name] != after[name]] == ["2.npy"]
    assert computed(done) == ["0", "1", "2", "2", "3"]
    assert_same_but_for_rounding(done.features()["2"], before["2"])


def test_a_touched_video_is_done_again_and_nothing_else(done):
    video = done.folder / "clips" / "3.mp4"
    os.utime(video, (time.time() - 7, time.time() - 7))
    assert done.pending() == {"features/3.npy": "clips/3.mp4: the video has changed since"}
    done.run()
    assert computed(done) == ["0", "1", "2", "3", "3"]
    assert done.pending() == {}
    no_leftovers(done)


def test_a_setting_that_changes_the_numbers_makes_every_row_pending(done):
    before = done.features()
    pending = done.pending(interpolation="bicubic")
    why = "made with other settings (interpolation: bilinear → bicubic)"
    assert list(pending) == [f"features/{k}.npy" for k in range(4)]
    assert all(reason.endswith(why) for reason in pending.values())
    done.run(interpolation="bicubic")
    after = done.features()
    assert all(not np.array_equal(before[name], after[name]) for name in before)
    assert done.pending(interpolation="bicubic") == {}
    assert len(done.pending()) == 4


def test_a_setting_that_changes_the_speed_makes_no_row_pending(done):
    assert done.pending(batch_size=1, decoders=1, videos_per_job=2) == {}


def test_a_video_deleted_after_its_row_was_done_changes_nothing(done):
    (done.folder / "clips" / "0.mp4").unlink()
    assert done.pending() == {}
    assert NOTHING_TO_DO in "".join(done.run().stderr)


def test_everything_can_be_done_again(done):
    before = done.features()
    done.run("-F")
    assert computed(done) == sorted(["0", "1", "2", "3"] * 2)
    for name, features in done.features().items():
        assert_same_but_for_rounding(features, before[name])
    assert done.pending() == {}
    no_leftovers(done)


def test_one_feature_file_can_be_asked_for(done):
    (done.folder / "features" / "1.npy").unlink()
    (done.folder / "features" / "2.npy").unlink()
    # Done: nothing happens.
    assert NOTHING_TO_DO in done.run("features/0.npy").stderr
    assert computed(done) == ["0", "1", "2", "3"]
    # Pending, written in another way: that row only.
    done.run("./features//1.npy")
    assert computed(done) == ["0", "1", "1", "2", "3"]
    # One of each.
    done.run("features/0.npy", "features/2.npy")
    assert computed(done) == ["0", "1", "1", "2", "2", "3"]
    # Forced.
    done.run("-F", "features/3.npy")
    assert computed(done) == ["0", "1", "1", "2", "2", "3", "3"]
    unknown = done.run("features/9.npy", check=False)
    assert unknown.returncode == 1
    assert "features/9.npy: no row of videos.csv has this feature_path" in unknown.stderr


def test_a_broken_video_costs_its_own_row_only(workflow, own_clips):
    broken = own_clips[1]
    good = broken.read_bytes()
    broken.write_text("not a video")
    rows = [(f"clips/{clip.name}", f"features/{clip.stem}.npy") for clip in own_clips]
    workflow.write_rows(*rows, ("clips/gone.mp4", "features/gone.npy"))
    failed = workflow.run(check=False)
    assert failed.returncode == 1
    assert "3 of 5 pending rows done, 2 failed" in failed.stderr
    assert "clips/1.mp4: text, not a video: Invalid data found" in failed.stderr
    assert "clips/gone.mp4: no such file" in failed.stderr
    assert sorted(workflow.features()) == ["0", "2", "3"]
    assert workflow.pending() == {
        "features/1.npy": "clips/1.mp4: no feature file (failed before: "
        "text, not a video: Invalid data found when processing input: moov atom not found)",
        "features/gone.npy": "clips/gone.mp4: no feature file (failed before: no such file)",
    }
    broken.write_bytes(good)
    again = workflow.run(check=False)
    assert again.returncode == 1
    assert sorted(workflow.features()) == ["0", "1", "2", "3"]
    assert computed(workflow) == ["0", "1", "1", "2", "3", "gone", "gone"]
    no_leftovers(workflow)


def test_a_video_that_cannot_be_done_any_more_leaves_its_features_where_they_are(done):
    before = done.features()["1"]
    (done.folder / "clips" / "1.mp4").write_text("not a video any more")
    (done.folder / "features" / "2.npy").unlink()
    failed = done.run(check=False)
    assert failed.returncode == 1
    assert "1 of 2 pending rows done, 1 failed" in failed.stderr
    assert sorted(done.features()) == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(done.features()["1"], before)
    why = "the video has changed since (failed before: text, not a video: "
    assert list(done.pending()) == ["features/1.npy"]
    assert why in done.pending()["features/1.npy"]
    line = done.manifest()["1"]
    assert (line["state"], line["stale"]) == ("failed", "the video has changed since")
    assert line["reason"].startswith("text, not a video: Invalid data found")
    assert {line["stale"] for name, line in done.manifest().items() if name != "1"} == {""}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_killed_half_way_keeps_what_it_finished(workflow, clips, tmp_path, number):
    long = make_clip(tmp_path / "long.mp4", seconds=600, size="320x240", rate=5)
    rows = [(clip, f"features/{clip.stem}.npy") for clip in clips]
    workflow.write_rows(*rows, (long, "features/long.npy"))
    process = start_session(
        workflow.command(decoders=1),
        workflow.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: len(list((workflow.folder / "features").glob("*.npy"))) >= 2)
    os.killpg(process.pid, number)
    assert process.wait(60) != 0
    finished = workflow.features()  # every file that exists is complete
    assert len(finished) >= 2
    assert "long" not in finished
    # The plan and the lock of the killed run are still there, and change nothing.
    workflow.write_rows(*rows)
    workflow.run()
    assert len(workflow.features()) == 4
    names = computed(workflow)
    assert all(names.count(name) == 1 for name in finished)
    assert workflow.pending() == {}
    assert list((workflow.folder / "features").glob(".*.part")) == []


def test_a_file_that_appears_between_planning_and_the_job_is_kept(workflow, clips):
    rows = [(clip, f"features/{clip.stem}.npy") for clip in clips]
    workflow.write_rows(*rows)
    # Somebody else finishes a row after planning, while the weights are being prepared, and
    # another when the job has started: both in a shell that Snakemake starts.
    (workflow.folder / "resources").unlink()
    (workflow.folder / "features").mkdir()
    appear = workflow.folder / "appear.sh"
    appear.write_text(
        "n=$(cat count 2> /dev/null || echo 0)\n"
        "echo $((n + 1)) > count\n"
        "[ $n -gt 1 ] || echo -n theirs > features/$n.npy\n"
    )
    environment = os.environ | {"BASH_ENV": str(appear)}
    result = subprocess.run(
        workflow.command(), cwd=workflow.folder, capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert "0 done, 4 pending" in result.stderr
    for name in ("0", "1"):
        assert (workflow.folder / "features" / f"{name}.npy").read_text() == "theirs"
    assert computed(workflow) == ["2", "3"]


def test_a_file_that_appears_while_snakemake_plans_hides_no_row_of_its_job(workflow, clips):
    workflow.write_rows(*[(clip, f"features/{clip.stem}.npy") for clip in clips])
    # After our plan, and before Snakemake looks at the disk itself.
    with open(workflow.folder / "Snakefile", "a") as file:
        file.write("\n\nPath('features').mkdir()\nPath('features/0.npy').write_text('theirs')\n")
    workflow.run()
    assert (workflow.folder / "features" / "0.npy").read_text() == "theirs"
    assert computed(workflow) == ["1", "2", "3"]


def test_jobs_have_no_more_rows_than_asked(workflow, clips):
    workflow.write_rows(*[(clip, f"features/{clip.stem}.npy") for clip in clips])
    result = workflow.run(videos_per_job=2)
    assert "4 pending in 2 jobs" in result.stderr
    assert len(list((workflow.folder / "results" / "records").iterdir())) == 2
    assert len(list((workflow.folder / "results" / "logs").glob("extract_*.log"))) == 2


SUBMIT = """\
echo "threads=$1 gpu=$2 mem_mb=$3 runtime=$4" >> submitted.txt
echo "not read by a job" > videos.csv
bash "$5" >> cluster.log 2>&1
echo "$RANDOM"
"""


def run_on_cluster(workflow: Workflow, *arguments: str, **config):
    """Run through an executor whose jobs start Snakemake again, as they do on other nodes."""
    (workflow.folder / "submit.sh").write_text(SUBMIT)
    request = "{threads} {resources.gpu} {resources.mem_mb} {resources.runtime}"
    cluster = ["--executor", "cluster-generic", "--jobs", "1", "--latency-wait", "1"]
    cluster += ["--seconds-between-status-checks", "1"]
    cluster += ["--cluster-generic-submit-cmd", f"bash submit.sh {request}"]
    return workflow.run(*cluster, *arguments, **config)


def test_jobs_on_other_nodes_read_their_own_rows_and_not_the_csv(workflow, clips):
    workflow.write_rows(*[(clip, f"features/{clip.stem}.npy") for clip in clips])
    run_on_cluster(workflow, videos_per_job=2, mem_mb=5000, minutes_per_video=10)
    assert sorted(workflow.features()) == ["0", "1", "2", "3"]
    assert computed(workflow) == ["0", "1", "2", "3"]
    submitted = (workflow.folder / "submitted.txt").read_text().splitlines()
    assert submitted == ["threads=2 gpu=1 mem_mb=5000 runtime=35"] * 2
    no_leftovers(workflow)


def test_stale_rows_are_replaced_on_other_nodes(done):
    before = done.features()
    run_on_cluster(done, interpolation="bicubic")
    after = done.features()
    assert sorted(after) == sorted(before)
    assert all(not np.array_equal(before[name], after[name]) for name in before)
    no_leftovers(done)


QSUB = """\
#!/bin/bash
echo "$*" >> qsub.txt
bash "${@: -1}" >> .snakemake/pbs_logs/features.o7 2>&1
echo 7.server
"""


def test_the_profile_for_pbs_asks_for_what_a_job_needs(workflow, clips):
    """With a stand-in for qsub, which runs the job at once."""
    (workflow.folder / "bin").mkdir()
    qsub = workflow.folder / "bin" / "qsub"
    qsub.write_text(QSUB)
    qsub.chmod(0o755)
    workflow.environment = os.environ | {"PATH": f"{qsub.parent}:{os.environ['PATH']}"}
    workflow.options = ("--profile", "profiles/pbs", "--resources", "gpu=2", "--latency-wait", "1")
    workflow.options += ("--seconds-between-status-checks", "1")
    workflow.write_rows(*[(clip, f"features/{clip.stem}.npy") for clip in clips])
    workflow.run(minutes_per_video=10)
    assert sorted(workflow.features()) == ["0", "1", "2", "3"]
    first, second = (workflow.folder / "qsub.txt").read_text().splitlines()
    for line in (first, second):
        assert "-l select=1:ncpus=8:ngpus=1:mem=8000mb -l walltime=35:00 " in line
    workflow.options += ("--default-resources", "mem_mb=3000", "runtime=7")
    (workflow.folder / "features" / "0.npy").unlink()
    workflow.run()
    (last,) = (workflow.folder / "qsub.txt").read_text().splitlines()[2:]
    assert "mem=3000mb -l walltime=7:00 " in last


def test_the_profile_for_a_workstation_shares_its_cores_out(workflow, clips):
    workflow.options = ("--profile", "profiles/workstation")
    workflow.write_rows(*[(clip, f"features/{clip.stem}.npy") for clip in clips])
    result = workflow.run("-n", "--printshellcmds", "--cores", "8")
    assert "4 pending in 4 jobs" in result.stderr
    assert (result.stdout + result.stderr).count("--threads 2 ") == 4


@pytest.mark.parametrize(("num_gpus", "num_jobs", "threads"), [(1, 1, 8), (4, 4, 2), (16, 4, 1)])
def test_gpus_share_rows_and_cores(workflow, clips, num_gpus, num_jobs, threads):
    workflow.write_rows(*[(clip, f"features/{clip.stem}.npy") for clip in clips])
    arguments = ("-n", "--printshellcmds", "--cores", "8", "--resources", f"gpu={num_gpus}")
    result = workflow.run(*arguments)
    assert f"4 pending in {num_jobs} jobs" in result.stderr
    assert (result.stdout + result.stderr).count(f"--threads {threads} ") == num_jobs


def test_two_backbones_from_one_clone_do_not_touch_each_other(done, seeded_weights, tmp_path):
    write_csv(done.folder / "3d.csv", [("clips/0.mp4", "features3d/0.npz")])
    config = {
        "backbone": "resnext101",
        "weights": seeded_weights["resnext101"],
        "videos": "3d.csv",
        "results": "results/3d",
    }
    done.run(**config)
    with np.load(done.folder / "features3d" / "0.npz") as file:
        assert file["features"].shape == (3, 2048)
    assert done.pending() == {}
    assert done.pending(**config) == {}


def test_paths_may_hold_almost_anything(workflow, clips):
    names = ["é 日本", "a b", "$HOME;x", "q'\"q", "-dash", "star*?[x]", "comma,comma", "#hash&|"]
    rows = [(f"videos/{name} {{x}}.mp4", f"features/{name}.npy") for name in names]
    (workflow.folder / "videos").mkdir()
    for video, _ in rows:
        (workflow.folder / video).symlink_to(clips[0])
    workflow.write_rows(*rows, (clips[1], "-leading.npz"), (clips[1], "./dot/../plain.npy"))
    workflow.run()
    assert sorted(workflow.features()) == sorted(names)
    assert (workflow.folder / "-leading.npz").exists()
    assert (workflow.folder / "plain.npy").exists()
    assert workflow.pending() == {}


def test_names_are_found_in_utf_8_whatever_the_locale(workflow, clips):
    (workflow.folder / "é日本.mp4").symlink_to(clips[0])
    workflow.write_rows(("é日本.mp4", "features/é日本.npy"))
    c_locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    workflow.environment = os.environ | c_locale
    told = workflow.run("-n", check=False)
    assert told.stdout.count("Type `export PYTHONUTF8=1`, and start again") == 1
    assert "Traceback" not in told.stdout + told.stderr
    workflow.environment |= {"PYTHONUTF8": "1"}
    workflow.run()
    assert list(workflow.features()) == ["é日本"]


def test_results_may_be_called_like_an_option(workflow, clips):
    workflow.write_rows((clips[0], "features/0.npy"))
    workflow.run(results="-r")
    assert (workflow.folder / "-r" / "manifest.csv").exists()
    assert list(workflow.features()) == ["0"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"results": "videos.csv"}, "results: videos.csv: files cannot be written there"),
        ({"results": "r{x}s"}, "results: 'r{x}s' holds a brace"),
        ({"results": "~/r"}, "results: '~/r' begins with `~`"),
        ({"minutes_per_video": ".inf"}, "minutes_per_video: inf is not a number"),
        ({"weights": "/proc/self/mem"}, "Input/output error"),
        ({"results": "/proc/r"}, "/proc/r: cannot be written: "),
    ],
)
def test_what_cannot_be_is_one_message(workflow, clips, config, message):
    workflow.write_rows((clips[0], "features/0.npy"))
    result = workflow.run(check=False, **config)
    assert result.returncode == 1
    assert result.stderr.count(message) == 1
    assert "Traceback" not in result.stderr + result.stdout


def test_a_clone_in_a_folder_with_braces_is_refused(tmp_path, real_weights):
    (tmp_path / "a{b}").mkdir()
    workflow = Workflow(tmp_path / "a{b}", real_weights)
    workflow.write_rows(("a.mp4", "a.npy"))
    result = workflow.run("-n", check=False)
    assert "Snakemake takes the braces in this name for those of wildcards" in result.stdout
    assert "Traceback" not in result.stderr + result.stdout


def test_touch_says_that_it_does_nothing(workflow, clips):
    workflow.write_rows(*[(clip, f"features/{clip.stem}.npy") for clip in clips])
    told = workflow.run("--touch").stderr
    assert "--touch makes no features" in told
    assert "pending rows done" not in told
    assert workflow.features() == {}
    assert len(workflow.pending()) == len(clips)


@pytest.mark.parametrize("content", ["", "video_path,feature_path\n"])
def test_an_empty_csv_is_nothing_to_do(workflow, content):
    (workflow.folder / "videos.csv").write_text(content)
    result = workflow.run()
    assert "Nothing to do: the CSV has no rows" in result.stderr
    assert NOTHING_TO_DO in result.stderr


def test_bad_input_is_one_message_before_any_work(workflow, clips):
    workflow.write_rows(
        (clips[0], "a.npy"), (clips[1], "a.npy"), (clips[2], "c.txt"), ("", "d.npy")
    )
    before = workflow.state()
    result = workflow.run(check=False, colour="blue", batch_size=0)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    for part in (
        "no key `colour`",
        "batch_size: 0",
        "line 3: feature_path a.npy is that of line 2",
        "line 4: feature_path c.txt",
        "line 5: video_path is empty",
    ):
        assert result.stderr.count(part) == 1
    assert workflow.state() == before


def test_configuration_can_come_from_a_file(workflow, clips):
    workflow.write_rows((clips[0], "features/0.npy"))
    config = workflow.folder / "config" / "config.yaml"
    text = config.read_text().replace("backbone: resnet152", "backbone: efficientnet_lite0")
    config.write_text(text.replace("config/videos.csv", "videos.csv"))
    workflow.config = {"l2_normalize": "false"}  # as typed on a command line
    workflow.run()
    assert np.linalg.norm(np.load(workflow.folder / "features" / "0.npy")[0].astype(float)) > 2


def test_text_is_taken_as_it_is_typed_on_other_nodes_too(workflow, clips):
    workflow.write_rows((clips[0], "features/0.npy"))
    shutil.copy(workflow.folder / "videos.csv", workflow.folder / "007")
    typed = {"videos": "007", "results": "1.10"}
    run_on_cluster(workflow, **typed)
    assert sorted(workflow.features()) == ["0"]
    assert (workflow.folder / "1.10" / "manifest.csv").exists()
    assert not {"7", "1.1", "results"} & {path.name for path in workflow.folder.iterdir()}
    assert workflow.pending(**typed) == {}
    content = {key: f"{key}: {value}\n" for key, value in (workflow.config | typed).items()}
    (workflow.folder / "my.yaml").write_text("".join(content.values()))
    workflow.config = {"backbone": "efficientnet_lite0"}
    told = workflow.run("-n", "--configfile", "my.yaml").stderr
    assert "1 rows: 1 done" in told


@pytest.mark.parametrize("value", ["on", "null", "2024-01-01", "[x]", "a: b", "nan", "0x10"])
def test_what_yaml_makes_of_a_text_is_not_what_was_typed(workflow, value):
    workflow.write_rows()
    told = workflow.run("-n", videos=value, check=False).stdout
    assert f"{value}: no such file. Write a CSV" in told


def test_a_file_of_some_keys_is_enough_from_any_folder(workflow, tmp_path_factory, clips):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_csv(elsewhere / "videos.csv", [(clips[0], "a.npy")])
    (workflow.folder / "partial.yaml").write_text("backbone: efficientnet_lite0\n")
    (workflow.folder / "more.yaml").write_text("weights: random\n")
    workflow.config = {"videos": "videos.csv"}
    (workflow.folder / "config" / "config.yaml").write_text("resize_size: 256\n")

    def told(folder: Path, *arguments: str | Path) -> str:
        command = workflow.command("-n", *arguments)
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert "1 rows: 0 done, 1 pending" in result.stderr, result.stderr
        return result.stderr

    files = ("--configfile", "partial.yaml", "more.yaml")
    assert "random weights" in told(workflow.folder, "--directory", elsewhere, *files)
    told(workflow.folder, "--directory", elsewhere)
    told(elsewhere, "-s", workflow.folder / "Snakefile")
    told(elsewhere, "-s", workflow.folder / "Snakefile", *files[:1], workflow.folder / files[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "my.pth: no such weights file"),
        ("not weights", "my.pth: cannot be read as weights"),
    ],
)
def test_unusable_weights_stop_a_run_before_any_job_and_a_dry_run_not(
    workflow, clips, content, message
):
    workflow.write_rows((clips[0], "features/0.npy"))
    if content is not None:
        (workflow.folder / "my.pth").write_text(content)
    assert list(workflow.pending(weights="my.pth")) == ["features/0.npy"]
    result = workflow.run(check=False, weights="my.pth")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.count(message) == 1
    assert computed(workflow) == []


def test_random_weights_work_and_warn(workflow, clips):
    workflow.write_rows((clips[0], "features/0.npy"))
    result = workflow.run(weights="random")
    assert "WARNING: random weights" in result.stderr
    pending = workflow.pending()
    assert list(pending.values()) == [f"{clips[0]}: made with other weights (random → 57934424)"]


def test_the_manifest_has_the_state_of_every_row(workflow, own_clips):
    own_clips[1].write_text("not a video")
    rows = [(f"clips/{clip.name}", f"features/{clip.stem}.npy") for clip in own_clips]
    workflow.write_rows(*rows, ("clips/gone.mp4", "features/gone.npy"))
    result = workflow.run(check=False)
    counts = "3 done, 1 failed, 1 missing, 0 pending: results/manifest.csv lists every row"
    assert counts in result.stderr
    found = workflow.manifest()
    assert [line["state"] for line in found.values()] == [
        "done",
        "failed",
        *["done"] * 2,
        "missing",
    ]
    done, failed, missing = found["0"], found["1"], found["gone"]
    assert (done["num_features"], done["feature_dim"]) == ("2", "1280")
    assert float(done["duration_seconds"]) == 2
    assert float(done["seconds"]) > 0
    assert failed["reason"].startswith("text, not a video: Invalid data found")
    assert "moov atom not found" in failed["ffmpeg_lines"]
    assert missing["reason"] == "no such file"


def make_manifest(workflow: Workflow, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "scripts/make_manifest.py", "videos=videos.csv", *arguments]
    return subprocess.run(command, cwd=workflow.folder, capture_output=True, text=True)


def test_the_manifest_can_be_made_at_any_time(done):
    (done.folder / "features" / "2.npy").unlink()
    (done.folder / "results" / "manifest.csv").unlink()
    before = done.state()
    told = make_manifest(done, "backbone=efficientnet_lite0")
    assert told.stdout.startswith("3 done, 0 failed, 0 missing, 1 pending"), told.stderr
    assert done.manifest()["2"]["reason"] == "no feature file"
    after = done.state()
    assert after.pop("results/manifest.csv")
    assert after == before
    # What it says is about this configuration.
    assert make_manifest(done, "backbone=resnet152").stdout.startswith("0 done")
    assert "made with other settings" in done.manifest()["1"]["reason"]
    wrong = make_manifest(done, "colour=blue")
    assert (wrong.returncode, wrong.stderr.count("no key `colour`")) == (2, 1)
    nothing = make_manifest(done, "--configfile", "nothing.yaml")
    assert (nothing.returncode, nothing.stderr) == (
        2,
        "nothing.yaml: No such file or directory\n",
    )


def test_a_run_with_nothing_to_do_leaves_a_manifest_and_a_report_that_are_true(workflow, clips):
    rows = [(clip, f"features/{clip.stem}.npy") for clip in clips]
    workflow.write_rows(*rows)
    workflow.run()
    # As a run leaves it whose job goes on after Snakemake itself was killed.
    manifest = workflow.results / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",done,", ",pending,"))
    old = workflow.state()
    workflow.run("-n", report="true")
    assert workflow.state() == old
    result = workflow.run(report="true")
    assert [line["state"] for line in workflow.manifest().values()] == ["done"] * len(rows)
    assert "4 done, 0 failed" in result.stderr
    report = workflow.results / "report.html"
    first = report.stat().st_mtime_ns
    workflow.run(report="true")
    assert report.stat().st_mtime_ns == first  # nothing is new
    workflow.write_rows(*rows[1:])
    workflow.run(report="true")
    assert list(workflow.manifest()) == [clip.stem for clip in clips[1:]]
    assert report.stat().st_mtime_ns > first
    # Who asks for one file learns of no other one.
    workflow.write_rows(*rows)
    workflow.run(rows[1][1])
    assert len(workflow.manifest()) == len(rows)


KILLER = """#!/bin/sh
case "$*" in *killer*rawvideo*) sleep 0.3; kill -KILL $PPID; sleep 60 ;; esac
exec "FFMPEG" "$@"
"""


def test_a_row_that_brings_its_process_down_does_not_hold_up_the_others(workflow, clips, tmp_path):
    ffmpeg = tmp_path / "ffmpeg"
    ffmpeg.write_text(KILLER.replace("FFMPEG", imageio_ffmpeg.get_ffmpeg_exe()))
    ffmpeg.chmod(0o755)
    workflow.environment = os.environ | {"IMAGEIO_FFMPEG_EXE": str(ffmpeg)}
    shutil.copy(clips[0], tmp_path / "killer.mp4")
    videos = ["killer.mp4", *clips]
    workflow.write_rows(*[(video, f"features/{Path(video).stem}.npy") for video in videos])
    first = workflow.run(check=False)
    assert "killer.mp4: was in work when its process was killed" in first.stderr
    second = workflow.run("--keep-going", check=False)
    assert "get jobs of their own: killer.mp4" in second.stderr
    third = workflow.run("--keep-going", check=False)
    assert sorted(workflow.features()) == sorted(clip.stem for clip in clips)
    assert "1 pending in 1 jobs" in workflow.run("-n").stderr
    assert "was in work when its process was killed" in third.stderr
    workflow.environment = None
    workflow.run()
    assert len(workflow.features()) == len(videos)


def test_an_interrupted_run_leaves_a_manifest(workflow, clips, tmp_path):
    long = make_clip(tmp_path / "long.mp4", seconds=600, size="320x240", rate=5)
    rows = [(clip, f"features/{clip.stem}.npy") for clip in clips]
    workflow.write_rows(*rows, (long, "features/long.npy"))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = start_session(workflow.command(decoders=1), workflow.folder, **quiet)
    wait_for(lambda: (workflow.folder / "features" / "3.npy").exists())
    # It is there from the start, in case that it is killed.
    assert {line["state"] for line in workflow.manifest().values()} == {"pending"}
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) != 0
    states = {name: line["state"] for name, line in workflow.manifest().items()}
    assert states == {"0": "done", "1": "done", "2": "done", "3": "done", "long": "pending"}


def test_failed_rows_can_be_left_alone(workflow, own_clips):
    good = own_clips[1].read_bytes()
    own_clips[1].write_text("not a video")
    rows = [(f"clips/{clip.name}", f"features/{clip.stem}.npy") for clip in own_clips]
    workflow.write_rows(*rows, ("clips/gone.mp4", "features/gone.npy"))
    assert workflow.run(check=False).returncode == 1
    quiet = workflow.run(retry_failed="false")
    assert "5 rows: 3 done, 0 pending" in quiet.stderr
    assert "2 failed before and are not tried (retry_failed: false)" in quiet.stderr
    assert computed(workflow) == ["0", "1", "2", "3", "gone"]
    # Asked for by name, after a change of its video, or with other settings, a row is tried.
    assert workflow.run("features/gone.npy", check=False, retry_failed="false").returncode == 1
    own_clips[1].write_bytes(good)
    workflow.run(retry_failed="false")
    assert sorted(workflow.features()) == ["0", "1", "2", "3"]
    pending = workflow.pending(retry_failed="false", interpolation="bicubic")
    assert "features/gone.npy" in pending


def test_a_truncated_video_fails_unless_it_is_to_be_kept(workflow, own_clips):
    run_ffmpeg("-i", own_clips[3], "-c", "copy", workflow.folder / "cut.mkv")
    cut = workflow.folder / "cut.mkv"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 2 // 5])
    workflow.write_rows(("cut.mkv", "features/cut.npy"))
    failed = workflow.run(check=False)
    assert failed.returncode == 1
    assert "s of 5 s: truncated" in failed.stderr
    workflow.run(truncated="keep")
    assert len(workflow.features()["cut"]) < 4
    assert "truncated" in workflow.manifest()["cut"]["reason"]
    assert workflow.pending() == {}


def test_two_snakemakes_in_one_folder_share_the_rows(workflow, clips):
    rows = [(clip, f"features/{k}_{clip.stem}.npy") for k in range(5) for clip in clips]
    workflow.write_rows(*rows)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = workflow.command(decoders=1, videos_per_job=5)
    processes = [start_session(command, workflow.folder, **quiet) for _ in range(2)]
    wait_for(lambda: list((workflow.folder / "features").glob("*.npy")))
    workflow.pending()  # dry-runs may be made beside
    assert [process.wait(120) for process in processes] == [0, 0]
    assert len(workflow.features()) == 20
    assert set(workflow.count("started").values()) == {1}
    assert {line["state"] for line in workflow.manifest().values()} == {"done"}
    no_leftovers(workflow)


def test_the_workflow_lints():
    command = [sys.executable, "-m", "snakemake", "--lint", "--config"]
    command += ["videos=tests/data/lint.csv", "results=/nonexistent/results"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_records_tell_what_happened_to_each_row(done):
    records = read_records(done.folder / "results")
    assert {record.status for record in records.last.values()} == {"done"}
    (settings,) = records.settings.values()
    assert settings["backbone"] == "efficientnet_lite0"


def test_the_dry_run_ends_with_what_is_to_do(workflow, clips, tmp_path):
    (tmp_path / "broken.mp4").write_text("nothing")
    workflow.write_rows(
        *((clip, f"features/{clip.stem}.npy") for clip in clips),
        (tmp_path / "broken.mp4", "features/broken.npy"),
        ("gone.mp4", "features/gone.npy"),
    )
    lines = workflow.run("-n").stderr.splitlines()
    assert lines[-3:] == [
        "6 rows: 0 done, 6 pending in 1 jobs",
        "       6 no feature file",
        "To do: 14 s of video; 1 missing; 1 unreadable",
    ]


def test_a_dry_run_of_many_rows_lists_the_first_ones_and_says_where_all_of_them_are(workflow):
    workflow.write_rows(*((f"gone{k}.mp4", f"features/{k}.npy") for k in range(30)))
    result = workflow.run("-n", videos_per_job=1, results="results/2d")
    assert result.stderr.count("  ←  ") == 20
    path = Path(".snakemake") / "pending" / "results-2d.csv"
    assert f"… and 10 more: all of them are in {path}\n" in result.stderr
    with open(workflow.folder / path, newline="") as file:
        listed = [line["feature_path"] for line in csv.DictReader(file)]
    assert listed == [f"features/{k}.npy" for k in range(30)]
    told = result.stdout + result.stderr
    assert told.count(": Extract gone") == 20
    assert "Of 30 jobs, 20 are listed above\n30 rows: 0 done, 30 pending in 30 jobs" in told
    assert not (workflow.folder / "results").exists()


def test_a_terminal_shows_how_far_the_run_is_and_what_fails(workflow, clips):
    workflow.write_rows(
        *((clip, f"features/{clip.stem}.npy") for clip in clips), ("gone.mp4", "features/gone.npy")
    )
    _, told = run_in_terminal(workflow.command(), workflow.folder)
    drawn = re.findall(r"\r(\d of 5 videos \(\d+ %\); [^\r\n]*?)\x1b\[K", told)
    assert drawn
    # Whatever else is said begins where the line was, and each failure is named once.
    for line in drawn:
        assert f"{line}\x1b[K\r" in told
    assert told.count("FAILED  gone.mp4: no such file") == 1
    assert "done    " not in told  # that is in the log
    (log,) = (workflow.folder / "results" / "logs").glob("extract_*.log")
    assert log.read_text().count("done    ") == 4


def test_without_a_terminal_a_run_is_quiet(workflow, clips):
    workflow.write_rows(*((clip, f"features/{clip.stem}.npy") for clip in clips))
    result = workflow.run()
    assert " of 4 videos" not in result.stdout + result.stderr
    assert "\x1b[K" not in result.stdout + result.stderr
    assert "done    " not in result.stdout + result.stderr


def test_a_failed_job_is_told_in_a_few_lines(workflow):
    workflow.write_rows(*((f"gone{k}.mp4", f"features/{k}.npy") for k in range(30)))
    result = workflow.run(check=False)
    told = result.stdout + result.stderr
    assert "30 failed" in told
    assert "features/" not in told  # each is named by its video, and no more of them than 20
    assert told.count("FAILED  gone") == 20
    assert len(told.splitlines()) < 120
