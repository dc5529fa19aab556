"""From a plan to a pack of all rows that are done."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from videofeatures.errors import UserError
from videofeatures.files import path_problem, remove_temporary_files
from videofeatures.packing.hdf5_format import Hdf5Format
from videofeatures.packing.keys import VIDEO_COLUMN, read_keys
from videofeatures.packing.kinds import Kinds, Made, find_made
from videofeatures.packing.pack_format import DamagedError, PackFormat
from videofeatures.packing.sample import (
    Candidate,
    Sample,
    UnreadableError,
    read_ahead,
    read_sample,
)
from videofeatures.packing.shard_files import (
    Shards,
    cut_into_shards,
    find_number,
    locked,
    replace_pack,
    rewrite_shard,
    verify,
    write_shard,
)
from videofeatures.packing.webdataset_format import WebdatasetFormat
from videofeatures.planning.plan import Plan
from videofeatures.threaded import threaded_map
from videofeatures.urls import is_url, redact

FORMATS: dict[str, Callable[[], PackFormat]] = {
    "hdf5": Hdf5Format,
    "webdataset": WebdatasetFormat,
}


@dataclass(frozen=True)
class Options:
    """What is asked for, beside the configuration.

    Attributes:
        format: a key of `FORMATS`.
        output: of HDF5 one file, or with `%06d` in its name several; of webdataset several, or a
            folder of them.
        key: the column of the CSV that names each sample.
        shard_mb: of features, in each of several files, in megabytes at most.
        unrecorded: pack files together of which nothing tells what they were made with.
    """

    format: str
    output: str
    key: str = VIDEO_COLUMN
    shard_mb: int = 500
    unrecorded: bool = False

    @classmethod
    def take_from(cls, config: dict[str, Any]) -> Options:
        """Return what a command line says, and take it out of the configuration.

        Raises:
            UserError: with all that is wrong with it.
        """
        given: dict[str, Any] = {
            name: str(config.pop(name)) for name in OPTIONS if config.get(name) is not None
        }
        problems = [
            f"{name}: say it: python scripts/pack.py videos=my.csv format=hdf5 output=features.h5"
            for name in ("format", "output")
            if not given.get(name)
        ]
        if given.get("format", "hdf5") not in FORMATS:
            problems.append(f"format: {given['format']!r} is none of {', '.join(FORMATS)}")
        output = given.get("output") or "x"
        if problem := path_problem(output):
            problems.append(f"output: {problem}")
        elif is_url(output):
            problems.append(
                f"output: {redact(output)} is a URL. Name a file of a disk: it is read again, and "
                "added to"
            )
        shard_mb, unrecorded = given.get("shard_mb", "1"), given.get("unrecorded", "false").lower()
        if not (shard_mb.isdecimal() and int(shard_mb)):
            problems.append(f"shard_mb: {shard_mb!r} must be a whole number, 1 or more")
        if unrecorded not in ("true", "false"):
            problems.append(f"unrecorded: {unrecorded!r} must be true or false")
        if problems:
            raise UserError(problems)
        if "shard_mb" in given:
            given["shard_mb"] = int(shard_mb)
        return cls(**given | {"unrecorded": unrecorded == "true"})


OPTIONS = tuple(Options.__dataclass_fields__)


class Packed(NamedTuple):
    """What is known of a sample that is in the output.

    Attributes:
        path: of its file.
        fingerprint: see `Candidate`.
    """

    path: Path
    fingerprint: str


class Outcome(NamedTuple):
    """What came of it.

    Attributes:
        num_rows: of the plan.
        num_new: samples that were written, of these num_replaced in place of others.
        num_packed: rows of the plan that are in the output as they are now.
        num_others: samples of which the CSV has no row.
        problems: of rows that are done, and could not be packed.
    """

    num_rows: int
    num_new: int
    num_replaced: int
    num_packed: int
    num_others: int
    problems: Sequence[str]

    def __str__(self) -> str:
        """Return the numbers, in one line for people."""
        parts = [f"{self.num_packed} of {self.num_rows} rows", f"{self.num_new} new"]
        if self.num_replaced:
            parts[-1] += f" ({self.num_replaced} in place of what they were)"
        if self.problems:
            parts.append(f"{len(self.problems)} done and not packed")
        if self.num_others:
            parts.append(f"and {self.num_others} samples that are not in the CSV")
        return ", ".join(parts)


class Packer:
    """Writes one output. Whatever is killed, what is there is complete, and can be continued.

    An output of one file is written in parts, in a folder beside it, and put together at the end,
    in one step. One of many files has one more after another.
    """

    def __init__(self, plan: Plan, options: Options, say: Callable[[str], None]):
        """
        Args:
            say: takes a line for people, now and then.

        Raises:
            UserError: nothing can be written there.
        """
        self._plan, self._options, self._say = plan, options, say
        self._format = FORMATS[options.format]()
        self._names = [recipe.name for recipe in plan.recipes]
        self._kinds = Kinds(keep_unknown=options.unrecorded)
        self._problems: list[str] = []
        output = options.output
        is_folder = output.endswith(os.sep) or os.path.isdir(output)
        self._single: Path | None = None
        if not is_folder and find_number(output):
            self._shards = Shards(output)
        elif options.format == "webdataset":
            if not is_folder and Path(output).suffix:
                raise UserError(
                    f"output: {output}: a pack of this format is of several files: let %06d stand "
                    "in the name for the number of each, or name a folder"
                )
            self._shards = Shards(os.path.join(output, f"%06d{self._format.suffix}"))
        elif is_folder:
            raise UserError(f"output: {output}: is a folder. Name a file: features.h5, say")
        else:
            self._single = Path(output)
            self._parts_folder = Path(f"{output}.parts")
            self._shards = Shards(str(self._parts_folder / f"%06d{self._format.suffix}"))

    def pack(self) -> Outcome:
        """Bring the output up to what is done.

        Raises:
            UserError: rows were not made alike, keys are not unique, or the output cannot be
                written, or is something else.
        """
        keys = read_keys(self._plan.rows, self._plan.config.videos, self._options.key)
        with locked(Path(self._options.output)):
            packed = self._read_packed()
            candidates = self._candidates(keys)
            fingerprints = dict(
                threaded_map(
                    lambda one: (one.key, one.fingerprint(self._names, self._plan.look)),
                    candidates,
                )
            )
            todo = [
                one
                for one in candidates
                if one.key not in packed or packed[one.key].fingerprint != fingerprints[one.key]
            ]
            all_made = self._find_how_made(todo)
            self._leave_out(packed, {one.key for one in todo})
            new = self._write(todo, all_made, fingerprints)
            self._put_together()
        in_output = packed.keys() | new
        return Outcome(
            num_rows=len(keys),
            num_new=len(new),
            num_replaced=len(new & packed.keys()),
            num_packed=len(candidates) - len(todo) + len(new),
            num_others=len(in_output - set(keys)),
            problems=self._problems,
        )

    def _read_packed(self) -> dict[str, Packed]:
        """Return what is in the output, by key; of a sample in two files, what comes last."""
        single = [self._single] if self._single is not None and self._single.exists() else []
        packed = {}
        for path in [*single, *self._shards.paths()]:
            try:
                for key, provenance in self._format.read_provenance(path):
                    content = json.loads(provenance)
                    packed[key] = Packed(path, content["fingerprint"])
                    self._check_packed(f"{key}, in {path},", content["features"])
            except (DamagedError, ValueError, TypeError, LookupError, AttributeError) as error:
                raise UserError(
                    f"{path}: is no pack that can be continued: {error}. Name another output, or "
                    "remove it"
                ) from None
        return packed

    def _check_packed(self, what: str, features: Mapping[str, Mapping[str, Any]]) -> None:
        if sorted(features) != sorted(self._names):
            raise UserError(
                f"{what} is of {', '.join(features)}, and this would be of "
                f"{', '.join(self._names)}. Name another output"
            )
        for name, facts in features.items():
            made = Made(facts["digest"], facts["weights"], facts["settings"])
            self._kinds.check_made(name, what, made)
            self._kinds.check_stored(name, what, facts["dtype"], facts["shape"])

    def _candidates(self, keys: Sequence[str]) -> list[Candidate]:
        """Return all rows of which each feature file is done, in their order."""
        not_done = {target.feature_path for target in self._plan.not_done}
        records = self._plan.records
        return [
            Candidate(key, row, tuple(map(records.of_file, row.feature_paths)))
            for key, row in zip(keys, self._plan.rows, strict=True)
            if not_done.isdisjoint(row.feature_paths)
        ]

    def _leave_out(self, packed: Mapping[str, Packed], changed: set[str]) -> None:
        """Take samples that have changed out of files that can only grow by a new one."""
        num_of: Counter[Path] = Counter(one.path for one in packed.values())
        keys_of: defaultdict[Path, set[str]] = defaultdict(set)
        for key in changed & packed.keys():
            keys_of[packed[key].path].add(key)
        for path, keys in keys_of.items():
            if path != self._single:
                rewrite_shard(self._format, path, keys, num_of[path] - len(keys))

    def _find_how_made(self, todo: Sequence[Candidate]) -> list[tuple[Made, ...]]:
        """Return what the feature files of each row were made with.

        Raises:
            UserError: not all of them with the same.
        """
        all_made = list(threaded_map(self._find_made, todo))
        for candidate, made in zip(todo, all_made, strict=True):
            for name, path, one in zip(self._names, candidate.row.feature_paths, made, strict=True):
                self._kinds.check_made(name, path, one)
        return all_made

    def _find_made(self, candidate: Candidate) -> tuple[Made, ...]:
        settings = self._plan.records.settings
        pairs = zip(candidate.row.feature_paths, candidate.records, strict=True)
        return tuple(find_made(path, record, settings) for path, record in pairs)

    def _write(
        self,
        todo: Sequence[Candidate],
        all_made: Sequence[tuple[Made, ...]],
        fingerprints: Mapping[str, str],
    ) -> set[str]:
        """Write new files; return the keys of what they hold."""
        written: set[str] = set()

        def read(pair: tuple[Candidate, tuple[Made, ...]]) -> Sample | UnreadableError:
            candidate, made = pair
            try:
                return read_sample(candidate, self._names, made, fingerprints[candidate.key])
            except UnreadableError as error:
                return error

        def samples() -> Iterator[Sample]:
            found_of_each = read_ahead(read, zip(todo, all_made, strict=True))
            for candidate, found in zip(todo, found_of_each, strict=True):
                if isinstance(found, UnreadableError):
                    self._problems.append(str(found))
                    continue
                for part, path in zip(found.parts, candidate.row.feature_paths, strict=True):
                    dtype, shape = part.features.dtype.str, part.features.shape
                    self._kinds.check_stored(part.name, path, dtype, shape)
                written.add(found.key)
                yield found

        for shard in cut_into_shards(samples(), self._options.shard_mb * 1_000_000):
            path = self._shards.next_path()
            num_samples = write_shard(self._format, path, shard)
            self._say(f"{path}: {num_samples} samples")
        return written

    def _put_together(self) -> None:
        """Make one file of the parts, where the output is one."""
        if self._single is None:
            return
        single, parts, pack_format = self._single, self._shards.paths(), self._format
        assert isinstance(pack_format, Hdf5Format)  # the one that can be one file
        if len(parts) == 1 and not single.exists():
            os.replace(parts[0], single)
        elif parts:
            there = [single] if single.exists() else []
            keys = {key for path in there + parts for key, _ in pack_format.read_provenance(path)}
            replace_pack(
                single,
                lambda file: pack_format.merge(single, parts, file),
                lambda written: verify(pack_format, written, len(keys)),
            )
        for path in parts:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # there is none, or it holds what is not ours
            remove_temporary_files(self._parts_folder, ".")
            self._parts_folder.rmdir()
