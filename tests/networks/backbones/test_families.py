"""A name becomes a backbone by asking its library, once, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from conftest import ROOT
from videofeatures.errors import UserError
from videofeatures.networks.backbones import Backbone, families, find_backbone


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    families.find.cache_clear()
    yield
    families.find.cache_clear()


@pytest.fixture
def described_here(monkeypatch):
    """Libraries are asked in this process, which has imported them."""
    monkeypatch.setattr(families, "_ask", lambda *name: asdict(families.describe(*name)))


def test_a_library_is_asked_once_and_what_it_said_is_kept(monkeypatch):
    found = find_backbone("torchvision:resnet50")
    path = families.path_of("torchvision:resnet50")
    assert str(path) == "resources/backbones/torchvision--resnet50.json"
    families.find.cache_clear()
    monkeypatch.setattr(families, "_ask", lambda *_: pytest.fail("asked again"))
    assert find_backbone("torchvision:resnet50") == found
    assert isinstance(found, Backbone)


def test_another_version_of_the_library_is_asked_again(described_here):
    found = find_backbone("torchvision:resnet50")
    path = families.path_of("torchvision:resnet50")
    content = json.loads(path.read_text())
    content["made_with"]["torchvision"] = "0.1"
    content["backbone"]["feature_dim"] = 7
    path.write_text(json.dumps(content))
    families.find.cache_clear()
    assert find_backbone("torchvision:resnet50") == found
    assert json.loads(path.read_text())["backbone"]["feature_dim"] == 2048


@pytest.mark.parametrize("content", ["", "[]", '{"made_with": null}', '{"backbone": {}}'])
def test_a_description_that_cannot_be_read_is_made_again(content, described_here):
    path = families.path_of("torchvision:resnet50")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert find_backbone("torchvision:resnet50").feature_dim == 2048


def test_where_nothing_can_be_kept_it_is_asked_each_time(tmp_path, described_here):
    (tmp_path / "resources").write_text("a file where the folder should be")
    assert find_backbone("torchvision:resnet50").feature_dim == 2048


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vgg", r"'vgg' is not one of resnet152, .*, torchvision:NAME, timm:NAME"),
        ("hub:x", r"'hub:x' is not one of"),
        ("torchvision:resnt50", r"no network 'resnt50'; did you mean resnet50"),
        ("torchvision:resnet50/V7", r"no weights 'V7' of resnet50: IMAGENET1K_V1, IMAGENET1K_V2"),
        ("timm:resnt50", r"timm has no network 'resnt50'; did you mean resnet50"),
        ("timm:resnet50.none", r"timm has no weights"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(name, message, described_here):
    with pytest.raises(UserError, match=message):
        find_backbone(name)


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(families.FAMILIES, "timm", ("from_timm", ("no-such-package",)))
    with pytest.raises(UserError, match=r"needs the package no-such-package.*make env"):
        find_backbone("timm:resnet50")


def test_a_library_that_fails_says_its_last_words(monkeypatch):
    monkeypatch.setattr(families, "SCRIPT", "import sys; sys.exit('it broke')")
    with pytest.raises(UserError, match=r"^timm:resnet50: it broke$"):
        find_backbone("timm:resnet50")


def test_a_library_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(families, "SCRIPT", "import time; time.sleep(60)")
    monkeypatch.setattr(families, "MAX_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"said nothing in 0\.2 s.*HF_HUB_OFFLINE"):
        find_backbone("timm:resnet50")


def test_names_of_files_are_safe():
    assert families.safe_name("timm:resnet50.a1_in1k") == "timm--resnet50.a1_in1k"
    assert families.safe_name("transformers:/a b/../c") == "transformers--a--b--..--c"


def test_planning_imports_no_library():
    families.find("torchvision", "resnet18")
    script = (
        "import sys; from videofeatures.networks.backbones import find_backbone;"
        "print(find_backbone('torchvision:resnet18').feature_dim);"
        "sys.exit(bool({'torch', 'torchvision', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "512\n"), done.stderr
