"""Scripts take their configuration as Snakemake does, and say what is wrong with it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from conftest import ROOT
from videofeatures.command_line import read_config, run_and_print
from videofeatures.errors import UserError


def read(path: Path, *arguments: str) -> dict:
    """The configuration of a command line that names a file."""
    return read_config(argparse.ArgumentParser(), ["--configfile", str(path), *arguments])[1]


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text("videos: é.csv\nbatch_size: 7\nl2_normalize: true\n", encoding="utf-8")
    return path


def test_a_file_gives_its_values(path):
    assert read(path) == {"videos": "é.csv", "batch_size": 7, "l2_normalize": True}


def test_what_is_on_the_command_line_is_put_over_the_file(path):
    given = ("l2_normalize=false", "batch_size=null", "weights=a=b.pth", "results=2024")
    assert read(path, *given) == {
        "videos": "é.csv",
        "batch_size": None,
        "l2_normalize": False,
        "weights": "a=b.pth",
        "results": "2024",
    }


def test_a_file_without_anything_is_a_configuration(path):
    path.write_text("# all of it is on the command line\n")
    assert read(path, "backbone=resnext101") == {"backbone": "resnext101"}


def test_the_file_is_the_project_s_by_default(monkeypatch):
    monkeypatch.chdir(ROOT)
    _, config = read_config(argparse.ArgumentParser(), [])
    assert config == read(ROOT / "config" / "config.yaml")


def test_a_program_may_have_options_of_its_own(path):
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep_manifest", action="store_true")
    arguments = ["--keep_manifest", "--configfile", str(path), "batch_size=8"]
    options, config = read_config(parser, arguments)
    assert options.keep_manifest
    assert config["batch_size"] == 8


def test_an_argument_that_is_no_value_is_named(path, capsys):
    with pytest.raises(SystemExit) as caught:
        read(path, "backbone=resnet152", "resnext101")
    assert caught.value.code == 2
    assert "'resnext101' is not KEY=VALUE" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(path, capsys):
    path.unlink()
    with pytest.raises(SystemExit) as caught:
        read(path)
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"{path}: No such file or directory\n"


def test_a_file_that_is_no_yaml_is_named_with_the_place(path, capsys):
    path.write_text("videos: a.csv\nbatch_size: [\n")
    with pytest.raises(SystemExit) as caught:
        read(path)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"{path}: is not YAML in UTF-8: ")
    assert "line 3" in told


def test_what_was_made_is_printed(capsys):
    assert run_and_print(lambda: "a.html: open it") == 0
    assert capsys.readouterr() == ("a.html: open it\n", "")


def test_input_that_cannot_be_used_is_said_on_stderr(capsys):
    def make() -> str:
        raise UserError(["one problem", "another"])

    assert run_and_print(make) == 2
    assert capsys.readouterr() == ("", "one problem\nanother\n")


def test_a_file_that_cannot_be_had_is_said_on_stderr(tmp_path, capsys):
    assert run_and_print((tmp_path / "manifest.csv").read_text) == 2
    told = f"{tmp_path / 'manifest.csv'}: No such file or directory\n"
    assert capsys.readouterr() == ("", told)


def test_any_other_error_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run_and_print(lambda: str(1 / 0))


@pytest.mark.parametrize("content", [b"just text\n", b"- a\n- b\n", b"videos: caf\xe9.csv\n"])
def test_a_file_that_is_no_configuration_is_named(path, content, capsys):
    path.write_bytes(content)
    with pytest.raises(SystemExit) as caught:
        read(path)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"{path}: ")


def test_an_error_without_a_file_name_says_what_it_is(capsys):
    def make() -> str:
        raise OSError(28, "No space left on device")

    assert run_and_print(make) == 2
    assert capsys.readouterr() == ("", "No space left on device\n")
