"""Weights in several files are what they are in one, and each file is verified."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from networks.hub_server import LARGE_BYTES, HubServer, run_hub, use_hub
from videofeatures.errors import UserError
from videofeatures.networks import shards
from videofeatures.networks.backbones import families, find_backbone
from videofeatures.networks.backbones.from_transformers import describe
from videofeatures.networks.weights import (
    check_content,
    find_weights,
    load_network,
    prepare_weights,
)

REPO = "owner/net"
NAME = f"transformers:{REPO}"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A network as the library saves large ones."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=36,
        image_size=32,
        patch_size=8,
        num_labels=20,
    )
    folder = tmp_path_factory.mktemp("sharded")
    # Under a head, so that its layers have other names than those of the network without.
    transformers.ViTForImageClassification(config).save_pretrained(folder, max_shard_size="25KB")
    side = {"height": 32, "width": 32}
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": side}))
    assert len(shards_in(folder)) > 2
    assert all(path.stat().st_size >= LARGE_BYTES for path in shards_in(folder))
    return folder


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    use_hub("http://127.0.0.1:1", tmp_path / "home", monkeypatch)
    # In this process, which is quicker.
    monkeypatch.setattr(families, "_ask", lambda *name: asdict(families.describe(*name)))
    families.find.cache_clear()
    yield
    families.find.cache_clear()


@pytest.fixture
def server(folder, tmp_path, monkeypatch) -> Iterator[HubServer]:
    """A hub that has the network."""
    with run_hub() as server:
        use_hub(server.address, tmp_path / "home", monkeypatch)
        server.add(REPO, folder)
        yield server


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """The network in a folder of its own."""
    return Path(shutil.copytree(folder, tmp_path / "mine"))


def shards_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*-of-*.safetensors"))


def shared_files() -> list[str]:
    return sorted(path.name for path in Path("resources/weights").iterdir())


def message_of(function, *arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    return str(caught.value)


def assert_has_weights_of(network: torch.nn.Module, folder: Path) -> None:
    expected = transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False).state_dict()
    found = network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_repository_of_several_files_is_fetched_verified_and_then_used_without_a_hub(
    server, folder
):
    weights = find_weights(NAME, "auto")
    assert not any(method == "GET" and "-of-" in path for method, path in server.requests)
    path = prepare_weights(weights)
    assert path == Path(f"resources/weights/transformers--owner--net-{weights.identity}.json")
    assert len(shared_files()) == 1 + len(shards_in(folder))
    check_content(path)
    assert_has_weights_of(load_network(find_backbone(NAME), path), folder)

    # Another machine, of which only the cache is there.
    server.failing = True
    before = shared_files()
    shutil.rmtree("resources")
    families.find.cache_clear()
    assert find_weights(NAME, "auto") == weights
    prepare_weights(weights)
    assert shared_files() == before


def test_a_file_that_the_hub_does_not_have_is_named(server, folder):
    name = shards_in(folder)[1].name
    del server.files[REPO, name]
    assert f"{name} of the repository {REPO}" in message_of(describe, REPO)


def test_a_file_that_is_not_in_the_cache_is_named(server, folder, tmp_path):
    weights = find_weights(NAME, "auto")
    prepare_weights(weights)
    shutil.rmtree("resources")
    name = shards_in(folder)[-1].name
    (link,) = (tmp_path / "home").rglob(name)
    link.unlink()
    server.failing = True
    families.find.cache_clear()
    assert f"hf download {REPO} {name}" in message_of(find_weights, NAME, "auto")
    # Known, and not fetched.
    assert f"hf download {REPO} {name}" in message_of(prepare_weights, weights)


def test_a_file_that_is_another_than_the_hub_says_is_refused(server, folder):
    weights = find_weights(NAME, "auto")
    name = shards_in(folder)[1].name
    server.changed.add(name)
    message = message_of(prepare_weights, weights)
    assert f"hf://{REPO}/{name}: its SHA-256 starts with" in message
    assert not weights.shared_path.exists()
    assert not any(name.startswith(Path(name).stem + "-") for name in shared_files())


def test_a_repository_that_changed_since_is_refused_before_it_is_fetched(server, folder):
    weights = find_weights(NAME, "auto")
    name = shards_in(folder)[1].name
    server.files[REPO, name] = server.files[REPO, shards_in(folder)[0].name]
    assert "If its repository has changed" in message_of(prepare_weights, weights)
    assert not any(method == "GET" and "-of-" in path for method, path in server.requests)


def test_a_folder_of_several_files_is_known_by_the_content_of_each(copy, folder):
    name = f"transformers:{copy}"
    weights = find_weights(name, "auto")
    assert_has_weights_of(load_network(find_backbone(name), prepare_weights(weights)), folder)
    shard = shards_in(copy)[-1]
    save_file({key: tensor + 1 for key, tensor in load_file(shard).items()}, shard)
    changed = find_weights(name, "auto")
    assert changed.identity != weights.identity
    # As a user names them, for a network that was described without.
    assert find_weights("transformers:vit", str(copy / INDEX)).identity == changed.identity
    prepare_weights(changed)
    assert len(shared_files()) == 2 + len(shards_in(copy)) + 1
    shard.unlink()
    assert f"{shard}: is missing" in message_of(find_weights, name, "auto")


def test_a_repository_s_files_are_found_where_users_put_them(server, folder):
    weights = find_weights(NAME, "auto")
    server.failing = True
    shutil.copytree(folder, "model/owner--net")
    by_hand = find_weights(NAME, "auto")
    assert by_hand.origin == f"model/owner--net/{INDEX}"
    assert by_hand.shared_path == weights.shared_path
    prepare_weights(by_hand)


def test_files_that_were_damaged_or_lost_since_are_named(copy):
    path = prepare_weights(find_weights(f"transformers:{copy}", "auto"))
    shard = next(Path("resources/weights").glob("model-00001-*"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    message = message_of(check_content, path)
    assert f"{shard}: is damaged" in message
    assert str(path) in message
    shard.unlink()
    assert f"{shard}: is missing" in message_of(check_content, path)
    assert f"{shard}: is missing" in message_of(
        load_network, find_backbone(f"transformers:{copy}"), path
    )


def test_files_that_are_not_all_of_a_network_are_refused(copy):
    (first, *_), index = shards_in(copy), json.loads((copy / INDEX).read_text())
    index["weight_map"] = {k: v for k, v in index["weight_map"].items() if v != first.name}
    (copy / INDEX).write_text(json.dumps(index))
    weights = find_weights(f"transformers:{copy}", "auto")
    assert "these are not the weights of" in message_of(prepare_weights, weights)
    assert not weights.shared_path.exists()


def test_a_tensor_that_is_there_twice_is_refused(copy):
    first, second, *_ = shards_in(copy)
    shutil.copy(first, second)
    weights = find_weights(f"transformers:{copy}", "auto")
    assert "which another shard has, too" in message_of(prepare_weights, weights)


@pytest.mark.parametrize(
    "of_tensors",
    [
        None,
        {},
        {"a": 1},
        {"a": "../evil.safetensors"},
        {"a": "/etc/evil.safetensors"},
        {"a": ".hidden.safetensors"},
        {"a": "pytorch_model-00001-of-00002.bin"},
    ],
)
def test_an_index_names_only_files_of_safetensors_beside_it(copy, of_tensors):
    (copy / INDEX).write_text(json.dumps({"weight_map": of_tensors}))
    message = message_of(shards.make_listing, str(copy / INDEX))
    assert f"{copy / INDEX}: names no files of weights" in message
