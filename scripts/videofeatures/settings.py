"""What the user can set: each key once, with all that checks it and tells of it.

A new key is a new field of `Settings` or `Config`, and `make docs`, which writes what stands in
`config/`. The options of `extract.py` follow by themselves.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WrapValidator

from videofeatures.files import path_problem
from videofeatures.urls import PACKAGES


class Group(Enum):
    """Keys that stand together wherever keys are listed, in this order."""

    WORK = "What to work on"
    NUMBERS = "What changes the numbers: changing one makes every row pending"
    SPEED = "What changes only speed and scheduling"
    TROUBLE = "What can go wrong"


class Key(NamedTuple):
    """What people are told of a key; the text below its field is for `config/README.md`.

    Attributes:
        help: a few words, for `config.yaml`, `schema.yaml`, `--help` and messages.
        unset: what null stands for, if it may be null.
    """

    group: Group
    help: str
    unset: str = ""

    def __str__(self) -> str:
        return f"{self.help}; null: {self.unset}" if self.unset else self.help


def _as_given(value: float, check: Callable[[float], float]) -> float:
    check(value)
    return value


AS_GIVEN = WrapValidator(_as_given)
"""Keeps 2 and 2.0 apart, as digests do: pydantic makes floats of both."""


MAX_SECONDS = 7 * 24 * 60 * 60
"""A week: of what a user may wait for. Threads cannot wait for more than some 292 years."""

PATH = r"^[^\s~\x00](?:[^\x00]*[^\s\x00])?$"
"""As `files.path_problem` has it."""

PATH_OF_OUTPUTS = r"^[^\s~{}\x00](?:[^{}\n\r\x00]*[^\s{}\x00])?$"
"""A path that Snakemake can have in the name of an output, where braces are a wildcard's."""


SCHEMES = rf"^({'|'.join(PACKAGES)})(,\s*({'|'.join(PACKAGES)}))*$"

Trust = Literal["time", "size"]


