"""A run: who asks for what, what its jobs need, and that it ends once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import ROOT, make_feature, make_recipe, write_csv, write_line
from videofeatures.errors import UserError
from videofeatures.monitoring.progress import Display
from videofeatures.planning import jobs
from videofeatures.planning.plan import Request
from videofeatures.records import Recorder
from videofeatures.settings import Settings
from videofeatures.workflow.run import Run

NAMES = "abcdef"


class Stage:
    """A CSV of seven rows: four to be done, in two jobs, two that failed before, and one done."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.said: list[str] = []
        rows = [(f"{name}.mp4", f"features/{name}.npy") for name in NAMES]
        write_csv(folder / "videos.csv", [*rows, ("g.mp4", "features/g.npy")])
        make_feature(folder / "features" / "g.npy", feature_dim=1280)
        text = (ROOT / "config" / "config.yaml").read_text(encoding="utf-8")
        config = yaml.safe_load(text) | {
            "videos": "videos.csv",
            "backbone": "efficientnet_lite0",
            "weights": "random",
            "videos_per_job": 2,
            "report": False,
            "retry_failed": False,
        }
        self._fail(*rows[4:])
        self.config = config
        self.run = Run(config, Display(self.said.append))
        self.run.plan(Request())
        self.planned = list(self.run.jobs)
        self.on_demand = [self.run.find_job(f"{self.planned[0].name[:-1]}3")]

    def _fail(self, *rows: tuple[str, str]) -> None:
        """Record that these rows have failed."""
        recipe = make_recipe(Settings(backbone="efficientnet_lite0"), "x-random.pth")
        with Recorder("results", "before") as recorder:
            for _, feature_path in rows:
                facts = {"digest": recipe.digest, "weights": "random", "reason": "broken"}
                write_line(recorder, "failed", feature_path, **facts)

    def rows(self) -> list[list[str]]:
        """Of each job that has what it needs: its rows."""
        paths = sorted((self.folder / "results" / "plan").glob("*.json"))
        return [[Path(t.feature_path).stem for t in jobs.read_job(p).targets] for p in paths]


@pytest.fixture
def stage(tmp_path, monkeypatch) -> Stage:
    monkeypatch.chdir(tmp_path)
    return Stage(tmp_path)


def test_all_planned_jobs_can_be_asked_for(stage):
    asked = stage.run.ask_for_all()
    assert asked == [str(jobs.end_path("results", job.name)) for job in stage.planned]
    stage.run.ask_for("features/b.npy")
    assert stage.run.describe_job(stage.planned[0].name) == "2 videos, a.mp4 … b.mp4"
    stage.run.start()
    assert stage.rows() == [["a", "b"], ["c", "d"]]


def test_a_row_that_nobody_asks_for_is_left_out_of_its_job(stage):
    for path in ("features/b.npy", "./features//b.npy", str(stage.folder / "features" / "b.npy")):
        assert stage.run.ask_for(path) == str(jobs.end_path("results", stage.planned[0].name))
    assert stage.run.describe_job(stage.planned[0].name) == "b.mp4"
    assert stage.run.describe_job(stage.planned[1].name) == "2 videos, c.mp4 … d.mp4"
    stage.run.start()
    assert stage.rows() == [["b"]]


def test_what_may_be_asked_for_later_is_not_left_out(stage):
    stage.run.ask_for("features/b.npy")
    stage.run.start(whole=True)
    assert stage.rows() == [["a", "b"]]


def test_failed_rows_are_done_on_demand_only(stage):
    for job in (*stage.planned, *stage.on_demand):
        assert stage.run.find_job(job.name) == job
    stage.run.ask_for_all()
    stage.run.ask_for("features/f.npy")
    stage.run.start()
    assert stage.rows() == [["a", "b"], ["c", "d"], ["f"]]


def test_a_process_of_one_job_reads_what_was_planned(stage):
    stage.run.ask_for_all()
    stage.run.start()
    (stage.folder / "videos.csv").unlink()
    other = Run({"results": "results"}, Display(print))
    job = stage.planned[1]
    assert other.find_job(job.name) == job
    with pytest.raises(UserError, match="extract_00000000_0001"):
        other.find_job("extract_00000000_0001")


def test_a_file_that_is_done_needs_no_job_and_one_of_no_row_is_named(stage):
    assert stage.run.ask_for("features/g.npy") is None
    with pytest.raises(UserError, match=r"^features/h.npy: no row of videos.csv has this"):
        stage.run.ask_for("features/h.npy")
    stage.run.start()
    stage.run.end()
    # No job was asked for.
    (line,) = stage.said
    assert line.startswith("1 done, 0 failed, 6 missing, 0 pending: ")
    names = {path.name for path in (stage.folder / "results").iterdir()}
    assert names == {"records", "manifest.csv"}


def test_where_nothing_is_to_do_a_true_manifest_stays_as_it_is(stage):
    for number in range(2):
        stage.said.clear()
        run = Run(stage.config, Display(stage.said.append))
        run.plan(Request())
        run.has_nothing_to_do()
        run.end()
        assert len(stage.said) == (1 if number == 0 else 0)


def test_a_run_starts_and_ends_once_and_leaves_nothing_but_its_manifest(stage):
    stage.run.end()
    assert stage.said == []  # it has not started
    stage.run.ask_for_all()
    for _ in range(2):
        stage.run.start()
    assert (stage.folder / "results" / "manifest.csv").exists()
    for _ in range(2):
        stage.run.end()
    assert sum("0 of 4 pending rows done, 0 failed, 4 not finished" in s for s in stage.said) == 1
    assert list((stage.folder / "results" / "plan").iterdir()) == []


END = """
import sys
from videofeatures.workflow.run import Run
class Watched(Run):
    def end(self, **options):
        print("end", options, flush=True)
        super().end(**options)
run = Watched({}, None)
run.start()
run.end_with_process(latency_seconds=3)
print("main thread", flush=True)
exit = sys.argv[1]
if exit == "error":
    raise KeyError("an error")
sys.exit(int(exit))
"""


@pytest.mark.parametrize(("exit", "status"), [("0", 0), ("3", 3), ("error", 1)])
def test_a_run_ends_with_its_process_however_that_ends(exit, status):
    result = subprocess.run(
        [sys.executable, "-c", END, exit], cwd=ROOT / "scripts", capture_output=True, text=True
    )
    assert result.returncode == status
    assert result.stdout == "main thread\nend {'latency_seconds': 3}\n"
