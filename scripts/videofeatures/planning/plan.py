"""The plan: which feature files are pending, and why.

From the configuration, the CSV, the disk and the records, each read once; changes nothing. The
workflow, `extract.py`, the manifest, the check and the report start from it.
"""

from __future__ import annotations

import csv
import json
import os
import stat
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from videofeatures.errors import UserError
from videofeatures.files import replace_text, stat_or_none
from videofeatures.networks.recipe import Recipe, recipe_problems
from videofeatures.networks.weights import RANDOM, Weights, find_weights
from videofeatures.planning.rows import FEATURE_SUFFIXES, Row, read_rows
from videofeatures.records import Record, Records, read_records
from videofeatures.settings import Config, config_problems
from videofeatures.source import Source
from videofeatures.threaded import threaded_map

MISSING = "no feature file"
OLDER = "the video is newer than its features"
CHANGED = "the video has changed since"
OTHER_SETTINGS = "made with other settings"
OTHER_WEIGHTS = "made with other weights"
FORCED = "forced"

PENDING_COLUMNS = ("video_path", "feature_path", "reason", "failed_before")
"""Of the list of all pending rows."""


class Target(NamedTuple):
    """A feature file that has to be made: what is pending, done or failed.

    Attributes:
        source: what it is made of.
        stale: it exists, and is to be replaced.
        reason: one of this module's phrases.
        detail: more about it, the same for many rows, or "".
        failure: why it failed when it was tried last; "" if it did not, or was not tried.
        fails_again: this failure was that of the same video, settings and weights.
        feature_mtime_ns: of a stale feature file; if it is another by the time its turn
            comes, somebody else has replaced it.
        recipe: which of the plan's recipes makes it.
    """

    source: Source
    feature_path: str
    stale: bool
    reason: str
    detail: str = ""
    failure: str = ""
    fails_again: bool = False
    feature_mtime_ns: int | None = None
    recipe: int = 0

    @property
    def is_done(self) -> bool:
        """Somebody has made it since this was planned."""
        now = stat_or_none(self.feature_path)
        if now is None:
            return False
        return not self.stale or self.feature_mtime_ns not in (None, now.st_mtime_ns)

    @property
    def why(self) -> str:
        """Why it has to be made."""
        return self.reason + (f" ({self.detail})" if self.detail else "")

    def __str__(self) -> str:
        failure = f" (failed before: {self.failure})" if self.failure else ""
        return f"{self.feature_path}  ←  {self.source.path}: {self.why}{failure}"


class Request(NamedTuple):
    """What of a collection is asked for; all that is pending by default.

    Attributes:
        feature_paths: absolute; only these are planned, where each of them is a row's.
        forced: absolute; made again although they are done.
        is_all_forced: all of them are.
    """

    feature_paths: frozenset[str] | None = None
    forced: frozenset[str] = frozenset()
    is_all_forced: bool = False

    @classmethod
    def from_arguments(
        cls,
        *,
        targets: Sequence[str],
        others: Sequence[str] = (),
        forced: Sequence[str] = (),
        is_forced: bool = False,
        is_all_forced: bool = False,
    ) -> Request:
        """Return what a command line of Snakemake's asks for.

        Args:
            targets: files and rules that are asked for; if some are no feature files, all that
                is pending is planned.
            others: files and rules that are asked for beside these.
            forced: files and rules that are made again, each of them asked for, too.
            is_forced: so are all targets.
            is_all_forced: so is all.
        """
        are_features = bool(targets) and all(name.endswith(FEATURE_SUFFIXES) for name in targets)
        paths = _feature_paths([*targets, *others]) if are_features else None
        is_forced = is_forced and paths is not None
        again = _feature_paths(targets if is_forced else ()) | _feature_paths(forced)
        return cls(paths, again, is_all_forced)


def _feature_paths(names: Sequence[str]) -> frozenset[str]:
    return frozenset(os.path.abspath(name) for name in names if name.endswith(FEATURE_SUFFIXES))


