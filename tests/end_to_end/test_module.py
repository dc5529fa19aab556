"""A workflow that uses this one as a module, and whose own rules have features as their inputs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import (
    PROJECT,
    ROOT,
    RunFolder,
    Workflow,
    make_clip,
    start_session,
    wait_for,
    write_csv,
)

NOTHING_TO_DO = "Nothing to be done"
SNAKEFILE = Path("examples") / "module" / "Snakefile"


class Outer(Workflow):
    """The example, in a clone in which four videos are listed as those of the demo."""

    def __init__(self, folder: Path, shared_weights: Path):
        super().__init__(folder, shared_weights)
        shutil.copytree(ROOT / "examples", folder / "examples")
        self.results = folder / "demo" / "results"
        self.config = {}
        # Neither our profile nor our hooks: a workflow around this one has its own.
        self.options = ("--snakefile", str(SNAKEFILE), "--cores", "2", "--keep-going")
        self.options += ("--workflow-profile", "none")
        rows = []
        for k in range(4):
            make_clip(folder / "demo" / f"{k}.mp4", seconds=2, size="160x120")
            rows.append((f"demo/{k}.mp4", f"demo/features/{k}.npy"))
        write_csv(folder / "demo" / "videos.csv", rows)

    def set(self, key: str, value: object) -> None:
        """Give the module one more key of its configuration."""
        snakefile = self.folder / SNAKEFILE
        text = snakefile.read_text()
        assert text.count('"backbone"') == 1
        snakefile.write_text(text.replace('"backbone"', f'"{key}": {value}, "backbone"'))

    def command(self, *arguments: str | Path, **config: object) -> list[str]:
        command = super().command(*arguments, **config)
        return command if self.config | config else command[: command.index("--config")]

    def means(self) -> set[str]:
        return {path.stem for path in (self.folder / "demo" / "means").glob("*.npy")}

    def done(self) -> dict[str, int]:
        """How often each row was done."""
        return dict(self.count("done"))

    def manifest_text(self) -> str:
        return (self.results / "manifest.csv").read_text()


@pytest.fixture
def outer(tmp_path, real_weights) -> Outer:
    outer = Outer(tmp_path, real_weights)
    outer.set("report", False)  # which takes as long as a short run does
    return outer


def test_features_are_made_for_the_rules_that_need_them(outer):
    assert "4 rows: 0 done, 4 pending in 1 jobs" in outer.run("-n").stderr
    assert not outer.results.exists()
    first = outer.run()
    assert "4 of 4 pending rows done, 0 failed" in first.stderr
    with np.load(outer.folder / "demo" / "means.npz") as file:
        assert file["vectors"].shape == (4, 1280)
    # What hangs on no hook of this workflow: jobs have what they need, and leave nothing.
    assert outer.manifest_text().count(",done,") == 4
    assert list((outer.results / "plan").iterdir()) == []
    assert list(outer.folder.rglob(".*.claim")) == []
    assert "not present when the DAG was created" not in first.stderr

    second = outer.run()
    assert NOTHING_TO_DO in second.stderr
    assert outer.done() == {str(k): 1 for k in range(4)}

    # A feature that is not there is made where it is needed.
    (outer.folder / "demo" / "features" / "1.npy").unlink()
    assert NOTHING_TO_DO in outer.run().stderr
    (outer.folder / "demo" / "means" / "1.npy").unlink()
    (outer.folder / "demo" / "means.npz").unlink()
    outer.run()
    assert outer.done() == {"0": 1, "1": 2, "2": 1, "3": 1}
    assert outer.means() == {"0", "1", "2", "3"}
    assert NOTHING_TO_DO in outer.run().stderr


def test_what_depends_on_a_changed_video_is_made_again(outer):
    outer.run()
    before = (outer.folder / "demo" / "means" / "2.npy").read_bytes()
    make_clip(outer.folder / "demo" / "2.mp4", seconds=3, size="160x120", source="smptebars")
    outer.run()
    assert outer.done() == {"0": 1, "1": 1, "2": 2, "3": 1}
    assert (outer.folder / "demo" / "means" / "2.npy").read_bytes() != before
    assert NOTHING_TO_DO in outer.run().stderr


def test_a_broken_video_costs_what_depends_on_it_and_nothing_else(outer):
    (outer.folder / "demo" / "2.mp4").write_text("not a video")
    failed = outer.run(check=False)
    assert failed.returncode == 1
    assert "3 of 4 pending rows done, 1 failed" in failed.stderr
    assert "demo/2.mp4: text, not a video: Invalid data found" in failed.stderr
    # Those that were in a job with it wait for the next run, which has no job for them.
    assert outer.run(check=False).returncode == 1
    assert outer.means() == {"0", "1", "3"}
    assert outer.done() == {"0": 1, "1": 1, "3": 1}
    assert ',failed,"text, not a video: Invalid data found' in outer.manifest_text()
    make_clip(outer.folder / "demo" / "2.mp4", seconds=2, size="160x120")
    outer.run()
    assert outer.means() == {"0", "1", "2", "3"}
    assert outer.done() == {str(k): 1 for k in range(4)}


def test_only_what_is_asked_for_is_done(outer):
    (outer.folder / "demo" / "2.mp4").write_text("not a video")
    listed = outer.run("-n", "demo/means/0.npy", "demo/means/3.npy")
    assert "Extract 2 videos, 0.mp4 … 3.mp4" in listed.stdout + listed.stderr
    asked = outer.run("demo/means/0.npy", "demo/means/3.npy")
    assert "2 of 2 pending rows done, 0 failed" in asked.stderr
    assert outer.done() == {"0": 1, "3": 1}
    # A feature by its own path, and one of no row.
    outer.run("demo/features/1.npy")
    assert outer.done() == {"0": 1, "1": 1, "3": 1}
    unknown = outer.run("demo/features/9.npy", check=False)
    assert unknown.returncode == 1
    assert "demo/features/9.npy: no row of demo/videos.csv has this feature_path" in unknown.stderr


def test_failed_rows_that_are_left_alone_are_tried_where_they_are_needed(outer):
    outer.set("retry_failed", False)
    (outer.folder / "demo" / "2.mp4").write_text("not a video")
    for _ in range(2):
        assert outer.run(check=False).returncode == 1
    assert outer.count("failed") == {"2": 2}
    assert outer.means() == {"0", "1", "3"}


def test_a_run_that_is_stopped_leaves_what_another_one_leaves(outer):
    long = outer.folder / "demo" / "3.mp4"
    make_clip(long, seconds=600, size="320x240", rate=5)
    outer.set("decoders", 1)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = start_session(outer.command(), outer.folder, **quiet)
    wait_for(lambda: len(list((outer.folder / "demo" / "features").glob("*.npy"))) == 3)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) != 0
    assert outer.manifest_text().count(",done,") == 3
    assert list((outer.results / "plan").iterdir()) == []
    assert list(outer.folder.rglob(".*.claim")) == []
    make_clip(long, seconds=2, size="160x120")
    outer.run()
    assert outer.done() == {str(k): 1 for k in range(4)}
    assert outer.means() == {"0", "1", "2", "3"}


def test_a_setting_of_the_module_is_checked(outer):
    outer.set("colour", '"blue"')
    failed = outer.run(check=False)
    assert failed.returncode == 1
    assert "configuration: there is no key `colour`" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_prefix_is_refused(outer):
    snakefile = outer.folder / SNAKEFILE
    text = snakefile.read_text()
    snakefile.write_text(text.replace("module features:\n", 'module features:\n    prefix: "x"\n'))
    failed = outer.run("-n", check=False)
    assert failed.returncode == 1
    assert "this workflow cannot be a module with a prefix" in failed.stdout + failed.stderr


def test_its_jobs_run_on_a_cluster(outer):
    """Through an executor whose jobs start Snakemake again, as they do on other nodes."""
    (outer.folder / "submit.sh").write_text('bash "$1" >> cluster.log 2>&1\necho 7\n')
    submit = ("--executor", "cluster-generic", "--jobs", "2", "--latency-wait", "5")
    submit += ("--seconds-between-status-checks", "1")
    outer.options += (*submit, "--cluster-generic-submit-cmd", "bash submit.sh")
    outer.run()
    assert outer.means() == {"0", "1", "2", "3"}
    os.utime(outer.folder / "demo" / "1.mp4", (time.time() - 7, time.time() - 7))
    outer.run()
    assert outer.done() == {"0": 1, "1": 2, "2": 1, "3": 1}
    assert NOTHING_TO_DO in outer.run().stderr


# As snakedeploy 0.17.1 writes it for a tag of a repository on GitHub.
DEPLOYED = """\
from snakemake.utils import min_version


