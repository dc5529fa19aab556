"""What the user can set, and which of it changes the numbers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from videofeatures.networks.backbones import BACKBONES, Backbone

NUMERICS_VERSION = 1
"""Raised whenever a change of this program changes the features it makes."""

SCHEMA_PATH = Path(__file__).parents[2] / "config" / "schema.yaml"

OTHER_KEYS = (
    "device",
    "batch_size",
    "decoders",
    "skip_unused",
    "truncated",
    "local_files_only",
    "decode_timeout_seconds",
    "claim_timeout_seconds",
)
"""Settings that change how fast features are made, or whether, and not the features."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a row becomes features. `config/README.md` documents each key.

    None means “as the backbone has it” (`frame_rate` to `crop_size`), or “as fits
    the machine” (`batch_size`, `decoders`).
    """

    backbone: str = "resnet152"
    frame_rate: float | None = None
    resize_size: int | None = None
    crop_size: int | None = None
    interpolation: str = "bilinear"
    square_pixels: bool = True
    hwaccel: str = "none"
    precision: str = "auto"
    l2_normalize: bool = True
    half_precision: bool = True
    device: str = "auto"
    batch_size: int | None = None
    decoders: int | None = None
    skip_unused: bool = False
    truncated: str = "fail"
    local_files_only: bool = True
    decode_timeout_seconds: float = 120
    claim_timeout_seconds: float = 120

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Settings:
        """Take this class's keys from a checked configuration."""
        return cls(**{f.name: config[f.name] for f in fields(cls) if f.name in config})

    @property
    def bytes_per_number(self) -> int:
        """Of a stored feature."""
        return 2 if self.half_precision else 4

    def resolve_backbone(self) -> Backbone:
        """The backbone with the user's frame rate and sizes in place of its own.

        A `crop_size` of 0 means no crop.

        Raises:
            KeyError: no backbone of that name.
        """
        backbone = BACKBONES[self.backbone]
        overrides = {
            key: getattr(self, key)
            for key in ("frame_rate", "resize_size", "crop_size")
            if getattr(self, key) is not None
        }
        return replace(backbone, **overrides)

    def numerics(self) -> dict[str, Any]:
        """All that decides the numbers, except the weights, with defaults filled in.

        `precision` is as it was asked for: a login node and a GPU node must agree on
        what `auto` means for the rows that are pending.
        """
        own = {key: value for key, value in asdict(self).items() if key not in OTHER_KEYS}
        return own | self.resolve_backbone().numerics() | {"numerics_version": NUMERICS_VERSION}

    def digest(self) -> str:
        """A short hash of `numerics()`, kept in every record."""
        text = json.dumps(self.numerics(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_values(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration whose values have the types that were meant on a command line.

    Snakemake's `--config` takes `false` and `null` for text, and a folder named `2024` for
    a number; the original program's switches are 0 and 1. A value that cannot be what its
    key needs is left for `config_problems`.
    """
    import yaml

    def parse(key: str, value: Any) -> Any:
        kind = _schema()["properties"].get(key, {}).get("type")
        is_text = kind in ("string", None)
        if is_text and isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if kind == "boolean" and value in (0, 1):
            return bool(value)
        if not is_text and isinstance(value, str):
            try:
                return yaml.safe_load(value)
            except yaml.YAMLError:
                return value
        return value

    return {key: parse(key, value) for key, value in config.items()}


def config_problems(config: dict[str, Any]) -> list[str]:
    """What is wrong with a configuration, one sentence a key.

    Keys that are not there are not a problem here: a program has defaults for them, and
    the shipped `config/config.yaml` holds them all.
    """
    from jsonschema import Draft202012Validator

    schema = _schema()
    problems = []
    for error in Draft202012Validator(schema).iter_errors(config):
        key = error.path[0] if error.path else None
        if error.validator == "additionalProperties":
            unknown = sorted(set(config) - set(schema["properties"]))
            problems += [
                f"configuration: there is no key `{name}`{_nearest(name)}" for name in unknown
            ]
        elif error.validator == "required":
            continue
        else:
            problems.append(f"configuration: {key}: {error.message}{_hint(schema, key)}")
    if not problems:
        backbone = Settings.from_config(config).resolve_backbone()
        if backbone.crop_size > backbone.resize_size:
            problems.append(
                f"configuration: crop_size: {backbone.crop_size} is larger than the short side "
                f"of a frame, resize_size {backbone.resize_size}"
            )
    return problems


def _nearest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, _schema()["properties"], n=1)
    return f"; did you mean `{near[0]}`?" if near else "; config/README.md lists them"


def _hint(schema: dict[str, Any], key: str | None) -> str:
    return f". {schema['properties'][key]['description']}" if key else ""


@cache
def _schema() -> dict[str, Any]:
    import yaml

    schema = yaml.safe_load(SCHEMA_PATH.read_text(encoding="utf-8"))
    schema["properties"]["backbone"]["enum"] = list(BACKBONES)
    return schema
