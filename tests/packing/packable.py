"""A collection with features that differ, as jobs write them, to be packed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np

from conftest import make_recipe, write_csv, write_line
from small_collection import SmallCollection
from videofeatures.decoding.times import RowTimes
from videofeatures.extraction.storage import write_features
from videofeatures.files import HASH_DIGITS, hash_file
from videofeatures.packing.pack import OPTIONS, Options, Outcome, Packer
from videofeatures.packing.sample import Part, Sample, hash_arrays
from videofeatures.records import Recorder
from videofeatures.settings import Settings

DIM = 1280
"""Of the collection's backbone, EfficientNet-Lite0."""


def some_features(seed: int, num_rows: int = 3, dtype: str = "float16") -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_rows, DIM)).astype(dtype)


def some_times(num_rows: int) -> RowTimes:
    starts = np.arange(num_rows, dtype=np.float64)
    return RowTimes(starts, starts + 0.5, starts + 1)


def make_sample(key: str, *arrays: tuple[str, np.ndarray, np.ndarray | None]) -> Sample:
    """A sample of parts: name, features and times of each."""
    parts = tuple(Part(*each) for each in arrays)
    provenance = {
        "key": key,
        "features": {part.name: {} for part in parts},
        "content_hash": hash_arrays(parts),
        "fingerprint": "f" * 16,
    }
    return Sample(key, parts, json.dumps(provenance, ensure_ascii=False))


class Packable(SmallCollection):
    """Rows whose feature files are `.npz` where their names end so.

    Attributes:
        ends: what is recorded of one that is done.
    """

    ends: tuple[str, ...] = ("done",)

    def feature(self, name: str) -> Path:
        stem, suffix = os.path.splitext(name)
        return self.folder / "features" / f"{stem}{suffix if suffix == '.npz' else '.npy'}"

    def add(self, *names: str) -> None:
        for name in names:
            self.video(name).parent.mkdir(parents=True, exist_ok=True)
        super().add(*names)

    def write(self, name: str, features: np.ndarray) -> None:
        """A feature file, of which nobody knows."""
        self.feature(name).parent.mkdir(parents=True, exist_ok=True)
        write_features(self.feature(name), features, some_times(len(features)), {})

    def extract(self, name: str, seed: int = 0, num_rows: int = 3, **facts: object) -> None:
        """A feature file, and the record of it."""
        self.write(name, some_features(seed, num_rows))
        facts = {"num_features": num_rows, "feature_dim": DIM, "reason": ""} | facts
        self.record(name, *self.ends, file_hash=self.hash(name), **facts)

    def add_done(self, *names: str) -> None:
        self.add(*names)
        for name in names:
            self.extract(name, seed=len(name) + sum(map(ord, name)))

    def hash(self, name: str) -> str | None:
        return hash_file(self.feature(name))

    def array(self, name: str) -> np.ndarray:
        loaded = np.load(self.feature(name))
        return loaded if isinstance(loaded, np.ndarray) else loaded["features"]

    def key(self, name: str) -> str:
        return str(self.video(name)).lstrip("/")

    def pack(self, pack_format: str, output: str | Path, **options: object) -> Outcome:
        changes = {key: options.pop(key) for key in set(options) - set(OPTIONS)}
        given = Options(format=pack_format, output=str(output), **options)
        return Packer(self.plan(**changes), given, lambda line: None).pack()


class PackableInBucket(Packable):
    """Rows whose feature files are in a bucket."""

    ends = ("done", "placed")

    def __init__(self, folder: Path, server):
        super().__init__(folder)
        self.server = server
        self.config["allowed_schemes"] = "s3"

    def object_key(self, name: str) -> str:
        return super().feature(name).relative_to(self.folder).as_posix()

    def feature(self, name: str) -> str:
        return f"s3://bucket/{self.object_key(name)}"

    def content(self, name: str) -> bytes:
        return self.server.get(self.object_key(name))

    def write(self, name: str, features: np.ndarray, provenance: dict | None = None) -> None:
        path = self.folder / f"x{os.path.splitext(self.object_key(name))[1]}"
        write_features(path, features, some_times(len(features)), provenance or {})
        self.server.put(self.object_key(name), path.read_bytes())

    def hash(self, name: str) -> str:
        return hashlib.sha256(self.content(name)).hexdigest()[:HASH_DIGITS]

    def array(self, name: str) -> np.ndarray:
        loaded = np.load(io.BytesIO(self.content(name)))
        return loaded if isinstance(loaded, np.ndarray) else loaded["features"]


class TwoRecipes(Packable):
    """Rows of two networks."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.backbones = ["efficientnet_lite0", "resnext101"]
        self.config["backbone"] = self.backbones

    def feature_of(self, name: str, backbone: str) -> Path:
        return self.folder / "features" / backbone / f"{name}.npz"

    def add_two(self, *names: str) -> None:
        rows = []
        for name in names:
            self.video(name).write_text("video")
            rows.append((self.video(name), self.feature_of(name, "{backbone}")))
        write_csv(Path(self.config["videos"]), rows)

    def extract_of(self, name: str, backbone: str, features: np.ndarray) -> None:
        path = self.feature_of(name, backbone)
        write_features(path, features, some_times(len(features)), {})
        recipe, stat = make_recipe(Settings(backbone=backbone)), self.video(name).stat()
        with Recorder(self.results, "job") as recorder:
            write_line(recorder, "process", digest=recipe.digest, settings=recipe.numerics)
            write_line(
                *(recorder, "done", path),
                digest=recipe.digest,
                weights="random",
                video_size=stat.st_size,
                video_mtime_ns=stat.st_mtime_ns,
                file_hash=hash_file(path),
                num_features=len(features),
                feature_dim=features.shape[-1],
            )
            write_line(recorder, "end")


def killed_at(event: int, do: Callable[[], object]) -> bool:
    """Do something in a process that is killed at its so many-th step of writing; return whether it
    was.

    Steps are: before and after a file is synced, takes its place or is removed, and each member or
    group that is begun.
    """
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WIFSIGNALED(status)
    status = 1
    with contextlib.suppress(BaseException):
        _kill_at(event)
        do()
        status = 0
    os._exit(status)


def _kill_at(event: int) -> None:
    import tarfile

    import h5py

    num_left = event

    def step() -> None:
        nonlocal num_left
        num_left -= 1
        if num_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(function: Callable) -> Callable:
        def call(*args, **options):
            step()
            result = function(*args, **options)
            step()
            return result

        return call

    for name in ("fsync", "replace", "unlink", "rmdir"):
        setattr(os, name, watched(getattr(os, name)))
    tarfile.TarFile.addfile = watched(tarfile.TarFile.addfile)
    h5py.Group.create_group = watched(h5py.Group.create_group)
    h5py.Group.copy = watched(h5py.Group.copy)