class Settings(BaseModel):
    """How a row becomes features.

    None means “as the backbone has it” (`frame_rate` to `interpolation`), or “as fits
    the machine” (`batch_size`, `decoders`).

    Raises:
        ValidationError: a value is not what its key needs, or there is no such key.
    """

    # A job checks nothing: what does so is built where it is first used.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)

    backbone: Annotated[
        str,
        # Of several, each is made one before it is checked: see `named_recipes`.
        Field(
            min_length=1,
            json_schema_extra={
                "type": ["string", "array", "object"],
                "items": {"type": "string"},
                "additionalProperties": {"type": ["object", "null"]},
            },
        ),
        Key(
            Group.NUMBERS,
            "resnet152 (2d), resnext101 (3d), efficientnet_lite0 (2d, small), timm:NAME, …, or "
            "several: [a, b]",
        ),
    ] = "resnet152"
    """The CNN, see the table in the README: `resnet152` (2d), `resnext101` (3d),
    `efficientnet_lite0` (2d, small, for trying things out); or several of them: see “Several
    backbones”."""

    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Key(
            Group.NUMBERS,
            "of the CNN: auto (float16 on CUDA, else float32), float32, bfloat16, float16",
        ),
    ] = "auto"
    """What the CNN computes in: `float32`, `bfloat16`, `float16`, or `auto`, which is float16 on
    CUDA and float32 on a CPU. `auto` is recorded as such: a collection may be done on both. See
    the figures below."""

    l2_normalize: Annotated[bool, Key(Group.NUMBERS, "each feature has length 1")] = True
    """Divide each feature by its length, as the original does."""

    half_precision: Annotated[
        bool, Key(Group.NUMBERS, "features are stored as float16, else as float32")
    ] = True
    """Store float16, as the original does; else float32."""

    pooling: Annotated[
        str | None,
        Field(min_length=1),
        Key(
            Group.NUMBERS,
            "what a feature is: pooled, class_token, mean, projected, tokens",
            unset="the backbone's own",
        ),
    ] = None
    """What of the network's output a feature is, of networks of which there are several: see
    “Networks by name”."""

    frame_rate: Annotated[
        Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False), AS_GIVEN]
        | Literal["native"]
        | None,
        Key(Group.NUMBERS, "frames a second, or native", unset="the backbone's own"),
    ] = None
    """Frames taken from each second of video, or `native`: the video's own, each once, at the time
    that it has. See “Sampling”. `null`: the backbone's own, for this key and all that have no other
    default."""

    num_frames: Annotated[
        int | None,
        Field(ge=1, le=100_000),
        Key(Group.NUMBERS, "frames spread evenly over the video", unset="all at frame_rate"),
    ] = None
    """Take so many of the video's own frames, spread evenly from its first to its last, whatever
    its rate and length. See “Sampling”."""

    keyframes_only: Annotated[
        bool, Key(Group.NUMBERS, "take key frames alone, and decode no others")
    ] = False
    """Take the video's key frames, which can be decoded by themselves, and decode no others. See
    “Sampling”."""

    num_frames_per_clip: Annotated[
        int | None,
        Field(ge=2, le=1024),
        Key(Group.NUMBERS, "frames of a clip", unset="the backbone's own"),
    ] = None
    """Frames that one feature sees, of networks on clips. Some can take one number only."""

    clip_stride: Annotated[
        int | None,
        Field(ge=1, le=100_000),
        Key(
            Group.NUMBERS,
            "frames from the start of a clip to that of the next",
            unset="the backbone's own: no overlap",
        ),
    ] = None
    """Frames from the start of one clip to that of the next; `null`: `num_frames_per_clip` times
    `frame_interval`. See “Clips and windows”."""

    frame_interval: Annotated[
        int | None,
        Field(ge=1, le=100_000),
        Key(Group.NUMBERS, "of the frames, every so many-th", unset="the backbone's own"),
    ] = None
    """Of the frames at `frame_rate`, take every so many-th; in a clip, counted from its start. See
    “Clips and windows”."""

    last_clip: Annotated[
        Literal["zeros", "repeat", "drop", "shift"] | None,
        Key(
            Group.NUMBERS,
            "frames left at the end: zeros, repeat, drop, shift",
            unset="the backbone's own",
        ),
    ] = None
    """What becomes of frames at the end that no full clip reaches: one more clip, filled up with
    black (`zeros`) or its last frame (`repeat`), none (`drop`), or one that ends with the video
    (`shift`). See “Clips and windows”."""

    pool: Annotated[
        Literal["none", "mean", "max"],
        Key(Group.NUMBERS, "one feature for the whole video: none, mean, max"),
    ] = "none"
    """Make one feature of each video: the `mean` of all its features, or the largest of each number
    (`max`), before `l2_normalize`; or `none`."""

    resize_size: Annotated[
        int | None,
        Field(ge=32, le=4096),
        Key(Group.NUMBERS, "short side in pixels", unset="the backbone's own"),
    ] = None
    """Short side of the frame, in pixels; the long side follows, rounded down."""

    crop_size: Annotated[
        int | None,
        Field(ge=0, le=4096),
        Key(Group.NUMBERS, "centre crop in pixels, 0 for none", unset="the backbone's own"),
    ] = None
    """Side of the centre crop, in pixels; 0 for the whole frame."""

    interpolation: Annotated[
        Literal["bilinear", "bicubic", "area", "lanczos"] | None,
        Key(
            Group.NUMBERS,
            "scaler of ffmpeg: bilinear, bicubic, area, lanczos",
            unset="the backbone's own",
        ),
    ] = None
    """ffmpeg's scaler: `bilinear`, which is that of all three backbones, `bicubic`, `area`,
    `lanczos`. Published features of the original were made with bilinear, which was ffmpeg's
    default until version 4; from version 5 it is bicubic, so it is always given."""

    resizer: Annotated[
        Literal["ffmpeg", "pillow"] | None,
        Key(
            Group.NUMBERS,
            "what resizes: ffmpeg, or pillow, as networks' libraries do",
            unset="the backbone's own",
        ),
    ] = None
    """What resizes a frame: `ffmpeg`, before it leaves ffmpeg, or `pillow`, as the libraries of
    most networks do it. See “Fed as its library feeds it”."""

    resize_mode: Annotated[
        Literal["shortest", "squash"] | None,
        Key(
            Group.NUMBERS,
            "resize_size is of the shortest side, or of both: squash",
            unset="the backbone's own",
        ),
    ] = None
    """Whether `resize_size` is the `shortest` side, or both sides, which squashes the frame,
    whatever its proportions."""

    square_pixels: Annotated[
        bool,
        Key(Group.NUMBERS, "anamorphic videos get their proportions; the original squashes them"),
    ] = True
    """Give anamorphic videos (non-square pixels) their proportions. `false` takes the coded size,
    as the original does, which squashes them."""

    hwaccel: Annotated[
        Literal["none", "auto", "cuda", "vaapi", "qsv", "vulkan", "amf", "videotoolbox"],
        Key(Group.NUMBERS, "device that ffmpeg decodes on: none, auto, cuda, vaapi, …"),
    ] = "none"
    """What ffmpeg decodes on: `none` (the CPU), its `-hwaccel` `cuda` (NVDEC), `vaapi`, …: all that
    the device can decode; or `auto`: the first of `cuda`, `vaapi`, `qsv` and `videotoolbox` that
    decodes here, side by side with the CPU. Where a device is not there, `auto` is the CPU, and
    the others end the job at once. See “Decoding on a device”. It is among these keys because
    nothing proves that a device gives the same pixels; there was none to run it on."""

    device: Annotated[
        Literal["auto", "cuda", "cpu"],
        Key(Group.SPEED, "of the CNN: auto (a GPU if there is one), cuda (or else fail), cpu"),
    ] = "auto"
    """What the CNN runs on: `cuda`, `cpu`, or `auto`, which is a GPU where torch can use one.
    `cuda` fails where it cannot, instead of computing on a CPU for days."""

    batch_size: Annotated[
        int | None,
        Field(ge=1),
        Key(Group.SPEED, "frames or clips in one forward pass", unset="as fits the device"),
    ] = None
    """Frames or clips in one forward pass; `null`: 64 on CUDA; on a CPU, the fastest of 1, 2, 4, 8
    and 16, which a job finds out for each shape by its own first batches. Frames of different
    videos share a batch. A batch that does not fit the memory is halved until it does, with a
    warning."""

    decoders: Annotated[
        int | None,
        Field(ge=1),
        Key(Group.SPEED, "videos decoded at a time by one job", unset="as fits its cores"),
    ] = None
    """Videos that one job decodes at a time, those on a device included; `null`: one for each of
    its cores, 16 at most; with `hwaccel: auto` and a device, its `device_decoders` on top; where
    another `hwaccel` is set, these alone."""

    device_decoders: Annotated[
        int | None,
        Field(ge=1),
        Key(Group.SPEED, "of these, videos decoded on a device", unset="8, or all decoders"),
    ] = None
    """How many of these are decoded on the device of `hwaccel`, at most; what comes while it has
    them is the CPU's. `null`: 8 with `auto`; all of them with another `hwaccel`, which are 8 where
    `decoders` is not set."""

    skip_unused: Annotated[
        bool, Key(Group.SPEED, "leave packets out that no taken frame depends on")
    ] = True
    """Do not decode what no taken frame depends on; frames are the same. See “Decoding less”. With
    an ffmpeg older than 7.1, which the installed one is not, all is decoded."""

    scratch: Annotated[
        str | None,
        Field(min_length=1, pattern=PATH),
        Key(
            Group.SPEED,
            "folder that videos from elsewhere are brought to",
            unset="the system's for temporary files",
        ),
    ] = None
    """Where a video that is not on a disk is brought to before it is decoded: see “Buckets and
    servers”. Each job has a folder of its own there, which goes when it ends, or, if it was killed,
    when the next one on that machine starts."""

    scratch_mb: Annotated[
        int,
        Field(ge=1),
        Key(Group.SPEED, "size of what one job has there at a time, in MB"),
    ] = 20_000
    """What one job has in `scratch` at a time, in MB; as many videos wait there as it decodes at a
    time. A video that is larger fails."""

    truncated: Annotated[
        Literal["fail", "keep"],
        Key(Group.TROUBLE, "a video that ends before its time: fail, or keep what is there"),
    ] = "fail"
    """What a video is that ends before its time: `fail`, or `keep` what is there, and say so in
    the manifest. See below."""

    damaged: Annotated[
        Literal["fail", "keep"],
        Key(Group.TROUBLE, "a video with many damaged frames: fail, or keep what is there"),
    ] = "fail"
    """What a video is of which more than half of the decoded frames are damaged or missing, as
    ffmpeg counts them: `fail`, or `keep` what is there, and say so in the manifest, where the
    column `damaged_share` has the share of every row. Encrypted video fails in any case."""

    max_aspect_ratio: Annotated[
        float,
        Field(ge=1, le=1000, allow_inf_nan=False),
        AS_GIVEN,
        Key(Group.TROUBLE, "pictures longer than so many times their breadth fail"),
    ] = 10
    """What the network may be given at most: a picture of so many times its short side. With a crop
    it is given a square, and nothing fails."""

    max_still_seconds: Annotated[
        float,
        Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False),
        AS_GIVEN,
        Key(Group.TROUBLE, "a video in which one picture stands for longer fails"),
    ] = 3600
    """How long one picture may stand, as slides do, before its times count as damaged."""

    decoder_memory_mb: Annotated[
        int,
        Field(ge=200),
        Key(Group.TROUBLE, "memory that each process which decodes may take, in MB; Linux only"),
    ] = 1000
    """What each process that decodes, or reads a file's header and packets, may take of memory, in
    MB, on Linux. A video that needs more fails: 8K does, see “How much memory a job takes”. Not
    kept on a device (`hwaccel`), whose drivers reserve more than they use."""

    local_files_only: Annotated[
        bool, Key(Group.TROUBLE, "refuse playlists and all that makes ffmpeg open other files")
    ] = True
    """Refuse whatever makes ffmpeg open other files or the network (HLS, DASH, ffconcat, SDP, …),
    by its content, not its name. `false` for playlists that you trust."""

    allowed_schemes: Annotated[
        str | None,
        Field(pattern=SCHEMES),
        Key(
            Group.TROUBLE,
            f"URLs that the CSV and results may hold, with commas: {', '.join(PACKAGES)}",
            unset="none: files on disks only",
        ),
    ] = None
    """Schemes of URLs that may stand in the CSV, and in `results`: `s3`, or `s3,https`. `null`:
    none, so that a CSV from somebody else reads and writes nothing but files on disks. See “Buckets
    and servers”."""

    decode_timeout_seconds: Annotated[
        float,
        Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False),
        AS_GIVEN,
        Key(Group.TROUBLE, "a decoder that gives nothing for so long is ended"),
    ] = 120
    """A decoder that gives nothing for so long, while it is waited for, is ended, and its row
    fails: ffmpeg, or the process that reads a file's header and its packets."""

    claim_timeout_seconds: Annotated[
        float,
        Field(ge=8, le=MAX_SECONDS, allow_inf_nan=False),
        AS_GIVEN,
        Key(Group.TROUBLE, "a row is taken from a process that gave no sign of life for so long"),
    ] = 120
    """A row is taken over from a process on another machine that gave no sign of life for so long.
    The same for all runs that share a collection; on NFS no less than 90, since changes may be
    seen a minute late."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return what a configuration says of this class's keys.

        Raises:
            ValidationError: see `config_problems`.
        """
        return cls(**{name: config[name] for name in cls.model_fields if name in config})


