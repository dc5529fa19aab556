"""Networks of transformers are transformers' own, in its own format, fed as its processors say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf

from networks.hub_server import HubServer, run_hub, use_hub
from videofeatures.errors import UserError
from videofeatures.networks.backbones import (
    BACKBONES,
    Backbone,
    families,
    find_backbone,
    from_transformers,
)
from videofeatures.networks.network import Network
from videofeatures.networks.weights import find_weights, prepare_weights

CPU = torch.device("cpu")

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 36,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 99,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
V_JEPA = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 16,
    "crop_size": 32,
    "frames_per_clip": 4,
    "pred_hidden_size": 48,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
}
NETWORKS = {
    "videomae": lambda: tf.VideoMAEForPreTraining(
        tf.VideoMAEConfig(
            **SMALL,
            num_frames=4,
            decoder_num_hidden_layers=1,
            decoder_hidden_size=16,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=16,
        )
    ),
    "videomae-classifier": lambda: tf.VideoMAEForVideoClassification(
        tf.VideoMAEConfig(**SMALL, num_frames=4)
    ),
    "vjepa2": lambda: tf.VJEPA2Model(tf.VJEPA2Config(**V_JEPA)),
    "vjepa2-classifier": lambda: tf.VJEPA2ForVideoClassification(tf.VJEPA2Config(**V_JEPA)),
    "timesformer": lambda: tf.TimesformerForVideoClassification(
        tf.TimesformerConfig(**SMALL, num_frames=4)
    ),
    "clip": lambda: tf.CLIPModel(
        tf.CLIPConfig(vision_config=SMALL, text_config=TEXT, projection_dim=24)
    ),
    "siglip": lambda: tf.SiglipModel(tf.SiglipConfig(vision_config=SMALL, text_config=TEXT)),
    "xclip": lambda: tf.XCLIPModel(
        tf.XCLIPConfig(
            vision_config=SMALL
            | {"num_frames": 4, "mit_hidden_size": 24, "mit_intermediate_size": 24}
            | {"mit_num_attention_heads": 2},
            text_config=TEXT,
            projection_dim=24,
        )
    ),
    "videoprism": lambda: tf.VideoPrismClipModel(
        tf.VideoPrismConfig(
            vision_config={
                "hidden_size": 32,
                "num_attention_heads": 2,
                "intermediate_size": 36,
                "image_size": 32,
                "num_frames": 4,
                "tubelet_size": [1, 8, 8],
                "num_spatial_layers": 1,
                "num_temporal_layers": 1,
                "num_auxiliary_layers": 1,
            },
            text_config={
                "hidden_size": 32,
                "intermediate_size": 16,
                "num_attention_heads": 2,
                "num_hidden_layers": 1,
                "vocab_size": 99,
            },
        )
    ),
    "dinov2": lambda: tf.Dinov2Model(tf.Dinov2Config(**SMALL)),
    "vit-classifier": lambda: tf.ViTForImageClassification(tf.ViTConfig(**SMALL)),
    "resnet-classifier": lambda: tf.ResNetForImageClassification(
        tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1])
    ),
}
CLIPS = (
    *("videomae", "videomae-classifier", "vjepa2", "vjepa2-classifier", "timesformer"),
    *("xclip", "videoprism"),
)


def expected_features(name: str, network, pixels: torch.Tensor) -> torch.Tensor:
    """What the library's own documentation calls a network's features."""
    if name.startswith("vjepa2"):
        base = network if name == "vjepa2" else network.vjepa2
        return base.get_vision_features(pixels).mean(dim=1)
    if name in ("xclip", "videoprism"):
        return network.get_video_features(pixels).pooler_output.flatten(1)
    if name in ("clip", "siglip"):
        return network.get_image_features(pixel_values=pixels).pooler_output
    if name == "dinov2":
        return network(pixels).pooler_output
    hidden = network.base_model(pixels).last_hidden_state
    if name.startswith("resnet"):
        return hidden.mean(dim=(2, 3))
    return hidden.mean(dim=1) if name.startswith("videomae") else hidden[:, 0]


@pytest.fixture(autouse=True)
def no_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    use_hub("http://127.0.0.1:1", tmp_path / "home", monkeypatch)


def make_network(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    for parameter in network.parameters():  # initial weights are next to nothing
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return network


def save(name: str, folder: Path) -> torch.nn.Module:
    """Save a small network as the library does it, and how it is fed."""
    network = make_network(name)
    network.save_pretrained(folder)
    if name.startswith("vjepa2"):
        content = {"video_processor_type": "VJEPA2VideoProcessor", "crop_size": 32}
        (folder / "video_preprocessor_config.json").write_text(json.dumps(content))
    elif name == "videoprism":
        content = {"video_processor_type": "LlavaOnevisionVideoProcessor"}
        content["size"] = {"height": 32, "width": 32}
        (folder / "video_preprocessor_config.json").write_text(json.dumps(content))
    elif name == "xclip":
        content = {"image_processor_type": "VideoMAEImageProcessor"}
        content |= {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        (folder / "preprocessor_config.json").write_text(json.dumps(content))
    elif name.startswith("resnet"):
        content = {"size": {"shortest_edge": 32}, "crop_pct": 0.875}
        (folder / "preprocessor_config.json").write_text(json.dumps(content))
    else:
        side = {"height": 32, "width": 32}
        content = {"size": side, "crop_size": side, "do_center_crop": False}
        (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return network


def use(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(BACKBONES, "mine", backbone)
    return "mine"


def make_batch(backbone: Backbone) -> np.ndarray:
    view = backbone.view
    side = view.crop_size or view.resize_size
    frames = (view.num_frames_per_clip,) if view.num_frames_per_clip else ()
    return np.random.default_rng(0).integers(0, 256, (2, *frames, side, side, 3), np.uint8)


def normalised(batch: np.ndarray, backbone: Backbone) -> torch.Tensor:
    """(N, 3, height, width), or (N, frames, 3, height, width), as the library has them."""
    pixels = torch.from_numpy(batch).float() - torch.tensor(backbone.mean)
    return (pixels / torch.tensor(backbone.std)).movedim(-1, -3)


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_transformers_own_of_a_folder_in_its_format(name, tmp_path, monkeypatch):
    network = save(name, tmp_path / "net")
    backbone = from_transformers.describe("net")
    assert (backbone.view.num_frames_per_clip is not None) == (name in CLIPS)
    path = prepare_weights(find_weights(use(backbone, monkeypatch), "auto"))
    assert path.suffix == ".safetensors"
    batch = make_batch(backbone)
    with torch.inference_mode():
        expected = expected_features(name, network, normalised(batch, backbone)).numpy()
    features = Network(backbone, path, device=CPU, dtype=torch.float32).features(batch)
    assert features.shape == (2, backbone.feature_dim) == expected.shape
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-5)
    assert not np.allclose(features[0], features[1], rtol=1e-2)


@pytest.mark.parametrize("name", NETWORKS)
def test_random_weights_and_each_pooling(name, tmp_path, monkeypatch):
    save(name, tmp_path / "net")
    backbone = from_transformers.describe("net")
    path = prepare_weights(find_weights(use(backbone, monkeypatch), "random"))
    batch = make_batch(backbone)
    features = {}
    for pooling, dim in backbone.poolings.items():
        network = Network(backbone, path, device=CPU, dtype=torch.float32, pooling=pooling)
        features[pooling] = network.features(batch)
        assert features[pooling].shape[-1] == dim
        assert features[pooling].ndim == (3 if pooling == "tokens" else 2)
        assert np.isfinite(features[pooling]).all()
    if "tokens" in features:
        np.testing.assert_allclose(features["tokens"].mean(axis=1), features["mean"], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "poolings", "num_tokens"),
    [
        ("videomae", {"mean": 32, "tokens": 32}, 2 * 4 * 4),
        ("vjepa2", {"mean": 48, "tokens": 48}, 2 * 2 * 2),
        ("timesformer", {"class_token": 32, "mean": 32, "tokens": 32}, 4 * 4 * 4),
        (
            "clip",
            {"projected": 24, "pooled": 32, "class_token": 32, "mean": 32, "tokens": 32},
            16,
        ),
        ("siglip", {"projected": 32, "pooled": 32, "mean": 32, "tokens": 32}, 16),
        ("dinov2", {"pooled": 32, "class_token": 32, "mean": 32, "tokens": 32}, 16),
        ("vit-classifier", {"class_token": 32, "mean": 32, "tokens": 32}, 16),
    ],
)
def test_what_a_feature_is_can_be_chosen(name, poolings, num_tokens, tmp_path):
    save(name, tmp_path / "net")
    backbone = from_transformers.describe("net")
    assert list(backbone.poolings.items()) == list(poolings.items())
    assert backbone.num_tokens == num_tokens
    pixels = torch.from_numpy(make_batch(backbone)).float().movedim(-1, 1)
    network = backbone.extract(backbone.build(), "tokens").eval()
    with torch.inference_mode():
        assert network(pixels).shape == (2, num_tokens, poolings["tokens"])


def test_a_text_tower_takes_no_memory_of_a_device(tmp_path):
    save("clip", tmp_path / "net")
    backbone = from_transformers.describe("net")
    for pooling in backbone.poolings:
        extracted = backbone.extract(backbone.build(), pooling)
        assert not any("text" in name for name, _ in extracted.named_parameters())


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub with a network, `owner/net`."""
    save("dinov2", tmp_path / "net")
    with run_hub() as server:
        use_hub(server.address, tmp_path / "home", monkeypatch)
        server.add("owner/net", tmp_path / "net")
        yield server


