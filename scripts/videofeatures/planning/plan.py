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
from videofeatures.files import replace_text, text_cell
from videofeatures.listing import FileStat, Look, look_at, look_at_all
from videofeatures.networks.named_recipes import split_config
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
from videofeatures.remote import RemoteStat
from videofeatures.results import work_folder
from videofeatures.settings import Config, Trust, config_problems
from videofeatures.source import Source, part_cells
from videofeatures.threaded import threaded_map
from videofeatures.urls import absolute, is_url, parse_schemes, redact, url_problem

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
        feature_etag: of a stale one that is not on a disk, in place of its time.
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
    feature_etag: str = ""

    @property
    def is_done(self) -> bool:
        """Somebody has made it since this was planned."""
        return self.is_done_by(look_at)

    def is_done_by(self, look: Look) -> bool:
        """Whether somebody has made it since this was planned, by a look at its file.

        Raises:
            VideoError: a storage cannot be asked.
        """
        now = look(self.feature_path)
        if self.stale:
            if isinstance(now, RemoteStat) and now.etag and self.feature_etag:
                return now.etag != self.feature_etag
            return now is not None and self.feature_mtime_ns not in (None, now.st_mtime_ns)
        # A link that led nowhere may lead to the file of another row by now.
        return now is not None and (
            is_url(self.feature_path) or not os.path.islink(self.feature_path)
        )

    @property
    def replaces(self) -> RemoteStat | None:
        """What its object is, which is to be replaced; None where there is none."""
        if not self.stale or not is_url(self.feature_path):
            return None
        return RemoteStat(0, self.feature_mtime_ns or 0, self.feature_etag)

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
    return frozenset(absolute(name) for name in names if name.endswith(FEATURE_SUFFIXES))


@dataclass(frozen=True)
class Plan:
    """What is to be done, and what is known of what is done.

    Attributes:
        config: checked; of keys that each recipe may have of its own, those of the first.
        rows: those that are asked for.
        num_files: feature files of these that are asked for.
        is_whole: these are all rows of the CSV, and nothing is forced.
        recipes: that feature files are made by.
        weights: that they need, each once.
        records: of earlier processes.
        pending: feature files to make, in the order of the CSV.
        not_tried: those that would fail as they did before, and are left alone.
        look: at the videos and features of its rows; those in buckets are as they were.
    """

    config: Config
    rows: Sequence[Row]
    num_files: int
    is_whole: bool
    recipes: tuple[Recipe, ...]
    weights: tuple[Weights, ...]
    records: Records
    pending: list[Target]
    not_tried: list[Target]
    look: Look

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
        num_done = self.num_files - len(pending) - num_not_tried
        of_rows = ""
        if len(self.recipes) > 1:
            names = ", ".join(recipe.name for recipe in self.recipes)
            of_rows = f", {self.num_files} feature files, of {names}"
        lines = [
            f"{len(self.rows)} rows{of_rows}: {num_done} done, {len(pending)} pending in "
            f"{num_jobs} jobs"
        ]
        if num_not_tried:
            lines.append(
                f"{num_not_tried:>8} failed before and are not tried (retry_failed: false)"
            )
        for why, count in Counter(target.why for target in pending).most_common():
            lines.append(f"{count:>8} {why}")
        if interrupted := list(
            dict.fromkeys(str(target.source) for target in pending if target.num_interrupted)
        ):
            shown = ", ".join(interrupted[:MAX_NAMED])
            more = " …" if len(interrupted) > MAX_NAMED else ""
            lines.append(
                f"{len(interrupted):>8} were in work when a process was killed, and get jobs of "
                f"their own: {shown}{more}"
            )
        if pending and any(weights.identity == RANDOM for weights in self.weights):
            lines.append(
                "WARNING: random weights: these features mean nothing, and are for trying out"
            )
        missing = [weights.origin for weights in self.weights if weights.identity is None]
        if pending:
            lines += [f"WARNING: {origin}: these weights are not there yet" for origin in missing]
        return lines