class Config(Settings):
    """The whole configuration: `Settings`, and what only a run needs to know."""

    videos: Annotated[
        str,
        Field(min_length=1, pattern=PATH),
        Key(Group.WORK, "CSV with the columns video_path,feature_path"),
    ] = "config/videos.csv"
    """Path of the CSV."""

    results: Annotated[
        str,
        Field(min_length=1, pattern=PATH_OF_OUTPUTS),
        Key(Group.WORK, "folder for records, logs, report; one per collection and backbone"),
    ] = "results"
    """Folder for records, logs, manifest and report (not for features: the CSV says where they
    go), or `s3://bucket/folder`, see “Buckets and servers”. Give each collection and backbone its
    own, so that two runs from one clone keep apart."""

    report: Annotated[bool, Key(Group.WORK, "a run leaves results/report.html at its end")] = True
    """Leave `<results>/report.html` at the end of a run, unless it was stopped."""

    weights: Annotated[
        str,
        Field(min_length=1, pattern=PATH),
        Key(
            Group.NUMBERS,
            "of the CNN: auto, a name such as IMAGENET1K_V1, the path of a file, random",
        ),
    ] = "auto"
    """See below. What counts is the content of the file, not its name or place."""

    videos_per_job: Annotated[
        int, Field(ge=1), Key(Group.SPEED, "rows that one process does, at most")
    ] = 256
    """Rows that one job does, at most. A job loads the CNN once; a job that is killed loses only
    the videos it was in the middle of. On a cluster it decides how many jobs there are: see
    [profiles/README.md](../profiles/README.md)."""

    mem_mb: Annotated[int, Field(ge=1), Key(Group.SPEED, "memory asked for each job, in MB")] = 8000
    """Memory asked for each job, in MB: Snakemake's resource `mem_mb`. See “How much memory a job
    takes”; CUDA takes a few GB more (not measured)."""

    minutes_per_video: Annotated[
        float,
        Field(gt=0, le=MAX_SECONDS / 60, allow_inf_nan=False),
        AS_GIVEN,
        Key(Group.SPEED, "time asked for each job: 15 minutes, and this for each video"),
    ] = 2
    """Snakemake's resource `runtime` of a job is 15 minutes, and this for each of its videos."""

    retry_failed: Annotated[
        bool,
        Key(Group.TROUBLE, "rows that failed before are tried again"),
    ] = True
    """Try rows again that failed before. `false` leaves those alone that would fail again: same
    video, same settings, same weights. Rows asked for by path are tried in any case."""

    trust: Annotated[
        Trust,
        Key(
            Group.TROUBLE,
            "what tells that a video has changed: time (and size), or size alone, after copies "
            "without times",
        ),
    ] = "time"
    """What tells that a video has changed since its features were made: its modification `time`
    and its size, or its `size` alone, for collections that were copied without their times. Times
    that a copy has rounded to one or two seconds are the same in any case."""

    @property
    def settings(self) -> Settings:
        """Of these keys, those that say how a row becomes features."""
        return Settings.model_construct(**{name: getattr(self, name) for name in SETTINGS_KEYS})