def test_a_repository_is_described_prepared_and_then_used_without_a_hub(
    server: HubServer, monkeypatch
):
    backbone = from_transformers.describe("owner/net")
    assert {
        path for method, path in server.requests if "safetensors" in path and method == "GET"
    } == (set())
    (origin,) = backbone.weights.values()
    assert origin.startswith("hf://owner/net/model.safetensors#sha256=")
    prepare_weights(find_weights(use(backbone, monkeypatch), "auto"))
    server.failing = True
    assert from_transformers.describe("owner/net") == backbone


def test_machines_without_a_hub_read_what_was_put_into_their_cache(server, monkeypatch):
    name = "transformers:owner/net"
    families.find.cache_clear()
    weights = find_weights(name, "auto")  # asks in another process, as a run does
    assert weights.shared_path == Path(
        f"resources/weights/transformers--owner--net-{weights.identity}.safetensors"
    )
    path = prepare_weights(weights)
    batch = make_batch(find_backbone(name))
    features = Network(find_backbone(name), path, device=CPU, dtype=torch.float32).features(batch)
    # Another machine: of these only the cache is there, as `hf download` leaves it.
    server.failing = True
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.rmtree("resources")
    families.find.cache_clear()
    assert find_weights(name, "auto") == weights
    assert prepare_weights(weights) == path
    again = Network(find_backbone(name), path, device=CPU, dtype=torch.float32).features(batch)
    np.testing.assert_array_equal(again, features)
    families.find.cache_clear()


