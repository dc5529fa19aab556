"""Files of the hub have the identity that the hub says, and what cannot be had is one message."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT
from networks.hub_server import LARGE_BYTES, HubServer, run_hub, use_hub
from videofeatures.errors import UserError
from videofeatures.networks import hub

REPO = "owner/net"
LARGE = b"x" * LARGE_BYTES
SHA256 = hashlib.sha256(LARGE).hexdigest()
ORIGIN = f"hf://{REPO}/model.safetensors#sha256={SHA256}"


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[HubServer]:
    """A hub with one repository, whose client has an empty cache."""
    with run_hub() as server:
        server.files = {
            (REPO, "model.safetensors"): LARGE,
            (REPO, "config.json"): b'{"a": 1}',
        }
        use_hub(server.address, tmp_path / "home", monkeypatch)
        yield server


def message_of(function, *arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    (problem,) = caught.value.problems
    assert "\n" not in problem
    return problem


def test_an_origin_has_the_hash_that_the_hub_says_without_a_download(server):
    assert hub.find_origin(REPO, ["model.safetensors", "pytorch_model.bin"]) == ORIGIN
    assert [method for method, path in server.requests if "/resolve/" in path] == ["HEAD"]


def test_of_several_files_it_is_the_first_that_there_is(server):
    assert hub.find_origin(REPO, ["other.safetensors", "model.safetensors"]) == ORIGIN
    assert hub.find_origin(REPO, ["a.bin", "b.bin"]) == f"hf://{REPO}/a.bin"


def test_a_small_file_of_which_the_hub_has_no_sha256_is_hashed(server):
    server.files[REPO, "small.safetensors"] = b"small"
    digest = hashlib.sha256(b"small").hexdigest()
    origin = hub.find_origin(REPO, ["small.safetensors"])
    assert origin == f"hf://{REPO}/small.safetensors#sha256={digest}"


def test_a_download_is_kept_and_found_where_there_is_no_hub(server):
    path = hub.download(ORIGIN)
    assert path.read_bytes() == LARGE
    assert hub.read_json(REPO, "config.json") == {"a": 1}
    server.failing = True
    assert hub.find_origin(REPO, ["other.bin", "model.safetensors"]) == ORIGIN
    assert hub.download(ORIGIN) == path
    assert hub.read_json(REPO, "config.json") == hub.find_json(REPO, "config.json") == {"a": 1}
    assert hub.find_json(REPO, "other.json") is None


def test_a_file_in_the_cache_that_is_no_link_is_hashed(server):
    path = hub.download(ORIGIN)
    path.unlink()
    path.write_bytes(b"copied")
    server.failing = True
    digest = hashlib.sha256(b"copied").hexdigest()
    assert hub.find_origin(REPO, ["model.safetensors"]).endswith(digest)


def test_whether_a_file_can_be_had_is_known_without_a_download(server):
    hub.check_origin(ORIGIN)
    assert [method for method, path in server.requests if "/resolve/" in path] == ["HEAD"]
    server.failing = True
    assert "`hf download" in message_of(hub.check_origin, ORIGIN)
    server.failing = False
    hub.download(ORIGIN)
    server.failing = True
    hub.check_origin(ORIGIN)


def test_without_a_hub_or_a_cache_the_origin_has_no_hash_and_the_download_says_why(server):
    server.failing = True
    origin = hub.find_origin(REPO, ["model.safetensors", "pytorch_model.bin"])
    assert origin == f"hf://{REPO}/model.safetensors"
    message = message_of(hub.download, origin)
    for part in (
        f"model.safetensors of the repository {REPO}: it is not in the cache",
        "503",
        f"`hf download {REPO} model.safetensors`",
        "HF_HOME",
    ):
        assert part in message


def test_a_gated_repository_wants_a_token_which_is_told_to_nobody(server, monkeypatch):
    server.gated.add(REPO)
    assert hub.find_origin(REPO, ["model.safetensors"]) == f"hf://{REPO}/model.safetensors"
    for function, arguments in (
        (hub.download, (ORIGIN,)),
        (hub.read_json, (REPO, "config.json")),
        (hub.find_json, (REPO, "config.json")),
    ):
        message = message_of(function, *arguments)
        assert "HF_TOKEN" in message
        assert "accepted their terms" in message
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "hf_wrong" not in message_of(hub.download, ORIGIN)
    monkeypatch.setenv("HF_TOKEN", server.token)
    assert hub.find_origin(REPO, ["model.safetensors"]) == ORIGIN
    assert hub.download(ORIGIN).read_bytes() == LARGE


def test_a_repository_or_a_file_that_is_not_there_is_named(server):
    message = message_of(hub.read_json, "owner/nothing", "config.json")
    assert message.startswith("config.json of the repository owner/nothing: the hub has no such")
    message = message_of(hub.read_json, REPO, "nothing.json")
    assert message.startswith(f"nothing.json of the repository {REPO}: the repository has no such")
    assert hub.find_json(REPO, "nothing.json") is None
    with pytest.raises(UserError, match="no such repository"):
        hub.find_json("owner/nothing", "config.json")


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff"])
def test_what_is_no_json_is_named(server, content):
    server.files[REPO, "config.json"] = content
    message = message_of(hub.read_json, REPO, "config.json")
    assert message.startswith(f"{REPO}: config.json: is not ")


def test_a_download_that_ends_early_is_no_file(server):
    server.cut.add("model.safetensors")
    message = message_of(hub.download, ORIGIN)
    assert f"model.safetensors of the repository {REPO}" in message
    server.cut.clear()
    assert hub.download(ORIGIN).read_bytes() == LARGE


def test_the_client_takes_hub_cache_and_mode_from_the_environment(server, tmp_path):
    hub.download(ORIGIN)
    code = (
        "import sys\n"
        "from videofeatures.networks import hub\n"
        f"print(hub.find_origin({REPO!r}, ['model.safetensors']))\n"
        f"print(hub.download({ORIGIN!r}))\n"
    )
    for home, variables in (
        (tmp_path / "other", {"HF_ENDPOINT": server.address}),
        (tmp_path / "home", {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HUB_OFFLINE": "1"}),
    ):
        environment = os.environ | variables | {"HF_HOME": str(home)}
        environment["PYTHONPATH"] = str(ROOT / "scripts")
        process = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        origin, path = process.stdout.splitlines()
        assert origin == ORIGIN
        assert Path(path).is_relative_to(home)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("facebook/dinov2-base", True),
        ("a/b/c", False),
        ("videomae", False),
        ("../models", False),
        ("a/b\n", False),
        ("/tmp/x", False),
    ],
)
def test_what_the_name_of_a_repository_looks_like(name, is_one):
    assert hub.is_repository(name) == is_one


def test_an_origin_comes_apart_as_it_was_put_together():
    assert hub.split_origin(ORIGIN) == (REPO, "model.safetensors")
    assert hub.split_origin("hf://a/b/folder/c.bin") == ("a/b", "folder/c.bin")
    assert hub.is_origin(ORIGIN)
    assert not hub.is_origin(json.dumps("https://x/y"))