SETTINGS_KEYS = tuple(Settings.model_fields)


def _in_order() -> dict[str, Key]:
    keys = {
        name: next(item for item in field.metadata if isinstance(item, Key))
        for name, field in Config.model_fields.items()
    }

    def place(name: str) -> tuple[int, bool]:
        # In a group, what only a run needs comes first, but no weights before their network.
        is_late = name in Settings.model_fields and name != "backbone"
        return list(Group).index(keys[name].group), is_late

    return {name: keys[name] for name in sorted(keys, key=place)}


KEYS = _in_order()
"""Every key of the configuration, in the order of `config.yaml`."""


@cache
def json_schema() -> dict[str, Any]:
    """The configuration as JSON Schema. The `type` of a key is a list, with "null" last."""
    properties = Config.model_json_schema()["properties"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of the workflow",
        "description": "config/README.md says the same with reasons.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: {"description": str(key)} | _merge_kinds(properties[name])
            for name, key in KEYS.items()
        },
    }


def _merge_kinds(entry: dict[str, Any]) -> dict[str, Any]:
    """What pydantic says of a key, with null among its types, not as a schema beside another."""
    kinds = entry.get("anyOf", [entry])
    types = [kind["type"] for kind in kinds]
    merged: dict[str, Any] = {"type": types[0] if isinstance(types[0], list) else types}
    merged |= {k: v for k, v in kinds[0].items() if k not in ("type", "title", "default")}
    if words := [kind["const"] for kind in kinds if "const" in kind]:
        merged["pattern"] = f"^({'|'.join(words)})$"  # of texts alone: a number has no pattern
    if "enum" in merged and "null" in merged["type"]:
        merged["enum"] = [*merged["enum"], None]
    return merged | {"default": entry["default"]}