def test_a_repository_that_cannot_be_had_says_which_file_to_put_where(server):
    server.failing = True
    with pytest.raises(UserError) as caught:
        from_transformers.describe("owner/net")
    for part in ("`hf download owner/net config.json`", "HF_HOME", "503"):
        assert part in str(caught.value)
    server.failing = False
    del server.files["owner/net", "preprocessor_config.json"]
    with pytest.raises(UserError, match=r"preprocessor_config\.json of the repository owner/net"):
        from_transformers.describe("owner/net")


def test_a_gated_repository_names_the_token(server):
    server.gated.add("owner/net")
    with pytest.raises(UserError, match="HF_TOKEN"):
        from_transformers.describe("owner/net")


def test_no_file_of_a_repository_is_run(server, tmp_path, monkeypatch):
    # The network is one that the library knows, so that its own code is there.
    config = json.loads(server.files["owner/net", "config.json"])
    config["auto_map"] = {"AutoModel": "evil.Net", "AutoConfig": "evil.Config"}
    config["_attn_implementation"] = "kernels-community/evil"
    processor = {"auto_map": {"AutoImageProcessor": "evil.Processor"}}
    server.files["owner/net", "config.json"] = json.dumps(config).encode()
    server.files["owner/net", "preprocessor_config.json"] = json.dumps(processor).encode()
    server.files["owner/net", "evil.py"] = b"open('pwned', 'w')"
    backbone = from_transformers.describe("owner/net")
    prepare_weights(find_weights(use(backbone, monkeypatch), "auto"))
    assert not Path("pwned").exists()
    assert not any("evil" in path for _, path in server.requests)
    assert "evil" not in backbone.arguments[0]


def test_a_network_that_needs_its_own_code_is_refused(server):
    config = {"model_type": "mine", "auto_map": {"AutoModel": "net.Net"}}
    server.files["owner/net", "config.json"] = json.dumps(config).encode()
    with pytest.raises(UserError, match=r"transformers:owner/net: needs code of its own"):
        from_transformers.describe("owner/net")


