"""Scripts take their configuration as Snakemake does, and say what is wrong with it."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from videofeatures.command_line import read_config, read_config_file, run_and_print
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


@pytest.mark.parametrize(
    "text", ["001", "1.10", "1e3", "on", "2024-01-01", "0x10", "1_000", "é", "'quoted'", "- a"]
)
def test_text_in_a_file_is_as_it_stands_there(path, text):
    path.write_text(f"results: {text}\nbatch_size: 007\n", encoding="utf-8")
    if text == "- a":  # is no text
        with pytest.raises(UserError, match="is not YAML"):
            read_config_file(path)
        return
    assert read_config_file(path) == {"results": text.strip("'"), "batch_size": 7}


def test_null_in_a_file_is_nothing(path):
    path.write_text("results: null\nvideos: ~\nweights:\n")
    assert read_config_file(path) == {"results": None, "videos": None, "weights": None}


def test_a_date_that_is_none_is_said(path):
    path.write_text("results: 2024-13-45\n")
    with pytest.raises(UserError, match="is not YAML"):
        read_config_file(path)


NAMES = """\
import sys
sys.path.insert(0, {scripts!r})
from videofeatures.command_line import use_utf8
use_utf8()
import os, subprocess
print(os.listdir(b"."), os.path.exists("é日本"), sys.argv[1], os.fsdecode(b"\\xff"))
print(subprocess.run([sys.executable, "-c", "import sys; print(sys.getfilesystemencoding())"],
      capture_output=True, text=True).stdout)
"""


@pytest.fixture(scope="session")
def latin_1(tmp_path_factory) -> dict[str, str]:
    """What makes a process have a locale whose names are in Latin-1."""
    if not shutil.which("localedef"):
        pytest.skip("there is no localedef here to make a locale")
    folder = tmp_path_factory.mktemp("locales")
    command = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", folder / "en_US.ISO-8859-1"]
    subprocess.run(command, check=True)
    return {"LOCPATH": str(folder), "LC_ALL": "en_US.ISO-8859-1"}


C_LOCALE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.mark.parametrize("locale", ["latin_1", "C"])
def test_names_are_utf_8_whatever_the_locale(tmp_path, request, locale):
    environment = C_LOCALE if locale == "C" else request.getfixturevalue("latin_1")
    environment = os.environ | environment
    ask = "import sys; print(sys.getfilesystemencoding())"
    asked = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True)
    assert asked.stdout.strip() not in (b"utf-8", b"")
    (tmp_path / "é日本").touch()
    (tmp_path / "names.py").write_text(NAMES.format(scripts=str(ROOT / "scripts")), "utf-8")
    command = [sys.executable, str(tmp_path / "names.py"), "ü"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    told = result.stdout.decode().split()
    assert told[-4:] == ["True", "ü", r"\udcff", "utf-8"], result.stderr.decode()


STOP = "raise KeyboardInterrupt"
MAIN = """\
import logging, sys
sys.path.insert(0, {scripts!r})
from videofeatures.command_line import run_script
def main():
    print("told")
    {body}
run_script(main)
"""


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ("return 3", 3, ""),
        (STOP, 130, "interrupted\n"),
        # While the first Ctrl-C is seen to, there is a second one.
        (
            "try: raise KeyboardInterrupt\n    finally: raise KeyboardInterrupt",
            130,
            "interrupted\n",
        ),
    ],
)
def test_a_script_ends_with_its_status_or_with_a_word(body, status, told):
    text = MAIN.format(scripts=str(ROOT / "scripts"), body=body)
    result = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (status, "told\n", told)


def test_a_script_whose_output_goes_to_a_full_disk_says_so():
    text = MAIN.format(scripts=str(ROOT / "scripts"), body="return 3")
    with open("/dev/full", "w") as full:
        result = subprocess.run([sys.executable, "-c", text], stdout=full, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (2, b"No space left on device\n")


SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "make_config.py"])
def test_scripts_run_without_their_docstrings(name):
    result = subprocess.run(
        [sys.executable, "-OO", str(ROOT / "scripts" / name), "--help"], capture_output=True
    )
    assert result.returncode == 0, result.stderr.decode()


@pytest.mark.parametrize("name", ["make_manifest", "make_report", "extract", "prepare_weights"])
def test_a_disk_that_cannot_be_read_is_one_line(tmp_path, name):
    # A file that is there, and gives nothing but errors.
    (tmp_path / "w.pth").symlink_to("/proc/self/mem")
    (tmp_path / "my.csv").write_text("video_path,feature_path\na.mp4,a.npy\n")
    values = {"weights": "w.pth", "results": "r", "videos": "my.csv"}
    command = [f"{key}={value}" for key, value in values.items()]
    command += ["--configfile", str(ROOT / "config" / "config.yaml")]
    if name == "extract":
        command = ["--csv", "my.csv", "--weights", "w.pth"]
    elif name == "prepare_weights":
        command = ["--backbone", "resnet152", "--weights", "w.pth", "--output", "x"]
    script = str(ROOT / "scripts" / f"{name}.py")
    result = subprocess.run(
        [sys.executable, script, *command], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith("Input/output error")
    assert "Traceback" not in result.stderr
