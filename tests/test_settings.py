"""One truth about settings: class, configuration file, schema, document, command line."""

from __future__ import annotations

from dataclasses import fields

import pytest
import yaml
from jsonschema import Draft202012Validator

import extract
from conftest import ROOT
from videofeatures.networks.backbones import BACKBONES
from videofeatures.settings import OTHER_KEYS, Settings, config_problems, parse_values

CONFIG = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
SCHEMA = yaml.safe_load((ROOT / "config" / "schema.yaml").read_text())

OTHER_VALUES = {
    "backbone": "resnext101",
    "frame_rate": 2.0,
    "resize_size": 256,
    "crop_size": 200,
    "interpolation": "bicubic",
    "square_pixels": False,
    "hwaccel": "auto",
    "truncated": "keep",
    "local_files_only": False,
    "decode_timeout_seconds": 7.0,
    "claim_timeout_seconds": 60.0,
    "precision": "float32",
    "l2_normalize": False,
    "half_precision": False,
    "batch_size": 3,
    "device": "cpu",
    "decoders": 3,
    "skip_unused": True,
}


def test_shipped_configuration_is_the_default_and_valid():
    assert config_problems(CONFIG) == []
    assert Settings.from_config(CONFIG) == Settings()


def test_schema_is_a_schema_and_describes_every_key():
    Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["properties"]) == set(CONFIG) == set(SCHEMA["required"])
    assert all(entry["description"] for entry in SCHEMA["properties"].values())


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_can_be_asked_for_and_is_in_the_readme(name):
    assert config_problems(CONFIG | {"backbone": name}) == []
    assert f"| `{name}`" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_key_is_documented():
    document = (ROOT / "config" / "README.md").read_text()
    assert [key for key in CONFIG if f"`{key}`" not in document] == []


@pytest.mark.parametrize("key", [field.name for field in fields(Settings)])
def test_digest_follows_the_keys_that_change_numbers(key):
    changed = Settings(**{key: OTHER_VALUES[key]})
    assert (changed.digest() != Settings().digest()) == (key not in OTHER_KEYS)


def test_naming_the_backbone_s_own_value_changes_the_numbers_of_nothing():
    own = Settings(frame_rate=1, resize_size=224, crop_size=0)
    assert own.numerics() == Settings().numerics()
    assert own.digest() == Settings().digest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbon": "resnet152"}, "did you mean `backbone`?"),
        ({"zzz": 1}, "no key `zzz`; config/README.md"),
        ({"backbone": "vgg"}, "backbone: 'vgg' is not one of"),
        ({"precision": "float8"}, "precision: 'float8' is not one of"),
        ({"batch_size": "many"}, "batch_size: 'many' is not of type"),
        ({"videos_per_job": 0}, "videos_per_job: 0 is less than"),
        ({"l2_normalize": "maybe"}, "l2_normalize: 'maybe' is not of type"),
        ({"frame_rate": 0}, "frame_rate: 0 is less than or equal to"),
        ({"crop_size": 300}, "crop_size: 300 is larger than"),
    ],
)
def test_wrong_configuration_is_named(change, message):
    problems = config_problems(CONFIG | change)
    assert len(problems) == 1
    assert message in problems[0]


def test_all_wrong_keys_are_named_at_once():
    assert len(config_problems(CONFIG | {"a": 1, "b": 2, "batch_size": 0, "precision": ""})) == 4


def test_values_from_a_command_line_get_their_types():
    given = {
        "l2_normalize": "false",
        "half_precision": 0,
        "batch_size": "null",
        "frame_rate": "1.5",
        "results": 2024,
        "weights": "random",
        "unknown": "true",
    }
    assert parse_values(given) == {
        "l2_normalize": False,
        "half_precision": False,
        "batch_size": None,
        "frame_rate": 1.5,
        "results": "2024",
        "weights": "random",
        "unknown": "true",
    }


def test_command_line_has_every_setting_with_the_same_default():
    args = extract.parse_arguments(["--csv", "x.csv"])
    defaults = {field.name: field.default for field in fields(Settings)}
    given = {name: getattr(args, name) for name in defaults if name != "backbone"}
    assert given | {"backbone": extract.BACKBONE_OF_TYPE[args.type]} == defaults