ALL = Request()


def make_plan(config: Mapping[str, Any], request: Request = ALL) -> Plan:
    """Look at all that decides what is to be done.

    Args:
        config: as it was given; it is checked here.

    Raises:
        UserError: with every problem of the configuration, the CSV and the folders in it.
    """
    configs, rows = _read_config_and_rows(config)
    checked = next(iter(configs.values()))
    selected = _select(rows, request.feature_paths)
    rows = rows if selected is None else selected
    weights, recipes = find_recipes(configs)
    records = read_records(checked.results)
    forced: Container[str] = ()
    if request.is_all_forced or request.forced:
        paths = {absolute(path): path for row in rows for path in row.feature_paths}
        forced = {p for key, p in paths.items() if request.is_all_forced or key in request.forced}
    look = look_at_all(paths_of(rows))
    pending = find_pending(rows, recipes, records, forced=forced, trust=checked.trust, look=look)
    num_files = len(rows) * len(recipes)
    if selected is not None and request.feature_paths is not None:
        num_files = len(request.feature_paths)
        pending = [one for one in pending if absolute(one.feature_path) in request.feature_paths]
    is_whole = selected is None and not forced
    not_tried: list[Target] = []
    if is_whole and not checked.retry_failed:
        not_tried = [target for target in pending if target.fails_again]
        pending = [target for target in pending if not target.fails_again]
    return Plan(
        checked, rows, num_files, is_whole, recipes, weights, records, pending, not_tried, look
    )


def check_config(config: Mapping[str, Any]) -> dict[str, Config]:
    """Return a configuration that can be used, for each recipe, by its name. What recipes do not
    have of their own is the same in all.

    Raises:
        UserError: with everything that is wrong with it.
    """
    split = split_config(config)
    shared = config_problems({key: value for key, value in config.items() if key != "backbone"})
    problems = list(shared)
    for name, own in split.items():
        where = f"configuration: {name}: " if len(split) > 1 else "configuration: "
        problems += (
            problem.replace("configuration: ", where, 1)
            for problem in config_problems(own) + recipe_problems(own)
            if problem not in shared
        )
    if problems:
        raise UserError(problems)
    return {name: Config.from_config(own) for name, own in split.items()}


def find_recipes(
    configs: Mapping[str, Config],
) -> tuple[tuple[Weights, ...], tuple[Recipe, ...]]:
    """Return the weights that are asked for, each once, and what makes the feature files of each
    row.

    Args:
        configs: of each recipe, by its name.
    """
    weights = {name: find_weights(own.backbone, own.weights) for name, own in configs.items()}
    recipes = (
        Recipe.from_settings(own, str(weights[name].shared_path), name)
        for name, own in configs.items()
    )
    return tuple(dict.fromkeys(weights.values())), tuple(recipes)


def _read_config_and_rows(
    config: Mapping[str, Any],
) -> tuple[dict[str, Config], list[Row]]:
    problems: list[str] = []
    rows: list[Row] = []
    own_paths: dict[str, str] = {}
    configs: dict[str, Config] = {}
    names: Sequence[str] = ()
    try:
        names = tuple(split_config(config))
        configs = check_config(config)
        checked = list(configs.values())
        own_paths = find_own_paths(checked)
        problems += _problems_of_folders(checked[0])
    except UserError as error:
        problems += error.problems
    videos = config.get("videos", Config.model_fields["videos"].default)
    if isinstance(videos, str) and names:
        try:
            schemes = parse_schemes(next(iter(configs.values())).allowed_schemes) if configs else ()
            rows = read_rows(videos, names, own_paths=own_paths, allowed_schemes=schemes)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return configs, rows


