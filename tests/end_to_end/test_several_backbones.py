"""Several feature files of each video, from one decoding: the workflow, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import Workflow, make_clip

ENTRIES = {
    "efficientnet_lite0": {},
    "whole": {"backbone": "efficientnet_lite0", "crop_size": 0, "frame_rate": 3},
}
LATER = {"pooled": {"backbone": "efficientnet_lite0", "frame_rate": "native", "pool": "mean"}}


@pytest.fixture
def several(workflow: Workflow) -> Workflow:
    """Two videos, and one that is none, with a file for each backbone."""
    for name, seconds in (("a", 3), ("b", 4)):
        make_clip(workflow.folder / f"{name}.mp4", seconds=seconds)
    (workflow.folder / "c.mp4").write_bytes(b"no video")
    workflow.write_rows(*((f"{name}.mp4", f"features/{{backbone}}/{name}.npy") for name in "abc"))
    workflow.config["backbone"] = json.dumps(ENTRIES)
    return workflow


def read(folder: Path) -> dict[str, np.ndarray]:
    return {str(p.relative_to(folder)): np.load(p) for p in sorted(folder.rglob("*.npy"))}


def test_each_video_is_decoded_once_and_each_file_is_as_by_itself(several: Workflow):
    said = several.run("-n").stderr
    assert (
        "3 rows, 6 feature files, of efficientnet_lite0, whole: 0 done, 6 pending in 1 jobs" in said
    )
    assert set(several.pending()) == {
        f"features/{name}/{video}.npy" for name in ENTRIES for video in "abc"
    }
    assert several.run(check=False).returncode == 1  # c is no video
    made = read(several.folder / "features")
    assert list(made) == [f"{name}/{video}.npy" for name in ENTRIES for video in "ab"]
    done = [line for line in several.records() if line["status"] == "done"]
    assert [line["num_together"] for line in done] == [2] * 4
    assert len([line for line in several.records() if line["status"] == "failed"]) == 2
    with open(several.results / "manifest.csv") as file:
        assert [line.split(",")[1:3] for line in file][1:] == [
            [f"features/{name}/{video}.npy", name] for video in "abc" for name in ENTRIES
        ]

    several.write_rows(("a.mp4", "alone/{backbone}/a.npy"), ("b.mp4", "alone/{backbone}/b.npy"))
    for name, entry in ENTRIES.items():
        several.run(backbone=json.dumps({name: entry}), results=f"results-{name}")
    alone = read(several.folder / "alone")
    assert list(alone) == list(made)
    assert all(np.array_equal(made[name], alone[name]) for name in made)


def test_what_is_done_is_not_done_again(several: Workflow):
    several.run(check=False)
    before = several.state()
    (several.folder / "features" / "whole" / "a.npy").unlink()
    assert set(several.pending()) == {
        "features/whole/a.npy",
        *(f"features/{name}/c.npy" for name in ENTRIES),
    }
    # One more backbone costs what is its own.
    several.config["backbone"] = json.dumps(ENTRIES | LATER)
    (several.folder / "c.mp4").unlink()
    make_clip(several.folder / "c.mp4", seconds=2)
    several.run()
    after = several.state()
    for name in ("efficientnet_lite0/a.npy", "efficientnet_lite0/b.npy", "whole/b.npy"):
        assert after[f"features/{name}"] == before[f"features/{name}"]
    assert after["features/whole/a.npy"][1] == before["features/whole/a.npy"][1]
    assert len(list((several.folder / "features").rglob("*.npy"))) == 9
    assert np.load(several.folder / "features" / "pooled" / "a.npy").shape == (1, 1280)
    assert several.pending() == {}


def test_a_file_is_asked_for_by_its_path(several: Workflow):
    several.run("features/whole/a.npy")
    assert list(read(several.folder / "features")) == ["whole/a.npy"]


def test_the_columns_of_the_csv_may_name_each(several: Workflow):
    (several.folder / "videos.csv").write_text(
        "video_path,feature_path,feature_path_whole\na.mp4,x/a.npy,y/a.npz\n"
    )
    several.run(report="true")
    assert (several.folder / "x" / "a.npy").exists()
    assert (several.folder / "y" / "a.npz").exists()
    first, other = (
        (several.results / name).read_text() for name in ("report.html", "report-whole.html")
    )
    assert '<a href="report-whole.html">whole</a>' in first
    assert '<a href="report.html">efficientnet_lite0</a>' in other


def test_a_feature_path_for_several_is_told(several: Workflow):
    several.write_rows(("a.mp4", "features/a.npy"), ("b.mp4", "features/b.npy"))
    said = several.run(check=False).stderr
    assert (
        "line 2: feature_path features/a.npy would be that of 2 backbones. Put {backbone}" in said
    )
    said = several.run(check=False, backbone=json.dumps({"a": {"crop_size": 0}})).stderr
    assert "a: backbone: there is no 'a'" in said or "backbone" in said


def test_a_list_on_the_command_line_is_each_with_its_own_settings(several: Workflow):
    said = several.run("-n", backbone="[efficientnet_lite0,resnet152]", weights="random").stderr
    assert "6 feature files, of efficientnet_lite0, resnet152: 0 done, 6 pending" in said
