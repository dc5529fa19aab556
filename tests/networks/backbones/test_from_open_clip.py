"""Image towers of open_clip are open_clip's own, and features are what it compares with texts."""

from __future__ import annotations

import json

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from networks.hub_server import run_hub, use_hub
from videofeatures.errors import UserError
from videofeatures.networks.backbones import BACKBONES, Backbone, families, from_open_clip
from videofeatures.networks.network import Network
from videofeatures.networks.weights import find_weights, prepare_weights

CPU = torch.device("cpu")

TEXT = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
TOWERS = {
    "tiny-vit": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "tiny-resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8},
    "tiny-timm": {
        "image_size": 64,
        "timm_model_name": "test_resnet",
        "timm_pool": "avg",
        "timm_proj": "linear",
    },
}
SETTINGS = {
    "hf_hub": "owner/tiny/",
    "mean": (0.4, 0.5, 0.6),
    "std": (0.1, 0.2, 0.3),
    "interpolation": "bilinear",
    "resize_mode": "squash",
    "quick_gelu": True,
}


@pytest.fixture(autouse=True)
def tiny_models(tmp_path, monkeypatch):
    """Small models, with weights tagged `own`; no hub."""
    for name, tower in TOWERS.items():
        config = {"embed_dim": 24, "vision_cfg": tower, "text_cfg": TEXT}
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, {"own": SETTINGS})
    monkeypatch.chdir(tmp_path)
    use_hub("http://127.0.0.1:1", tmp_path / "home", monkeypatch)


def make_whole(name: str, seed: int = 0) -> torch.nn.Module:
    """The library's own model, of both towers, with random weights."""
    torch.manual_seed(seed)
    whole = open_clip.create_model(name, force_quick_gelu=True).eval()
    for module in whole.modules():  # whose means and variances say nothing yet
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    return whole