@cache
def text_keys() -> frozenset[str]:
    """Return the keys whose values are text, as they are written: `001` is no number."""
    entries = json_schema()["properties"].items()
    return frozenset(name for name, entry in entries if entry["type"] == ["string"])


def defaults() -> dict[str, Any]:
    """Return a configuration in which nothing was set."""
    return {name: Config.model_fields[name].default for name in KEYS}


def parse_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose values have the types that were meant on a command line.

    Snakemake's `--config` takes `false` and `null` for text, and the original program's switches
    are 0 and 1. Numbers are text where a key needs that. A value that cannot be what its key
    needs is left for `config_problems`.
    """
    return {key: _parse(key, value) for key, value in config.items()}


def _parse(key: str, value: Any) -> Any:
    import yaml

    kinds = json_schema()["properties"].get(key, {}).get("type", ["string"])
    if "object" in kinds and isinstance(value, Mapping):  # of keys, by names of the user's own
        return {
            name: parse_values(own) if isinstance(own, Mapping) else own
            for name, own in value.items()
        }
    if key in text_keys():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return str(value) if is_number else value
    if kinds == ["boolean"] and value in (0, 1):
        return bool(value)
    if kinds == ["string"] or not isinstance(value, str):
        return value
    if "array" in kinds and value[:1] not in ("[", "{"):  # one name of those that may be several
        return value
    if "number" in kinds:
        with contextlib.suppress(ValueError):
            return float(value) if "e" in value.lower() else int(value)  # 1e3 is text to YAML
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    return _parse(key, parsed) if isinstance(parsed, Mapping) else parsed


def config_problems(config: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a configuration, one sentence a key.

    Keys that are not there are not a problem here: they have defaults.
    """
    try:
        Config.model_validate(config)
    except ValidationError as error:
        wrong = dict.fromkeys(detail["loc"][0] for detail in error.errors())
        return [f"configuration: {_problem(name, config)}" for name in wrong]
    return []


