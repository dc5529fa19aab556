"""A sample: the features of one row, when they are of, and what they were made with."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np

from videofeatures.decoding.times import RowTimes
from videofeatures.errors import VideoError
from videofeatures.files import HASH_DIGITS, stat_or_none
from videofeatures.listing import Look
from videofeatures.packing.kinds import Made
from videofeatures.planning.rows import Row
from videofeatures.records import Record
from videofeatures.remote import RemoteStat, open_file

NUM_READERS = 8
"""Files that are read ahead at a time, in threads of their own: what the memory is bounded by,
beside the largest sample. More would wait for Python's lock."""

RECORD_FIELDS = (
    *("num_features", "feature_dim", "duration_seconds", "damaged_share", "ffmpeg_lines"),
    *("reason", "fallback", "video_size", "video_mtime_ns", "time", "seconds"),
)
"""Facts of a record that a sample keeps, where they are known."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class UnreadableError(Exception):
    """A row that was done cannot be packed; the others can. Says why, in a phrase for people."""


class Part(NamedTuple):
    """What one recipe made of a video.

    Attributes:
        name: of the recipe.
        features: (rows, …, feature_dim), as they are stored.
        times: (rows, 3), float64: when what each row saw starts, its middle, and its end, in
            seconds from the container's zero; None where the feature file does not say it.
    """

    name: str
    features: np.ndarray
    times: np.ndarray | None

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What is stored, by name."""
        return {"features": self.features} | ({} if self.times is None else {"times": self.times})


class Sample(NamedTuple):
    """What is stored of one row.

    Attributes:
        parts: of each recipe.
        provenance: JSON: see `read_sample`.
    """

    key: str
    parts: tuple[Part, ...]
    provenance: str

    @property
    def num_bytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for part in self.parts for array in part.arrays.values())

    @property
    def fault(self) -> str | None:
        """What is not as it was when the sample was made, or None."""
        try:
            provenance = json.loads(self.provenance)
            key, hashed = provenance["key"], provenance["content_hash"]
        except (ValueError, TypeError, KeyError) as error:
            return f"its provenance cannot be read: {error!r}"
        if key != self.key:
            return f"it is the sample {key}"
        return None if hashed == hash_arrays(self.parts) else "its numbers are others"


class Candidate(NamedTuple):
    """A row that is done, and what is known of its feature files.

    Attributes:
        records: of each of them; None where nothing tells of it.
    """

    key: str
    row: Row
    records: tuple[Record | None, ...]

    def fingerprint(self, names: Sequence[str], look: Look = stat_or_none) -> str:
        """Return a short hash of what is packed: the source, and the feature file of each
        recipe, by the hash in its record, or else by its size and time of change.

        Args:
            names: of the recipes.
            look: at feature files of which nothing tells.
        """
        identities = (
            _identity(path, record, look)
            for path, record in zip(self.row.feature_paths, self.records, strict=True)
        )
        # A URL that is signed anew is that of the same video.
        source = self.row.source._replace(path=self.row.source.shown_path)
        text = json.dumps([source, sorted(zip(names, identities, strict=True))])
        return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def _identity(path: str, record: Record | None, look: Look) -> list[int | str | None]:
    if record is not None and record.file_hash is not None:
        return [record.file_hash]
    found = look(path)
    if found is None:
        return [None]
    etag = [found.etag] if isinstance(found, RemoteStat) else []
    return [found.st_size, found.st_mtime_ns, *etag]


def read_sample(
    candidate: Candidate, names: Sequence[str], made: Sequence[Made], fingerprint: str
) -> Sample:
    """Return what is to be stored of a row.

    Its provenance is a JSON object: `key`, `video_path`, `start_seconds` and `end_seconds` of a
    part, `features` with the backbone, weights, digest, settings and facts of the record of each
    recipe, by its name, `content_hash` of the numbers, and `fingerprint`.

    Args:
        names: of the recipes.
        made: what is known of how each of its feature files was made.

    Raises:
        UnreadableError: a feature file is gone, or is not that of its record.
    """
    parts, facts = [], {}
    row = candidate.row
    for name, path, record, made_with in zip(
        names, row.feature_paths, candidate.records, made, strict=True
    ):
        part, file_hash = _read_part(name, path, record)
        parts.append(part)
        stored = {"dtype": part.features.dtype.str, "shape": part.features.shape}
        facts[name] = _facts(path, file_hash, record, made_with) | stored
    bounds = zip(("start_seconds", "end_seconds"), row.source.part, strict=True)
    provenance = {
        "key": candidate.key,
        "video_path": row.source.shown_path,
        **{name: seconds for name, seconds in bounds if seconds is not None},
        "features": facts,
        "content_hash": hash_arrays(parts),
        "fingerprint": fingerprint,
    }
    return Sample(candidate.key, tuple(parts), json.dumps(provenance, ensure_ascii=False))


def _read_part(name: str, path: str, record: Record | None) -> tuple[Part, str]:
    """Return what a feature file holds, and its hash, from one look at it."""
    try:
        with open_file(path) as file:
            content = file.read()
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror or error}") from None
    except VideoError as error:
        raise UnreadableError(f"{path}: {error.reason}") from None
    file_hash = hashlib.sha256(content).hexdigest()[:HASH_DIGITS]
    if record is not None and record.file_hash not in (None, int(file_hash, 16)):
        raise UnreadableError(f"{path}: is not the file that its record tells of")
    times = None
    try:
        loaded = np.load(io.BytesIO(content), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            features = loaded
        else:
            with loaded:
                features = loaded["features"]
                if all(field in loaded for field in RowTimes._fields):
                    times = np.stack([loaded[field] for field in RowTimes._fields], axis=1)
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UnreadableError(f"{path}: is not a feature file: {error}") from None
    if features.dtype.kind != "f" or features.ndim < 2:
        raise UnreadableError(f"{path}: {features.dtype} {features.shape} are no features")
    if times is not None and times.shape != (len(features), len(RowTimes._fields)):
        raise UnreadableError(f"{path}: {len(features)} features, and times of {times.shape}")
    return Part(name, np.ascontiguousarray(features), times), file_hash


def _facts(path: str, file_hash: str, record: Record | None, made: Made) -> dict[str, Any]:
    """Return what is known of one feature file."""
    facts: dict[str, Any] = {"feature_path": path, "file_hash": file_hash}
    if record is not None:
        known = {name: getattr(record, name) for name in RECORD_FIELDS}
        facts |= {name: fact for name, fact in known.items() if fact not in (None, "", ())}
    settings = made.settings or {}
    return facts | {
        "backbone": settings.get("backbone"),
        "weights": made.weights,
        "digest": made.digest,
        "settings": made.settings,
    }


def hash_arrays(parts: Iterable[Part]) -> str:
    """Return a short hash of all numbers, of which kind and shape they are, and whose."""
    digest = hashlib.sha256()
    for part in sorted(parts, key=lambda part: part.name):
        for name, array in part.arrays.items():
            digest.update(f"{part.name} {name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:HASH_DIGITS]


def read_ahead(read: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield what `read` returns for each item, in their order, a few of them ahead.

    Raises:
        Exception: whatever `read` raises.
    """
    ahead: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(NUM_READERS) as pool:
        try:
            for item in items:
                ahead.append(pool.submit(read, item))
                if len(ahead) > NUM_READERS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
