"""Weights are the ones that were asked for, or there is a message that helps."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import ROOT, make_recipe, seeded_state
from videofeatures.errors import UserError
from videofeatures.networks.backbones import BACKBONES
from videofeatures.networks.network import open_network
from videofeatures.networks.weights import (
    check_content,
    find_weights,
    identity_of,
    load_network,
    prepare_weights,
)
from videofeatures.settings import Settings

NAME = "efficientnet_lite0"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return seeded_state(NAME)


def save(content: object, path: str = "my.pth") -> str:
    torch.save(content, path)
    return path


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_packaged_weights_are_copied_and_carry_their_hash():
    path = prepare_weights(find_weights(NAME, "auto"))
    assert path == Path("resources/weights/efficientnet_lite0-57934424.pth")
    assert sha256(path).startswith(identity_of(path))
    by_name = find_weights(NAME, "IMAGENET1K")
    assert by_name._replace(requested="auto") == find_weights(NAME, "auto")


def test_a_local_file_is_known_by_its_content(state):
    found = find_weights(NAME, save(state))
    assert found.identity == sha256("my.pth")[:8]
    path = prepare_weights(found)
    assert path.name == f"efficientnet_lite0-{found.identity}.pth"
    assert path.read_bytes() == Path("my.pth").read_bytes()
    Path("my.pth").rename("moved.pth")
    assert find_weights(NAME, "moved.pth").identity == found.identity
    assert find_weights(NAME, "my.pth").identity is None


def test_a_prepared_file_is_not_made_again():
    path = prepare_weights(find_weights(NAME, "auto"))
    before = path.stat()
    assert prepare_weights(find_weights(NAME, "auto")).stat() == before


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "arch": "x", "epoch": 3},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
        # Files of 2017 do not have these.
        lambda state: {k: v for k, v in state.items() if not k.endswith("batches_tracked")},
    ],
)
def test_every_published_layout_loads_the_same(state, wrap):
    network = load_network(BACKBONES[NAME], prepare_weights(find_weights(NAME, save(wrap(state)))))
    for name, tensor in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)


def test_random_weights_are_seeded():
    first = prepare_weights(find_weights(NAME, "random"))
    assert first.name == "efficientnet_lite0-random.pth"
    before = torch.load(first, weights_only=True)
    first.unlink()
    torch.rand(3)  # the seed does not depend on what happened before
    after = torch.load(prepare_weights(find_weights(NAME, "random")), weights_only=True)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.zeros(1)}, "these are not the weights of efficientnet_lite0 (Missing key"),
        ({"state": 3}, "holds no state dict"),
        ([torch.zeros(1)], "holds no state dict"),
        ({}, "holds no state dict"),
    ],
)
def test_a_wrong_file_is_one_message(content, message):
    with pytest.raises(UserError) as caught:
        prepare_weights(find_weights(NAME, save(content)))
    assert message in str(caught.value)
    assert str(caught.value).startswith("my.pth: ")
    assert list(Path("resources/weights").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("sparse", lambda tensor: tensor.to_sparse()),
        ("sparse", lambda tensor: tensor.flatten(1).to_sparse_csr()),
        ("meta", lambda tensor: tensor.to("meta")),
        ("complex", lambda tensor: tensor.to(torch.complex64)),
        ("quantized", lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_numbers_are_named(state, kind, change):
    wrong = state | {"_fc.weight": change(state["_fc.weight"])}
    with pytest.raises(UserError, match=rf"my\.pth: _fc.weight is a {kind} tensor|as weights"):
        prepare_weights(find_weights(NAME, save(wrong)))
    assert list(Path("resources/weights").iterdir()) == []


def test_a_copy_that_was_damaged_since_is_found(state):
    path = prepare_weights(find_weights(NAME, save(state)))
    check_content(path)
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(UserError, match=rf"{path}: is damaged, .* Remove it"):
        check_content(path)
    recipe = make_recipe(Settings(backbone=NAME), path)
    with pytest.raises(UserError, match="is damaged"):
        open_network(recipe, Settings(backbone=NAME, device="cpu"))


def test_random_weights_have_no_content_to_check():
    check_content(prepare_weights(find_weights(NAME, "random")))


def test_what_a_killed_copy_has_left_is_removed_by_the_next_one(state):
    found = find_weights(NAME, save(state))
    code = (
        "import os, signal, shutil\n"
        "from videofeatures.networks import weights\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "weights.hash_content = die\n"
        f"weights.prepare_weights(weights.Weights(*{tuple(found)!r}))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == -9
    assert len(list(Path("resources/weights").glob(".*.part"))) == 1
    path = prepare_weights(found)
    assert list(Path("resources/weights").iterdir()) == [path]


def test_weights_of_another_shape_are_named(state):
    wrong = state | {"_fc.weight": torch.zeros(10, 1280)}
    with pytest.raises(UserError, match="size mismatch for _fc"):
        prepare_weights(find_weights(NAME, save(wrong)))


def test_a_file_that_is_cut_off_is_named(state):
    content = Path(save(state)).read_bytes()
    Path("my.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"my\.pth: cannot be read as weights"):
        prepare_weights(find_weights(NAME, "my.pth"))


def test_nothing_in_a_weights_file_is_run():
    class Evil:
        def __reduce__(self):
            return (Path("pwned").touch, ())

    with pytest.raises(UserError, match="cannot be read as weights"):
        prepare_weights(find_weights(NAME, save({"a": Evil()})))
    assert not Path("pwned").exists()


def test_a_missing_file_says_what_can_be_asked_for():
    found = find_weights("resnet152", "nothing.pth")
    assert found.identity is None
    with pytest.raises(UserError, match=r"nothing\.pth: no such weights file.*IMAGENET1K_V1"):
        prepare_weights(found)


def test_missing_published_weights_say_where_to_fetch_and_put_them():
    with pytest.raises(UserError) as caught:
        prepare_weights(find_weights("resnext101", "auto"))
    for part in ("https://www.rocq.inria.fr", "model/resnext101.pth", "`weights`", "random"):
        assert part in str(caught.value)


def test_a_missing_file_in_the_users_folder_is_not_taken_for_published_weights():
    with pytest.raises(UserError, match=r"model/typo\.pth: no such weights file"):
        prepare_weights(find_weights("resnext101", "model/typo.pth"))


def test_what_is_said_of_one_backbone_s_weights_is_not_said_of_another_s():
    path = "model/resnet152-394f9c45.pth"
    with pytest.raises(UserError) as caught:
        prepare_weights(find_weights("resnet152", path))
    assert "https://download.pytorch.org/models/resnet152-394f9c45.pth" in str(caught.value)
    assert "dead" not in str(caught.value)


def test_files_put_by_hand_are_found(state):
    Path("model").mkdir()
    file = save(seeded_state("resnext101"), "model/resnext101.pth")
    path = prepare_weights(find_weights("resnext101", "auto"))
    assert path.name == f"resnext101-{sha256(file)[:8]}.pth"


def test_a_file_put_by_hand_must_have_the_hash_in_its_name(state):
    Path("model").mkdir()
    save(state, "model/efficientnet-lite0-57934424.pth")
    with pytest.raises(UserError, match=r"SHA-256 starts with .*, not 57934424"):
        prepare_weights(find_weights(NAME, "auto"))


@pytest.fixture
def web(tmp_path):
    """A web server for the files of a folder; gives (folder, address)."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def published(web, state, monkeypatch):
    """Weights that are published on the web, under a name that holds their hash."""
    folder, address = web
    file = folder / "x.pth"
    torch.save(state, file)
    file = file.rename(folder / f"net-{sha256(file)[:8]}.pth")
    backbone = replace(BACKBONES[NAME], weights={"V1": f"{address}/{file.name}"})
    monkeypatch.setitem(BACKBONES, NAME, backbone)
    return file


def test_named_weights_are_downloaded_and_verified(published):
    path = prepare_weights(find_weights(NAME, "V1"))
    assert path.read_bytes() == published.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_download_that_differs_from_its_hash_is_refused(published):
    published.write_bytes(published.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"it is incomplete, or not that file\. Fetch it again"):
        prepare_weights(find_weights(NAME, "V1"))
    assert list(Path("resources/weights").iterdir()) == []


def test_a_download_that_fails_says_what_to_do(published):
    published.unlink()
    with pytest.raises(UserError) as caught:
        prepare_weights(find_weights(NAME, "V1"))
    for part in (published.name, "404", f"put it at model/{published.name}", "`weights`"):
        assert part in str(caught.value)
    assert list(Path("resources/weights").iterdir()) == []


def test_torch_s_own_cache_saves_a_download(published, monkeypatch):
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    cache.mkdir(parents=True)
    published.rename(cache / published.name)
    assert prepare_weights(find_weights(NAME, "V1")).exists()