def _problem(name: Any, config: Mapping[str, Any]) -> str:
    if name not in KEYS:
        near = difflib.get_close_matches(str(name), KEYS, n=1)
        where = f"; did you mean `{near[0]}`?" if near else "; config/README.md lists them"
        return f"there is no key `{name}`{where}"
    value = config[name]
    given = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    text = KEYS[name].help
    pattern = _entry(name).get("pattern")
    if isinstance(value, str) and pattern in (PATH, PATH_OF_OUTPUTS):
        return f"{name}: {_path_problem(value)}. {text[0].upper()}{text[1:]}"
    if isinstance(value, str) and pattern == SCHEMES:
        given += f" holds what is none of {', '.join(PACKAGES)}"
        return f"{name}: {given}. {text[0].upper()}{text[1:]}"
    return f"{name}: {given} is not {_allowed(name)}. {text[0].upper()}{text[1:]}"


def _path_problem(path: str) -> str:
    """What is wrong with a path that does not match its pattern."""
    if not path.isprintable() and any("\udc80" <= character <= "\udcff" for character in path):
        return f"{path!r} is not UTF-8. Rename it"
    return path_problem(path) or (
        f"{path!r} holds a brace or a line break, which Snakemake cannot have in the name of an "
        "output. Choose another name"
    )


def _entry(name: str) -> dict[str, Any]:
    return json_schema()["properties"][name]


def _allowed(name: str) -> str:
    """What a key may be, in words."""
    entry = _entry(name)
    if choices := entry.get("enum"):
        allowed = "one of " + ", ".join(choice for choice in choices if choice is not None)
    else:
        allowed = {
            "boolean": "true or false",
            "integer": "a whole number",
            "number": "a number",
            "string": "a text that is not empty",
        }[entry["type"][0]]
    if "maximum" in entry and "minimum" in entry:
        allowed += f" from {entry['minimum']} to {entry['maximum']}"
    elif "maximum" in entry:
        allowed += f" greater than {entry['exclusiveMinimum']}, up to {entry['maximum']}"
    elif "minimum" in entry:
        allowed += f" of {entry['minimum']} or more"
    elif "exclusiveMinimum" in entry:
        allowed += f" greater than {entry['exclusiveMinimum']}"
    if "number" in entry["type"] and "string" in entry["type"]:
        allowed += f", or {entry['pattern'].strip('^$()')}"
    unset = KEYS[name].unset
    return f"{allowed}, or null ({unset})" if unset else allowed
