"""Networks by name, from the command line to the file: features are those of their libraries."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from conftest import Workflow, make_clip, run_ffmpeg
from networks.hub_server import run_hub

NAME = "vit_tiny_patch16_224"
REPOSITORY = "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
SIZES = {"wide": "334x186", "tall": "180x322"}


def whole_frames(path: Path, size: str, folder: Path, *options: str) -> np.ndarray:
    """Frames of a video as they are, (N, height, width, 3), uint8."""
    width, height = map(int, size.split("x"))
    run_ffmpeg("-i", path, *options, "-f", "rawvideo", "-pix_fmt", "rgb24", folder / "frames")
    return np.fromfile(folder / "frames", np.uint8).reshape(-1, height, width, 3)


def unit(features: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(features, dim=-1).numpy()


def test_a_network_of_timm_from_the_hub_to_the_file(workflow: Workflow, tmp_path):
    torch.manual_seed(1)
    theirs = timm.create_model(NAME).eval()
    (tmp_path / "hub").mkdir()
    save_file(theirs.state_dict(), tmp_path / "hub" / "model.safetensors")
    (workflow.folder / "resources").unlink()  # its own, not that of other tests
    cache = {"HF_HOME": str(tmp_path / "cache")}
    workflow.config["backbone"] = f"timm:{NAME}"
    for name, size in SIZES.items():
        make_clip(tmp_path / f"{name}.mp4", seconds=3, size=size)
    workflow.write_rows(*((f"{name}.mp4", f"features/{name}.npy") for name in SIZES))
    with run_hub() as hub:
        hub.add(REPOSITORY, tmp_path / "hub")
        workflow.environment = dict(os.environ) | cache | {"HF_ENDPOINT": hub.address}
        workflow.run(half_precision=False)
    (weights,) = (workflow.folder / "resources" / "weights").iterdir()
    assert weights.name.startswith(f"timm--{NAME}-")
    assert weights.suffix == ".safetensors"

    transform = timm.data.create_transform(
        **timm.data.resolve_model_data_config(theirs), is_training=False
    )
    theirs.reset_classifier(0)
    for name, size in SIZES.items():
        frames = whole_frames(tmp_path / f"{name}.mp4", size, tmp_path, "-vf", "fps=1")
        with torch.inference_mode():
            expected = theirs(torch.stack([transform(Image.fromarray(f)) for f in frames]))
        found = workflow.features()[name]
        assert found.shape == (3, 192)
        cosines = (found * unit(expected)).sum(axis=1)
        assert cosines.min() > 0.999999

    # On a machine that has only what the first run left.
    workflow.environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "nothing")}
    assert not workflow.pending(half_precision=False)
    # On one that has only the cache.
    weights.unlink()
    (workflow.folder / "resources" / "backbones" / f"timm--{NAME}.json").unlink()
    workflow.environment["HF_HOME"] = cache["HF_HOME"]
    (workflow.folder / "features" / "wide.npy").unlink()
    before = workflow.features()["tall"]
    workflow.run(half_precision=False)
    assert weights.exists()
    assert workflow.features()["wide"].shape == (3, 192)
    np.testing.assert_array_equal(workflow.features()["tall"], before)


def test_weights_that_cannot_be_had_are_named_before_any_job(workflow: Workflow, tmp_path):
    (workflow.folder / "resources").unlink()
    workflow.environment = dict(os.environ) | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "nothing"),
    }
    make_clip(tmp_path / "a.mp4")
    workflow.write_rows(("a.mp4", "features/a.npy"))
    result = workflow.run(check=False, backbone=f"timm:{NAME}")
    said = result.stdout + result.stderr
    assert result.returncode == 1
    assert REPOSITORY in said
    assert "model.safetensors" in said
    assert "Traceback" not in said
    assert not (workflow.folder / "features").exists()


def test_clips_of_a_folder_s_own_network_in_windows_that_overlap(workflow: Workflow, tmp_path):
    torch.manual_seed(1)
    config = transformers.VideoMAEConfig(
        image_size=32,
        patch_size=16,
        num_frames=4,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    theirs = transformers.VideoMAEModel(config).eval()
    theirs.save_pretrained(tmp_path / "mine")
    processing = {
        "image_processor_type": "VideoMAEImageProcessor",
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 32, "width": 32},
    }
    (tmp_path / "mine" / "preprocessor_config.json").write_text(json.dumps(processing))
    (workflow.folder / "resources").unlink()
    make_clip(tmp_path / "a.mp4", seconds=1, size="64x48", rate=10)
    workflow.write_rows(("a.mp4", "features/a.npz"))
    workflow.config |= {"backbone": "transformers:mine", "clip_stride": "2"}
    workflow.run(half_precision=False, last_clip="drop")

    frames = whole_frames(tmp_path / "a.mp4", "64x48", tmp_path)
    assert len(frames) == 10
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "mine", backend="pil")
    clips = [list(frames[start : start + 4]) for start in range(0, 7, 2)]
    pixels = torch.cat([processor(clip, return_tensors="pt")["pixel_values"] for clip in clips])
    with torch.inference_mode():
        expected = theirs(pixels).last_hidden_state.mean(dim=1)
    with np.load(workflow.folder / "features" / "a.npz") as file:
        assert (file["features"] * unit(expected)).sum(axis=1).min() > 0.999999
        np.testing.assert_allclose(file["start_seconds"], [0, 0.2, 0.4, 0.6], atol=1e-6)
        np.testing.assert_allclose(file["end_seconds"], [0.4, 0.6, 0.8, 1.0], atol=1e-6)
        np.testing.assert_allclose(file["timestamps"], [0.2, 0.4, 0.6, 0.8], atol=1e-6)

    # Other windows are other numbers; all tokens of a clip, and one feature for the video.
    pending = workflow.pending(half_precision=False, last_clip="shift")
    assert "last_clip" in str(pending)
    workflow.run(half_precision=False, last_clip="drop", pooling="tokens", results="tokens")
    with np.load(workflow.folder / "features" / "a.npz") as file:
        assert file["features"].shape == (4, 2 * 2 * 2, 48)
    workflow.run(half_precision=False, last_clip="drop", pool="mean", results="pooled")
    with np.load(workflow.folder / "features" / "a.npz") as file:
        whole = expected.mean(dim=0, keepdim=True)
        assert file["features"].shape == (1, 48)
        assert (file["features"] * unit(whole)).sum() > 0.999999
        assert (file["start_seconds"], file["end_seconds"]) == (0, 1)


@pytest.mark.parametrize("recipe", ["howto100m-2d"])
def test_a_recipe_is_a_configuration(workflow: Workflow, tmp_path, recipe):
    make_clip(tmp_path / "a.mp4")
    workflow.write_rows(("a.mp4", "features/a.npy"))
    del workflow.config["backbone"]
    result = workflow.run("-n", "--configfile", f"config/recipes/{recipe}.yaml")
    assert "1 rows: 0 done, 1 pending" in result.stdout + result.stderr
