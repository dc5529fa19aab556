"""A collection whose files and records a test arranges."""

from __future__ import annotations

from pathlib import Path

import yaml

from conftest import ROOT, RunFolder, make_feature, make_recipe, write_csv, write_line
from videofeatures.networks.backbones import find_backbone
from videofeatures.planning.plan import ALL, Plan, Request, make_plan
from videofeatures.records import Recorder
from videofeatures.settings import Settings


class SmallCollection(RunFolder):
    """Rows with files that a test makes, and records that it writes; no network has seen any.

    Attributes:
        config: the project's own with changes, as it is before it is checked.
    """

    def __init__(self, folder: Path):
        super().__init__(folder)
        text = (ROOT / "config" / "config.yaml").read_text(encoding="utf-8")
        self.config = yaml.safe_load(text) | {
            "videos": str(folder / "videos.csv"),
            "results": str(self.results),
            "backbone": "efficientnet_lite0",
            "weights": "random",
        }
        self._rows: list[tuple[Path, Path]] = []

    def video(self, name: str) -> Path:
        return self.folder / f"{name}.mp4"

    def feature(self, name: str) -> Path:
        return self.folder / "features" / f"{name}.npy"

    def add(self, *names: str) -> None:
        """Rows, whose videos are there."""
        for name in names:
            self.video(name).write_text("video")
            self._rows.append((self.video(name), self.feature(name)))
        write_csv(Path(self.config["videos"]), self._rows)

    def record(self, name: str, *statuses: str, **facts: object) -> None:
        """What one process has done to a row, with the settings of now and `facts`."""
        keys = set(Settings.model_fields)
        settings = {key: facts.pop(key) for key in keys & set(facts)}
        recipe = make_recipe(Settings(backbone=self.config["backbone"], **settings))
        video = self.video(name)
        stat = video.stat() if video.exists() else None
        of_row = {
            "digest": recipe.digest,
            "weights": "random",
            "video_size": stat.st_size if stat else None,
            "video_mtime_ns": stat.st_mtime_ns if stat else None,
        }
        with Recorder(self.results, "job") as recorder:
            write_line(recorder, "process", digest=recipe.digest, settings=recipe.numerics)
            for status in statuses:
                write_line(recorder, status, self.feature(name), **of_row | facts)
            write_line(recorder, "end")

    def make_feature(self, name: str, num_features: int = 1) -> None:
        """A row's feature file, of which nobody knows."""
        feature_dim = find_backbone(self.config["backbone"]).feature_dim
        make_feature(self.feature(name), num_features, feature_dim)

    def make(self, name: str, **facts: object) -> None:
        """A row's feature file, and the record of it."""
        self.make_feature(name, facts.get("num_features", 1))
        self.record(name, "done", **facts)

    def fail(self, name: str, reason: str = "broken", **facts: object) -> None:
        self.record(name, "failed", reason=reason, **facts)

    def plan(self, request: Request = ALL, **changes: object) -> Plan:
        return make_plan(self.config | changes, request)
