"""One truth about settings: classes, configuration file, schema, document, command line."""

from __future__ import annotations

import math

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import ValidationError

import extract
import make_config
from conftest import ROOT
from videofeatures.networks.backbones import BACKBONES
from videofeatures.settings import Config, Settings, config_problems, parse_values

CONFIG = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
SCHEMA = yaml.safe_load((ROOT / "config" / "schema.yaml").read_text())


def test_shipped_configuration_is_the_default_and_valid():
    assert config_problems(CONFIG) == []
    assert Config(**CONFIG) == Config()
    assert Settings.from_config(CONFIG) == Settings()


def test_what_stands_in_the_folder_is_what_would_be_made():
    for path, text in make_config.make_all().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: make docs"


def test_a_page_without_a_place_for_a_table_is_an_error():
    page = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    assert make_config.make_page(page.replace("| `videos` |", "| `old` |")) == page
    with pytest.raises(ValueError, match="SPEED"):
        make_config.make_page(page.replace("<!-- begin of keys: SPEED -->\n", ""))


def test_schema_is_a_schema_and_describes_every_key():
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["additionalProperties"] is False
    assert {key: entry["default"] for key, entry in SCHEMA["properties"].items()} == CONFIG
    assert all(entry["description"] for entry in SCHEMA["properties"].values())


ODD_VALUES = [True, None, 0, -1, 1, 1.5, 8, 32, 4096, 4097, "", "auto", "1", "null", [1], {"a": 1}]
ODD_VALUES += [" ", " a", "a\t", "~", "~/a", "{", "a{b", "a\nb", "a\0b", "-a", "é", "a~ b"]


@pytest.mark.parametrize("key", CONFIG)
def test_schema_and_check_agree(key):
    schema = Draft202012Validator(SCHEMA)
    choices = SCHEMA["properties"][key].get("enum", [])
    for value in [*ODD_VALUES, *choices]:
        assert (not config_problems({key: value})) == schema.is_valid({key: value}), value


@pytest.mark.parametrize(
    "key", [k for k, v in SCHEMA["properties"].items() if "number" in v["type"]]
)
def test_no_number_is_without_a_bound(key):
    for value in (math.inf, -math.inf, math.nan, 1e300):
        (told,) = config_problems({key: value})
        assert f"{key}: {value!r} is not a number" in told


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_can_be_asked_for_and_is_in_the_readme(name):
    assert config_problems(CONFIG | {"backbone": name}) == []
    assert f"| `{name}`" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_key_is_documented():
    document = (ROOT / "config" / "README.md").read_text()
    assert [key for key in CONFIG if f"`{key}`" not in document] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbon": "resnet152"}, "did you mean `backbone`?"),
        ({"zzz": 1}, "no key `zzz`; config/README.md"),
        ({"precision": "float8"}, "precision: 'float8' is not one of"),
        ({"precision": "float8"}, "one of auto, float32, bfloat16, float16. Of the CNN: auto ("),
        ({"interpolation": "x"}, "lanczos, or null (the backbone's own). Scaler of ffmpeg: bil"),
        ({"batch_size": "many"}, "batch_size: 'many' is not a whole number of 1 or more, or null"),
        ({"batch_size": True}, "batch_size: true is not a whole number"),
        ({"resize_size": 5000}, "resize_size: 5000 is not a whole number from 32 to 4096, or null"),
        ({"videos_per_job": 0}, "videos_per_job: 0 is not a whole number of 1 or more. Rows that"),
        ({"videos_per_job": 1.5}, "videos_per_job: 1.5 is not a whole number"),
        ({"videos_per_job": None}, "videos_per_job: null is not a whole number"),
        ({"l2_normalize": "maybe"}, "l2_normalize: 'maybe' is not true or false"),
        (
            {"frame_rate": 0},
            "frame_rate: 0 is not a number greater than 0, up to 1000, or native, or null",
        ),
        ({"frame_rate": {"a": 1}}, "frame_rate: {'a': 1} is not a number"),
        ({"results": ""}, "results: is empty. Folder for records"),
        ({"results": None}, "results: null is not a text that is not empty"),
        ({"results": "~/r"}, "results: '~/r' begins with `~`, which only a shell expands"),
        ({"results": "r{x}s"}, "results: 'r{x}s' holds a brace or a line break"),
        ({"results": "r\ns"}, r"results: 'r\ns' holds a brace or a line break"),
        ({"results": "r\udcff"}, r"results: 'r\udcff' is not UTF-8. Rename it"),
        ({"videos": " x.csv"}, "videos: ' x.csv' begins or ends with white space"),
        ({"videos": "~/x.csv"}, "videos: '~/x.csv' begins with `~`"),
        ({"weights": "w.pth\n"}, r"weights: 'w.pth\n' begins or ends with white space"),
        ({"weights": "\0"}, r"weights: '\x00' holds a NUL character"),
        ({"scratch": "~/x"}, "scratch: '~/x' begins with `~`"),
        (
            {"allowed_schemes": "s3,ftp"},
            "allowed_schemes: 's3,ftp' holds what is none of s3, gs, az, https, http. URLs that",
        ),
        ({1: 2}, "no key `1`"),
    ],
)
def test_wrong_configuration_is_named(change, message):
    problems = config_problems(CONFIG | change)
    assert len(problems) == 1
    assert problems[0].startswith("configuration: ")
    assert message in problems[0]


@pytest.mark.parametrize(
    "values", [{"precision": "float8"}, {"frame_rate": "1"}, {"colour": "red"}]
)
def test_settings_are_checked_when_they_are_made(values):
    with pytest.raises(ValidationError):
        Settings(**values)


def test_all_wrong_keys_are_named_at_once():
    assert len(config_problems(CONFIG | {"a": 1, "b": 2, "batch_size": 0, "precision": ""})) == 4


def test_values_from_a_command_line_get_their_types():
    given = {
        "l2_normalize": "false",
        "half_precision": 0,
        "batch_size": "null",
        "frame_rate": "1.5",
        "minutes_per_video": "1e3",
        "decode_timeout_seconds": ".inf",
        "claim_timeout_seconds": "20",
        "interpolation": "null",
        "hwaccel": "none",
        "precision": 16,
        "videos": "null",
        "videos_per_job": "1.5",
        "mem_mb": "{",
        "results": 2024,
        "weights": "random",
        "unknown": "true",
    }
    assert parse_values(given) == {
        "l2_normalize": False,
        "half_precision": False,
        "batch_size": None,
        "frame_rate": 1.5,
        "minutes_per_video": 1000.0,
        "decode_timeout_seconds": math.inf,
        "claim_timeout_seconds": 20,
        "interpolation": None,
        "hwaccel": "none",
        "precision": "16",
        "videos": "null",
        "videos_per_job": 1.5,
        "mem_mb": "{",
        "results": "2024",
        "weights": "random",
        "unknown": "true",
    }


def test_command_line_has_every_setting_with_the_same_default():
    args = extract.parse_arguments(["--csv", "x.csv"])
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    given = {name: getattr(args, name) for name in defaults if name != "backbone"}
    assert given | {"backbone": extract.BACKBONE_OF_TYPE[args.type]} == defaults
