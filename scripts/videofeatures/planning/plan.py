"""The plan: which feature files are pending, and why.

From the configuration, the CSV, the disk and the records, each read once; changes nothing. The
workflow, `extract.py`, the manifest, the check and the report start from it.
"""

from __future__ import annotations

import csv
import os
import stat
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from videofeatures.errors import UserError
from videofeatures.files import replace_text, stat_or_none, text_cell
from videofeatures.networks.recipe import Recipe, recipe_problems
from videofeatures.networks.weights import RANDOM, Weights, find_weights
from videofeatures.planning.places import Places
from videofeatures.planning.rows import (
    FEATURE_SUFFIXES,
    Row,
    find_own_paths,
    folder_problem,
    read_rows,
)
from videofeatures.planning.staleness import (
    Staleness,
    find_difference,
    is_same_part,
    is_same_video,
)
from videofeatures.records import Record, Records, read_records
from videofeatures.settings import Config, Trust, config_problems
from videofeatures.source import Source, part_cells
from videofeatures.threaded import threaded_map

MISSING = "no feature file"
LINK = "a link to the feature file of another row"
FORCED = "forced"
INTERRUPTED = "its process was killed while it worked on it"

MAX_NAMED = 5
"""Rows that brought their process down, it may be, which are named."""

PENDING_COLUMNS = (
    *("video_path", "feature_path", "start_seconds", "end_seconds"),
    *("reason", "failed_before"),
)
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
        num_interrupted: processes that were killed while they worked on it, since it ended last.
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
    num_interrupted: int = 0

    @property
    def is_done(self) -> bool:
        """Somebody has made it since this was planned."""
        if self.stale:
            now = stat_or_none(self.feature_path)
            return now is not None and self.feature_mtime_ns not in (None, now.st_mtime_ns)
        # A link that led nowhere may lead to the file of another row by now.
        return os.path.exists(self.feature_path) and not os.path.islink(self.feature_path)

    @property
    def why(self) -> str:
        """Why it has to be made."""
        return self.reason + (f" ({self.detail})" if self.detail else "")

    def __str__(self) -> str:
        failure = f" (failed before: {self.failure})" if self.failure else ""
        return f"{self.feature_path}  ←  {self.source}: {self.why}{failure}"


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
    def run_number(self) -> int:
        """Number of a run of this plan: see `records`."""
        return self.records.run_number + 1

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
        if interrupted := [str(target.source) for target in pending if target.num_interrupted]:
            shown = ", ".join(interrupted[:MAX_NAMED])
            more = " …" if len(interrupted) > MAX_NAMED else ""
            lines.append(
                f"{len(interrupted):>8} were in work when a process was killed, and get jobs of "
                f"their own: {shown}{more}"
            )
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
    pending = find_pending(rows, recipes, records, forced=forced, trust=checked.trust)
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
    own_paths: dict[str, str] = {}
    try:
        checked = check_config(config)
        own_paths = find_own_paths(checked)
        if problem := folder_problem(Path(checked.results)):
            problems.append(f"configuration: results: {problem}")
    except UserError as error:
        problems += error.problems
    videos = config.get("videos", Config.model_fields["videos"].default)
    if isinstance(videos, str):
        try:
            rows = read_rows(videos, own_paths=own_paths)
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
    trust: Trust = "time",
) -> list[Target]:
    """Return the feature files that are not done, in the order of the CSV.

    One is done if it exists and is not stale: see `Staleness`.

    Args:
        recipes: of each row's feature files.
        forced: feature paths that are pending whatever their state.
        trust: what tells that a video has changed: see `Staleness`.

    Raises:
        UserError: a feature path is a folder, a pipe or a device.
    """
    staleness = Staleness(recipes, records, trust)

    @cache
    def real_paths() -> frozenset[str]:
        places = Places()
        return frozenset(places.find(path) for row in rows for path in row.feature_paths)

    def is_of_another_row(path: str) -> bool:
        return os.path.realpath(path) in real_paths()

    def why(
        source: Source, path: str, feature: os.stat_result | None, number: int
    ) -> tuple[str, str] | None:
        if feature is None:
            return MISSING, ""
        if path in forced:
            return FORCED, ""
        # One that is recorded was made here, and the link was made afterwards.
        if path not in records.last and os.path.islink(path) and is_of_another_row(path):
            return LINK, ""
        return staleness.why(source, path, feature, number)

    def look(row: Row) -> list[Target | str]:
        """Return what is pending of a row, or what is wrong with it."""
        outcomes: list[Target | str] = []
        for number, path in enumerate(row.feature_paths):
            feature = stat_or_none(path)
            if feature is not None and not stat.S_ISREG(feature.st_mode):
                kind = "folder" if stat.S_ISDIR(feature.st_mode) else "pipe or a device"
                outcomes.append(f"{path}: is a {kind}; a feature_path must be a file")
                continue
            reason = why(row.source, path, feature, number)
            if reason is None:
                continue
            failed, num_interrupted = records.failure_of(path), records.num_interrupted(path)
            outcomes.append(
                Target(
                    row.source,
                    path,
                    feature is not None,
                    *reason,
                    failed.reason if failed else INTERRUPTED if num_interrupted else "",
                    failed is not None
                    and _is_same_attempt(row.source, failed, recipes[number], trust),
                    feature.st_mtime_ns if feature else None,
                    number,
                    num_interrupted,
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


def _is_same_attempt(source: Source, record: Record, recipe: Recipe, trust: Trust) -> bool:
    """Whether a failure was that of this part of this video as it is now, with these settings and
    weights."""
    if record.is_machine or find_difference(record, recipe):
        return False
    return is_same_part(record, source) and is_same_video(record, stat_or_none(source.path), trust)


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
                source = target.source
                texts = (target.why, text_cell(target.failure))
                writer.writerow([source.path, target.feature_path, *part_cells(source), *texts])
    except OSError as error:
        yield f"{num_more} ({path}: {error.strerror})"
    else:
        yield f"{num_more}: all of them are in {path}"