def _problems_of_folders(config: Config) -> list[str]:
    """Return what is wrong with the folders that a configuration names."""
    problems = []
    results, problem = config.results, None
    if is_url(results):
        schemes = parse_schemes(config.allowed_schemes)
        problem = url_problem(results, schemes, is_folder=True)
    if problem := problem or folder_problem(work_folder(results)):
        problems.append(f"configuration: results: {problem}")
    if config.scratch and is_url(config.scratch):
        problems.append(
            f"configuration: scratch: {redact(config.scratch)} is a URL. Name a folder of a disk"
        )
    return problems


def _select(rows: list[Row], feature_paths: frozenset[str] | None) -> list[Row] | None:
    """Return the rows of these feature files; None for all, or where one of them is no row's."""
    if feature_paths is None:
        return None
    selected, num_found = [], 0
    for row in rows:
        num_of_row = sum(absolute(path) in feature_paths for path in row.feature_paths)
        if num_of_row:
            selected.append(row)
            num_found += num_of_row
    # Others than these are of other rules, or of none: Snakemake will know.
    return selected if num_found == len(feature_paths) else None


def find_pending(
    rows: Sequence[Row],
    recipes: Sequence[Recipe],
    records: Records,
    *,
    forced: Container[str] = (),
    trust: Trust = "time",
    look: Look = look_at,
) -> list[Target]:
    """Return the feature files that are not done, in the order of the CSV.

    One is done if it exists and is not stale: see `Staleness`.

    Args:
        recipes: of each row's feature files.
        forced: feature paths that are pending whatever their state.
        trust: what tells that a video has changed: see `Staleness`.
        look: at the videos and features.

    Raises:
        UserError: a feature path is a folder, a pipe or a device.
    """
    staleness = Staleness(recipes, records, trust, look)

    @cache
    def real_paths() -> frozenset[str]:
        places = Places()
        return frozenset(places.find(path) for row in rows for path in row.feature_paths)

    def is_of_another_row(path: str) -> bool:
        return os.path.realpath(path) in real_paths()

    def why(
        source: Source, path: str, feature: FileStat | None, number: int
    ) -> tuple[str, str] | None:
        if feature is None:
            return MISSING, ""
        if path in forced:
            return FORCED, ""
        # One that is recorded was made here, and the link was made afterwards.
        is_made_elsewhere = path not in records.last and not is_url(path)
        if is_made_elsewhere and os.path.islink(path) and is_of_another_row(path):
            return LINK, ""
        return staleness.why(source, path, feature, number)

    def look_at_row(row: Row) -> list[Target | str]:
        """Return what is pending of a row, or what is wrong with it."""
        outcomes: list[Target | str] = []
        for number, path in enumerate(row.feature_paths):
            feature = look(path)
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
                    and _is_same_attempt(row.source, failed, recipes[number], trust, look),
                    feature.st_mtime_ns if feature else None,
                    number,
                    num_interrupted,
                    feature.etag if isinstance(feature, RemoteStat) else "",
                )
            )
        return outcomes

    pending, problems = [], []
    for outcomes in threaded_map(look_at_row, rows):
        for outcome in outcomes:
            if isinstance(outcome, Target):
                pending.append(outcome)
            else:
                problems.append(outcome)
    if problems:
        raise UserError(problems)
    return pending


def _is_same_attempt(
    source: Source, record: Record, recipe: Recipe, trust: Trust, look: Look
) -> bool:
    """Whether a failure was that of this part of this video as it is now, with these settings and
    weights."""
    if record.is_machine or find_difference(record, recipe):
        return False
    return is_same_part(record, source) and is_same_video(record, look(source.path), trust)


def paths_of(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the paths of the videos and the features of rows."""
    for row in rows:
        yield row.source.path
        yield from row.feature_paths


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
                writer.writerow(
                    [source.shown_path, target.feature_path, *part_cells(source), *texts]
                )
    except OSError as error:
        yield f"{num_more} ({path}: {error.strerror})"
    else:
        yield f"{num_more}: all of them are in {path}"