@dataclass(frozen=True)
class Plan:
    """What is to be done, and what is known of what is done.

    Attributes:
        config: checked.
        rows: those that are asked for.
        is_whole: these are all rows of the CSV, and nothing is forced.
        recipes: that feature files are made by.
        weights: that they need.
        records: of earlier processes.
        pending: feature files to make, in the order of the CSV.
        not_tried: those that would fail as they did before, and are left alone.
    """

    config: Config
    rows: Sequence[Row]
    is_whole: bool
    recipes: tuple[Recipe, ...]
    weights: Weights
    records: Records
    pending: list[Target]
    not_tried: list[Target]

    @property
    def not_done(self) -> list[Target]:
        """Feature files that are not done, whether they are to be made now or not."""
        return [*self.pending, *self.not_tried]

    def describe(self, num_jobs: int) -> list[str]:
        """Return what will be done and why, in a few lines for people."""
        if not self.rows:
            return ["Nothing to do: the CSV has no rows"]
        pending, num_not_tried = self.pending, len(self.not_tried)
        num_done = len(self.rows) - len(pending) - num_not_tried
        lines = [
            f"{len(self.rows)} rows: {num_done} done, {len(pending)} pending in {num_jobs} jobs"
        ]
        if num_not_tried:
            lines.append(
                f"{num_not_tried:>8} failed before and are not tried (retry_failed: false)"
            )
        for why, count in Counter(target.why for target in pending).most_common():
            lines.append(f"{count:>8} {why}")
        if pending and self.weights.identity == RANDOM:
            lines.append(
                "WARNING: random weights: these features mean nothing, and are for trying out"
            )
        if pending and self.weights.identity is None:
            lines.append(f"WARNING: {self.weights.origin}: these weights are not there yet")
        return lines


ALL = Request()


def make_plan(config: Mapping[str, Any], request: Request = ALL) -> Plan:
    """Look at all that decides what is to be done.

    Args:
        config: as it was given; it is checked here.

    Raises:
        UserError: with every problem of the configuration, the CSV and the folders in it.
    """
    checked, rows = _read_config_and_rows(config)
    selected = _select(rows, request.feature_paths)
    rows = rows if selected is None else selected
    weights, recipes = find_recipes(checked)
    records = read_records(checked.results)
    forced: Container[str] = ()
    if request.is_all_forced or request.forced:
        paths = {os.path.abspath(path): path for row in rows for path in row.feature_paths}
        forced = {p for key, p in paths.items() if request.is_all_forced or key in request.forced}
    pending = find_pending(rows, recipes, records, forced=forced)
    is_whole = selected is None and not forced
    not_tried: list[Target] = []
    if is_whole and not checked.retry_failed:
        not_tried = [target for target in pending if target.fails_again]
        pending = [target for target in pending if not target.fails_again]
    return Plan(checked, rows, is_whole, recipes, weights, records, pending, not_tried)


def check_config(config: Mapping[str, Any]) -> Config:
    """Return a configuration that can be used.

    Raises:
        UserError: with everything that is wrong with it.
    """
    if problems := config_problems(config) + recipe_problems(config):
        raise UserError(problems)
    return Config.from_config(config)


def find_recipes(config: Config) -> tuple[Weights, tuple[Recipe, ...]]:
    """Return the weights that are asked for, and what makes the feature files of each row."""
    weights = find_weights(config.backbone, config.weights)
    return weights, (Recipe.from_settings(config, str(weights.shared_path)),)


def _read_config_and_rows(config: Mapping[str, Any]) -> tuple[Config, list[Row]]:
    problems: list[str] = []
    rows: list[Row] = []
    try:
        checked = check_config(config)
    except UserError as error:
        problems += error.problems
    videos = config.get("videos", Config.model_fields["videos"].default)
    if isinstance(videos, str):
        try:
            rows = read_rows(videos)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return checked, rows


def _select(rows: list[Row], feature_paths: frozenset[str] | None) -> list[Row] | None:
    """Return the rows of these feature files; None for all, or where one of them is no row's."""
    if feature_paths is None:
        return None
    selected = [
        row
        for row in rows
        if any(os.path.abspath(path) in feature_paths for path in row.feature_paths)
    ]
    # Others than these are of other rules, or of none: Snakemake will know.
    return selected if len(selected) == len(feature_paths) else None