min_version("6.10.0")


configfile: "config/config.yaml"


# declare https://github.com/someone/features as a module
module features:
    snakefile:
        github("someone/features", path="Snakefile", tag="v1")
    config:
        config


# use all rules from https://github.com/someone/features
use rule * from features
"""


def test_it_can_be_deployed_from_a_host_of_repositories(tmp_path, real_weights):
    """With a Git that finds the repository on this disk instead of on the network."""
    clone, bare = tmp_path / "clone", tmp_path / "github" / "someone" / "features.git"
    clone.mkdir()
    for name in (*PROJECT, ".gitignore"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, clone / name)
    settings = tmp_path / "gitconfig"
    settings.write_text(
        f'[url "file://{tmp_path}/github/"]\n    insteadOf = https://github.com/\n'
        "[safe]\n    directory = *\n[user]\n    name = x\n    email = x@example.org\n"
    )
    environment = os.environ | {
        "GIT_CONFIG_GLOBAL": str(settings),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for command in (["init"], ["add", "--all"], ["commit", "-m", "x"], ["tag", "v1"]):
        subprocess.run(["git", *command], cwd=clone, env=environment, check=True)
    subprocess.run(["git", "clone", "--quiet", "--bare", clone, bare], env=environment, check=True)

    site = RunFolder(tmp_path / "site")
    shutil.copytree(ROOT / "config", site.folder / "config")
    shutil.copytree(ROOT / "profiles", site.folder / "profiles")
    (site.folder / "workflow").mkdir()
    (site.folder / "workflow" / "Snakefile").write_text(DEPLOYED)
    (site.folder / "resources").symlink_to(real_weights.parents[1])
    config = site.folder / "config" / "config.yaml"
    config.write_text(config.read_text().replace(": resnet152 ", ": efficientnet_lite0 "))
    clip = make_clip(tmp_path / "a.mp4", size="160x120")
    write_csv(site.folder / "config" / "videos.csv", [(clip, "features/a.npy")])
    for expected in ("1 of 1 pending rows done", NOTHING_TO_DO):
        result = subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", "2"],
            cwd=site.folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert expected in result.stderr
    assert site.features()["a"].shape == (2, 1280)
    assert not (site.folder / "rules").exists()
