"""The manifest: each row of the CSV with its state, from the disk and the records."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from videofeatures.errors import UserError, describe_os_error
from videofeatures.files import replace_text, text_cell
from videofeatures.listing import Look
from videofeatures.planning.plan import Plan, Target, make_plan
from videofeatures.planning.rows import Row
from videofeatures.records import Record
from videofeatures.results import leave_copy, work_folder
from videofeatures.source import part_cells
from videofeatures.threaded import threaded_map

STATES = ("done", "failed", "missing", "pending")
"""Of a row: its feature file is there and up to date; it failed when it was tried last; its video
is not there; it has yet to be done. Where a row is not done, its feature file may be there all the
same, and stale: the column `stale` says why."""

COLUMNS = (
    "video_path",
    "feature_path",
    "backbone",
    "start_seconds",
    "end_seconds",
    "state",
    "reason",
    "stale",
    "num_features",
    "feature_dim",
    "duration_seconds",
    "seconds",
    "damaged_share",
    "ffmpeg_lines",
    "fallback",
)
NUM_FACTS = 7
"""Of these, the last ones, which a record fills."""


def manifest_path(results: str | os.PathLike) -> Path:
    """Return the path of a run's manifest; of results in a bucket, that of which it has a copy."""
    return work_folder(results) / "manifest.csv"


def write_manifest(plan: Plan) -> Counter[str]:
    """Write the manifest of a whole plan, unless it is there as it would be written; return how
    many feature files are in each state.

    Raises:
        OSError: it cannot be written.
    """
    counts: Counter[str] = Counter()
    path = manifest_path(plan.config.results)
    with replace_text(path, tidy=True, keep_same=True, errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for state, line in _lines(plan):
            writer.writerow(line)
            counts[state] += 1
    return counts


def make_manifest(plan: Plan) -> str:
    """Write the manifest, and leave a copy in the bucket, where the results are in one; return the
    counts of states and where to look, in one line.

    Raises:
        OSError: it cannot be written.
    """
    counts, results = write_manifest(plan), plan.config.results
    parts = ", ".join(f"{counts[state]} {state}" for state in STATES)
    return f"{parts}: {leave_copy(results, manifest_path(results))} lists every row"


def try_write_manifest(config: Mapping[str, Any], plan: Plan | None = None) -> str:
    """Make the manifest of a run; return a line about it, also if it cannot be written.

    Args:
        plan: of all rows as they are now, if there is one at hand.
    """
    try:
        return make_manifest(plan if plan is not None and plan.is_whole else make_plan(config))
    except UserError as error:  # the CSV has changed meanwhile, say
        return f"the manifest cannot be written: {error}"
    except OSError as error:
        return f"the manifest cannot be written: {describe_os_error(error)}"


def _lines(plan: Plan) -> Iterator[tuple[str, list[object]]]:
    """Yield the state and the cells of each feature file."""
    target_of = {target.feature_path: target for target in plan.not_done}

    def states_of(row: Row) -> list[str]:
        return [_state(target_of.get(path), plan.look) for path in row.feature_paths]

    for row, states in zip(plan.rows, threaded_map(states_of, plan.rows), strict=True):
        for recipe, path, state in zip(plan.recipes, row.feature_paths, states, strict=True):
            target, record = target_of.get(path), None
            reason = stale = ""
            if target is None:
                record = plan.records.of_file(path)  # none of a file that was made elsewhere
                reason = record.reason if record else ""
            else:
                stale = target.why if target.stale else ""
                failure = plan.records.failure_of(path)
                record = failure if state == "failed" else None
                reasons = {"missing": "no such file", "failed": target.failure}
                if failure is not None and failure.is_machine:
                    reasons["pending"] = f"{target.why}; the machine failed: {failure.reason}"
                reason = reasons.get(state, target.why)
            texts = (text_cell(reason), text_cell(stale))
            cells = [row.source.shown_path, path, recipe.name, *part_cells(row.source), state]
            yield state, [*cells, *texts, *_facts(record)]


def _state(target: Target | None, look: Look) -> str:
    """Return the state of a feature file, as a target if it is pending."""
    if target is None:
        return "done"
    if look(target.source.path) is None:
        return "missing"
    return "failed" if target.fails_again else "pending"


def _facts(record: Record | None) -> list[object]:
    """Return the cells that a record fills."""
    if record is None:
        return [""] * NUM_FACTS
    facts = (
        record.num_features,
        record.feature_dim,
        record.duration_seconds,
        record.seconds,
        record.damaged_share,
    )
    complaints = text_cell(" | ".join(record.ffmpeg_lines))
    return [
        *("" if fact is None else fact for fact in facts),
        complaints,
        text_cell(record.fallback or ""),
    ]