def use(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name by which the backbone is found without another process, which has no tiny models."""
    monkeypatch.setitem(BACKBONES, "mine", backbone)
    return "mine"


def random_batch(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)


def normalised(batch: np.ndarray) -> torch.Tensor:
    pixels = torch.from_numpy(batch).float() / 255
    pixels = (pixels - torch.tensor(SETTINGS["mean"])) / torch.tensor(SETTINGS["std"])
    return pixels.movedim(-1, 1)


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_features_are_open_clip_s_own_with_weights_in_its_format(name, suffix, monkeypatch):
    whole = make_whole(name)
    if suffix == ".pth":
        torch.save(whole.state_dict(), f"file{suffix}")
    else:
        save_file(whole.state_dict(), f"file{suffix}")
    backbone = from_open_clip.describe(f"{name}/own")
    path = prepare_weights(find_weights(use(backbone, monkeypatch), f"file{suffix}"))
    network = Network(backbone, path, device=CPU, dtype=torch.float32)
    batch = random_batch(backbone.view.resize_size)
    with torch.inference_mode():
        expected = whole.encode_image(normalised(batch))
    assert backbone.feature_dim == 24
    np.testing.assert_allclose(network.features(batch), expected.numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", TOWERS)
def test_random_weights_and_each_pooling(name, monkeypatch):
    backbone = from_open_clip.describe(name)
    path = prepare_weights(find_weights(use(backbone, monkeypatch), "random"))
    batch = random_batch(backbone.view.resize_size)
    for pooling, dim in backbone.poolings.items():
        network = Network(backbone, path, device=CPU, dtype=torch.float32, pooling=pooling)
        features = network.features(batch)
        assert features.shape == ((2, 16, dim) if pooling == "tokens" else (2, dim))
        assert np.isfinite(features).all()
        assert not np.allclose(features[0], features[1])


def test_what_a_feature_is_can_be_chosen():
    torch.manual_seed(0)
    backbone = from_open_clip.describe("tiny-vit/own")
    assert backbone.poolings == {"projected": 24, "pooled": 32, "mean": 32, "tokens": 32}
    assert backbone.num_tokens == 16
    state = backbone.build().state_dict()
    pixels = normalised(random_batch(32))
    features = {}
    for pooling in backbone.poolings:
        network = backbone.build()
        network.load_state_dict(state)
        with torch.inference_mode():
            features[pooling] = backbone.extract(network, pooling).eval()(pixels)
    projected = features["pooled"] @ state["proj"]
    torch.testing.assert_close(features["projected"], projected)
    torch.testing.assert_close(features["mean"], features["tokens"].mean(dim=1))
    # The class token is none of the patches'.
    assert not torch.isclose(features["tokens"], features["pooled"][:, None]).all(-1).any()


def test_it_is_fed_as_open_clip_says():
    backbone = from_open_clip.describe("tiny-vit/own")
    view = backbone.view
    assert (view.resize_size, view.crop_size, view.resize_mode) == (32, 0, "squash")
    assert (view.interpolation, view.resizer, view.frame_rate) == ("bilinear", "pillow", 1)
    np.testing.assert_allclose(backbone.mean, (102, 127.5, 153))
    np.testing.assert_allclose(backbone.std, (25.5, 51, 76.5))
    assert Backbone.from_json(json.loads(json.dumps(vars(backbone), default=vars))) == backbone


@pytest.mark.parametrize(
    ("name", "kind", "gelu"),
    [
        # The model's name says nothing of it, but these weights were trained with it.
        ("ViT-B-32/openai", "QuickGELU", True),
        ("ViT-B-32-quickgelu/openai", "QuickGELU", True),
        ("ViT-B-32/laion2b_s34b_b79k", "GELU", False),
    ],
)
def test_the_network_has_the_activation_that_its_weights_were_trained_with(name, kind, gelu):
    with torch.device("meta"):
        tower = from_open_clip._build(*name.split("/"))
    assert {type(block.mlp.gelu).__name__ for block in tower.transformer.resblocks} == {kind}
    settings = open_clip.get_pretrained_cfg(*name.split("/"))
    assert bool(settings.get("quick_gelu")) is gelu


def test_the_first_weights_are_those_of_a_model_alone():
    model = "ViT-B-32"
    first = open_clip.list_pretrained_tags_by_model(model)[0]
    assert from_open_clip.describe(model) == from_open_clip.describe(f"{model}/{first}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-23", r"open_clip has no model 'ViT-B-23'; did you mean ViT-B-32 or"),
        ("vit-b-32/openai", r"did you mean ViT-B-32 or"),
        ("ViT-B-16-SigLIP2/openai", r"no weights 'openai' of ViT-B-16-SigLIP2: webli"),
        ("ViT-S-32/openai", r"it knows of none"),
        ("zzz", r"no model 'zzz'\. open_clip\.list_models"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(name, message):
    with pytest.raises(UserError, match=message):
        from_open_clip.describe(name)


def test_a_model_without_weights_can_be_tried_out():
    backbone = from_open_clip.describe("ViT-S-32-alt")
    assert backbone.weights == {}
    assert "no weights" in backbone.weights_hint


def test_weights_come_from_the_hub_safetensors_first(tmp_path, monkeypatch):
    whole = make_whole("tiny-vit")
    folder = tmp_path / "repository"
    folder.mkdir()
    torch.save(whole.state_dict(), folder / "open_clip_pytorch_model.bin")
    with run_hub() as server:
        use_hub(server.address, tmp_path / "home", monkeypatch)
        server.add("owner/tiny", folder)
        (origin,) = from_open_clip.describe("tiny-vit").weights.values()
        assert "/open_clip_pytorch_model.bin#sha256=" in origin
        save_file(whole.state_dict(), folder / "open_clip_model.safetensors")
        server.add("owner/tiny", folder)
        backbone = from_open_clip.describe("tiny-vit")
        (origin,) = backbone.weights.values()
        assert origin.startswith("hf://owner/tiny/open_clip_model.safetensors#sha256=")
        path = prepare_weights(find_weights(use(backbone, monkeypatch), "auto"))
    batch = random_batch(32)
    with torch.inference_mode():
        expected = whole.encode_image(normalised(batch))
    network = Network(backbone, path, device=CPU, dtype=torch.float32)
    np.testing.assert_allclose(network.features(batch), expected.numpy(), rtol=1e-3, atol=1e-5)


def test_weights_that_cannot_be_had_are_one_message_of_which_file_to_put_where():
    families.find.cache_clear()
    weights = find_weights("open_clip:MobileCLIP-S1/datacompdr", "auto")
    assert weights.identity is None
    with pytest.raises(UserError) as caught:
        prepare_weights(weights)
    for part in (
        "open_clip_model.safetensors of the repository apple/MobileCLIP-S1-OpenCLIP",
        "`hf download apple/MobileCLIP-S1-OpenCLIP open_clip_model.safetensors`",
        "put it at model/apple--MobileCLIP-S1-OpenCLIP/open_clip_model.safetensors",
        "`weights: random`",
    ):
        assert part in str(caught.value)


def test_weights_that_were_changed_on_their_way_are_refused(tmp_path, monkeypatch):
    folder = tmp_path / "repository"
    folder.mkdir()
    save_file(make_whole("tiny-vit").state_dict(), folder / "open_clip_model.safetensors")
    with run_hub() as server:
        use_hub(server.address, tmp_path / "home", monkeypatch)
        server.add("owner/tiny", folder)
        server.changed.add("open_clip_model.safetensors")
        backbone = from_open_clip.describe("tiny-vit")
        with pytest.raises(UserError, match=r"hf://owner/tiny/.*: its SHA-256 starts with"):
            prepare_weights(find_weights(use(backbone, monkeypatch), "auto"))
    assert list((tmp_path / "resources" / "weights").iterdir()) == []


@pytest.mark.parametrize("missing", ["visual.proj", "visual.transformer.resblocks.1.ln_1.bias"])
def test_a_file_without_all_of_the_tower_is_refused(missing, monkeypatch):
    state = make_whole("tiny-vit").state_dict()
    del state[missing]
    save_file(state, "file.safetensors")
    backbone = from_open_clip.describe("tiny-vit")
    with pytest.raises(UserError, match=missing.removeprefix("visual.")):
        prepare_weights(find_weights(use(backbone, monkeypatch), "file.safetensors"))


def test_building_needs_no_hub_and_leaves_no_tensor_without_numbers():
    with torch.device("meta"):
        tower = from_open_clip.build("ViT-S-32-alt", "")
    tensors = [*tower.parameters(), *tower.buffers()]
    assert tensors
    assert not any(tensor.is_meta for tensor in tensors)