def find_pending(
    rows: Sequence[Row],
    recipes: Sequence[Recipe],
    records: Records,
    *,
    forced: Container[str] = (),
) -> list[Target]:
    """Return the feature files that are not done, in the order of the CSV.

    One is done if it exists and is not stale. It is stale if it was made with other settings or
    weights by the record of it, or if its video has changed since: by the size and mtime in the
    record, or, without a record, by being newer than the feature file. A video that has been
    deleted since changes nothing.

    Args:
        recipes: of each row's feature files.
        forced: feature paths that are pending whatever their state.

    Raises:
        UserError: a feature path is a folder.
    """
    # As they would come back from a record.
    numerics = [json.loads(json.dumps(recipe.numerics)) for recipe in recipes]

    @cache  # a changed setting is the same for thousands of rows
    def difference(old_digest: str, number: int) -> str:
        return _difference(records.settings.get(old_digest), numerics[number])

    def why(
        source: Source, path: str, feature: os.stat_result, number: int
    ) -> tuple[str, str] | None:
        if path in forced:
            return FORCED, ""
        recipe, record = recipes[number], records.of_file(path)
        reason = _staleness(source, feature, record, recipe)
        if reason is None:
            return None
        if record is not None and reason == OTHER_SETTINGS:
            return reason, difference(record.digest, number)
        if record is not None and reason == OTHER_WEIGHTS:
            return reason, f"{record.weights} → {recipe.weights_id}"
        return reason, ""

    def look(row: Row) -> list[Target | str]:
        """Return what is pending of a row, or what is wrong with it."""
        outcomes: list[Target | str] = []
        for number, path in enumerate(row.feature_paths):
            feature = stat_or_none(path)
            if feature is not None and stat.S_ISDIR(feature.st_mode):
                outcomes.append(f"{path}: is a folder; a feature_path must be a file")
                continue
            reason = (MISSING, "") if feature is None else why(row.source, path, feature, number)
            if reason is None:
                continue
            failed = records.failure_of(path)
            outcomes.append(
                Target(
                    row.source,
                    path,
                    feature is not None,
                    *reason,
                    failed.reason if failed else "",
                    failed is not None and _is_same_attempt(row.source, failed, recipes[number]),
                    feature.st_mtime_ns if feature else None,
                    number,
                )
            )
        return outcomes

    pending, problems = [], []
    for outcomes in threaded_map(look, rows):
        for outcome in outcomes:
            if isinstance(outcome, Target):
                pending.append(outcome)
            else:
                problems.append(outcome)
    if problems:
        raise UserError(problems)
    return pending


def _is_same_attempt(source: Source, record: Record, recipe: Recipe) -> bool:
    """Whether a record is of this video as it is now, with these settings and weights."""
    if record.digest != recipe.digest:
        return False
    if recipe.weights_id is not None and record.weights != recipe.weights_id:
        return False
    video = stat_or_none(source.path)
    now = (video.st_size, video.st_mtime_ns) if video else (None, None)
    return (record.video_size, record.video_mtime_ns) == now


def _staleness(
    source: Source, feature: os.stat_result, made: Record | None, recipe: Recipe
) -> str | None:
    """Return why an existing feature file has to be made again, or None.

    Args:
        made: the record of it, if there is one.
    """
    if made and made.digest != recipe.digest:
        return OTHER_SETTINGS
    if made and recipe.weights_id is not None and made.weights != recipe.weights_id:
        return OTHER_WEIGHTS
    video = stat_or_none(source.path)
    if video is None:
        return None
    if made:
        same = (made.video_size, made.video_mtime_ns) == (video.st_size, video.st_mtime_ns)
        return None if same else CHANGED
    return OLDER if feature.st_mtime_ns < video.st_mtime_ns else None


def _difference(before: dict[str, Any] | None, after: dict[str, Any]) -> str:
    if before is None:
        return ""
    keys = sorted(before.keys() | after.keys())
    changed = [key for key in keys if before.get(key) != after.get(key)]
    return ", ".join(f"{key}: {before.get(key)} → {after.get(key)}" for key in changed)


def list_pending(pending: Sequence[Target], max_shown: int, path: Path) -> Iterator[str]:
    """Yield a line for each pending row; for no more than the first ones, if they are many, and
    where all of them stand: a CSV that this writes to `path`."""
    yield from map(str, pending[:max_shown])
    if len(pending) <= max_shown:
        return
    num_more = f"… and {len(pending) - max_shown:,} more"
    try:
        with replace_text(path, errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(PENDING_COLUMNS)
            for target in pending:
                writer.writerow(
                    [target.source.path, target.feature_path, target.why, target.failure]
                )
    except OSError as error:
        yield f"{num_more} ({path}: {error.strerror})"
    else:
        yield f"{num_more}: all of them are in {path}"
