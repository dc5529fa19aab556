"""The project's own files agree with each other."""

from __future__ import annotations

import re

import pytest
import yaml

from conftest import ROOT
from videofeatures import __version__

ENVS = ROOT / "envs"


def pins(lines: list[str]) -> dict[str, str]:
    found = (re.fullmatch(r"([A-Za-z0-9_.-]+)==(\S+)", line.strip()) for line in lines)
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


def read_pins(name: str) -> dict[str, str]:
    lines = (ENVS / name).read_text().splitlines()
    assert all(not line or line.startswith("#") or "==" in line for line in lines)
    return pins(lines)


def test_conda_and_pip_have_the_same_pins():
    conda = yaml.safe_load((ENVS / "videofeatures.yaml").read_text())
    (pip,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    requirements = read_pins("requirements.txt")
    # A job does not run Snakemake.
    assert pins(pip) == {k: v for k, v in requirements.items() if not k.startswith("snakemake")}


def test_every_requirement_is_pinned_as_in_the_constraints():
    constraints = read_pins("constraints.txt")
    extras = (f"requirements-{name}.txt" for name in ("pack", "remote", "cloud", "dev"))
    for name in ("requirements.txt", *extras):
        requirements = read_pins(name)
        assert requirements
        assert {k: constraints.get(k) for k in requirements} == requirements


@pytest.mark.parametrize("name", ["pack", "remote", "cloud"])
def test_tests_have_what_some_need(name):
    some, dev = read_pins(f"requirements-{name}.txt"), read_pins("requirements-dev.txt")
    assert some
    assert some.items() <= dev.items()


def test_the_minimum_snakemake_is_no_newer_than_the_pin():
    minimum = re.search(r'min_version\("(.*)"\)', (ROOT / "Snakefile").read_text())[1]
    pinned = read_pins("requirements.txt")["snakemake"]
    assert [int(x) for x in minimum.split(".")] <= [int(x) for x in pinned.split(".")]


def test_every_make_target_is_explained():
    makefile = (ROOT / "Makefile").read_text()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    assert [target for target in targets if f"make {target}" not in readme] == []


def test_ci_runs_what_the_readme_explains():
    commands = (ROOT / ".ci" / "run").read_text().splitlines()
    makes = [line for line in commands if line.startswith("make ")]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make test" in makes
    assert all(command in readme for command in makes)


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)$", changes, re.MULTILINE)[0] == __version__


def test_the_container_has_the_pinned_environment():
    recipe = (ROOT / "envs" / "Dockerfile").read_text()
    copied = re.search(r"^COPY ([^$]*?)(?: \\)?\s+/tmp/envs/$", recipe, re.MULTILINE)[1].split()
    kinds = ("requirements", "requirements-remote", "requirements-cloud", "constraints")
    names = [f"{kind}.txt" for kind in kinds]
    assert copied == [f"envs/{name}" for name in names]
    assert all((ROOT / path).exists() for path in copied)
    assert "--constraint /tmp/envs/constraints.txt" in recipe
    for name in names[:3]:
        assert f"--requirement /tmp/envs/{name}" in recipe
    # AWS Batch would put its command behind an entry point.
    assert "ENTRYPOINT" not in recipe
    (conda,) = re.findall(r"- python=(\S+)", (ENVS / "videofeatures.yaml").read_text())
    assert recipe.startswith("#")
    assert f"FROM python:{conda}-" in recipe


def test_the_catalogue_of_workflows_is_told_what_the_readme_says():
    entry = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))
    usage = entry["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    options = re.findall(r"`(--[^`]+)`", usage["mandatory-flags"]["desc"])
    assert options
    assert all(f"snakemake {option}" in readme for option in options)
    # What a rule names is what the catalogue is told that the workflow can be deployed with.
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    deployment = usage["software-stack-deployment"]
    assert deployment["conda"] == ("conda:" in rules)
    assert deployment["apptainer"] == ("container:" in rules)