def test_nothing_in_a_weights_file_is_run(tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return (Path("pwned").touch, ())

    save("dinov2", tmp_path / "net")
    backbone = from_transformers.describe("net")
    torch.save({"a": Evil()}, "evil.bin")
    with pytest.raises(UserError, match="cannot be read as weights"):
        prepare_weights(find_weights(use(backbone, monkeypatch), "evil.bin"))
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("videomae", "videomae.encoder.layer.1.output.dense.weight"),
        ("vit-classifier", "vit.embeddings.cls_token"),
        ("clip", "visual_projection.weight"),
    ],
)
def test_a_file_without_all_weights_is_refused(name, missing, tmp_path, monkeypatch):
    from safetensors.torch import load_file, save_file

    save(name, tmp_path / "net")
    state = load_file("net/model.safetensors")
    del state[missing]
    save_file(state, "cut.safetensors")
    backbone = from_transformers.describe("net")
    with pytest.raises(UserError, match="these are not the weights"):
        prepare_weights(find_weights(use(backbone, monkeypatch), "cut.safetensors"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("videoma", r"transformers:videoma: is no folder.*did you mean videomae or"),
        ("bert", r"BertModel sees no images or clips without texts"),
        ("siglip2", r"Siglip2ImageProcessorPil resizes in a way of its own"),
        ("efficientnet", r"EfficientNetImageProcessorPil does more to an image than"),
        ("vit_mae", r"its features depend on chance"),  # it hides patches of each image
        ("a/b/c", r"is no folder"),
    ],
)
def test_what_cannot_be_used_says_why(name, message):
    with pytest.raises(UserError, match=message):
        from_transformers.describe(name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_resize": False}, "resizes in a way of its own"),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "makes frames of many sizes"),
        ({"do_pad": True, "pad_size": {"height": 40, "width": 40}}, "does more to an image"),
        ({"do_center_crop": True, "crop_size": {"height": 40, "width": 40}}, "Processor"),
        ({"resample": 0}, "resizes in a way of its own"),
        ({"size": {"height": 35, "width": 35}}, "does not take frames of 35×35"),
        ({"size": {"height": 32, "width": 48}}, "does not take frames of 48×32"),
        # Whole frames, as wide as the video is.
        ({"size": {"shortest_edge": 32}}, "does not take frames of 56×32"),
    ],
)
def test_what_a_view_cannot_do_is_refused(settings, message, tmp_path):
    save("clip", tmp_path / "net")
    path = tmp_path / "net" / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(UserError, match=message):
        from_transformers.describe("net")


def test_whole_frames_are_fed_to_a_network_that_takes_them(tmp_path):
    save("dinov2", tmp_path / "net")
    path = tmp_path / "net" / "preprocessor_config.json"
    content = json.loads(path.read_text()) | {"size": {"shortest_edge": 32}}
    path.write_text(json.dumps(content))
    view = from_transformers.describe("net").view
    assert (view.resize_size, view.crop_size, view.resize_mode) == (32, 0, "shortest")


def test_a_type_is_one_also_where_a_folder_has_its_name():
    Path("dinov2").mkdir()
    assert from_transformers.describe("dinov2").weights == {}


def test_quantized_weights_are_refused(tmp_path):
    save("dinov2", tmp_path / "net")
    path = tmp_path / "net" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {}}))
    with pytest.raises(UserError, match="its weights are quantized"):
        from_transformers.describe("net")


def test_settings_of_a_processor_are_its_own(tmp_path):
    save("dinov2", tmp_path / "net")
    content = {
        "size": {"shortest_edge": 40},
        "crop_size": {"height": 32, "width": 32},
        "resample": 2,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.5, 0.5],
        "rescale_factor": 1 / 128,
    }
    (tmp_path / "net" / "preprocessor_config.json").write_text(json.dumps(content))
    backbone = from_transformers.describe("net")
    view = backbone.view
    assert (view.resize_size, view.crop_size, view.interpolation) == (40, 32, "bilinear")
    assert (view.resize_mode, view.crop_rounding, view.frame_rate) == ("shortest", "down", 1)
    np.testing.assert_allclose(backbone.mean, (12.8, 25.6, 38.4))
    np.testing.assert_allclose(backbone.std, (64, 64, 64))


def test_a_description_is_data(tmp_path):
    save("clip", tmp_path / "net")
    backbone = from_transformers.describe("net")
    assert Backbone.from_json(json.loads(json.dumps(vars(backbone), default=vars))) == backbone


def test_clips_say_how_many_frames_they_have_and_their_rate_if_the_library_does(tmp_path):
    save("videomae", tmp_path / "net")
    view = from_transformers.describe("net").view
    assert (view.num_frames_per_clip, view.frame_rate, view.last_clip) == (4, "native", "shift")
    path = tmp_path / "net" / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fps": 8}))
    assert from_transformers.describe("net").view.frame_rate == 8


def test_building_needs_no_hub_and_leaves_no_tensor_without_numbers(tmp_path):
    save("videomae", tmp_path / "net")
    backbone = from_transformers.describe("net")
    with torch.device("meta"):
        network = backbone.build()
    assert not any(t.is_meta for t in (*network.parameters(), *network.buffers()))
    assert not network.embeddings.position_embeddings.is_meta  # which is neither of these
