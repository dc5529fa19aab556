"""Sentences are where features are: as the libraries' own models have it, from the same file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import transformers as tf
from safetensors.torch import save_file

from conftest import ROOT, write_csv
from networks.backbones.test_from_open_clip import SETTINGS, TEXT, TOWERS
from networks.hub_server import use_hub
from videofeatures.errors import UserError
from videofeatures.networks import text
from videofeatures.networks.backbones import families
from videofeatures.networks.text import encode_sentences

SENTENCES = ["a dog runs", "a red car", "the sea"]


@pytest.fixture(autouse=True)
def in_this_process(tmp_path, monkeypatch):
    """No hub; families are asked here, where tests' own models are."""
    monkeypatch.chdir(tmp_path)
    use_hub("http://127.0.0.1:1", tmp_path / "home", monkeypatch)
    monkeypatch.setattr(families, "find", families.describe)


@pytest.fixture
def model(monkeypatch) -> torch.nn.Module:
    """A small model of open_clip with the vocabulary that the library ships, and its file."""
    config = {
        "embed_dim": 24,
        "vision_cfg": TOWERS["tiny-vit"],
        "text_cfg": TEXT | {"vocab_size": 49408, "context_length": 77},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-vit", config)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-vit", {"own": SETTINGS})
    torch.manual_seed(0)
    whole = open_clip.create_model("tiny-vit", force_quick_gelu=True).eval()
    save_file(whole.state_dict(), "whole.safetensors")
    return whole


@pytest.fixture
def clip(tmp_path) -> torch.nn.Module:
    """A small CLIP of transformers, saved as the library does it, with a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<unk>", "<bos>", "<eos>", "<pad>", *sorted(set(" ".join(SENTENCES).split()))]
    tokenizer = Tokenizer(
        models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    folder = tmp_path / "net"
    tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        model_max_length=12,
    ).save_pretrained(folder)
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 36,
    }
    special = {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    torch.manual_seed(0)
    network = tf.CLIPModel(
        tf.CLIPConfig(
            vision_config=small | {"image_size": 32, "patch_size": 8},
            text_config=small | special,
            projection_dim=24,
        )
    ).eval()
    network.save_pretrained(folder)
    side = {"height": 32, "width": 32}
    content = {"size": side, "crop_size": side, "do_center_crop": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return network


def test_sentences_of_open_clip_are_its_own_from_the_weights_of_its_features(model, caplog):
    caplog.clear()
    vectors = encode_sentences("open_clip:tiny-vit/own", "whole.safetensors", SENTENCES)
    with torch.inference_mode():
        tokens = open_clip.get_tokenizer("tiny-vit")(SENTENCES)
        expected = model.encode_text(tokens, normalize=True).numpy()
    assert vectors.shape == (3, 24)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-6)
    assert len(list(Path("resources/weights").iterdir())) == 1
    assert not caplog.records


def test_sentences_of_transformers_are_its_own(clip):
    vectors = encode_sentences("transformers:net", "auto", SENTENCES)
    tokenizer = tf.AutoTokenizer.from_pretrained("net")
    with torch.inference_mode():
        # As the library's own examples have it: padded to the longest.
        tokens = tokenizer(SENTENCES, padding=True, return_tensors="pt")
        expected = clip.get_text_features(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output
    expected = torch.nn.functional.normalize(expected, dim=1).numpy()
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-6)


def test_many_sentences_are_those_one_by_one(model, monkeypatch):
    monkeypatch.setattr(text, "BATCH_SIZE", 2)
    arguments = ("open_clip:tiny-vit/own", "whole.safetensors")
    together = encode_sentences(*arguments, SENTENCES, l2_normalize=False)
    alone = [encode_sentences(*arguments, [s], l2_normalize=False)[0] for s in SENTENCES]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)
    lengths = np.linalg.norm(together, axis=1, keepdims=True)
    assert not np.allclose(lengths, 1)
    normalised = encode_sentences(*arguments, SENTENCES)
    np.testing.assert_allclose(normalised, together / lengths, rtol=1e-4, atol=1e-6)
    assert encode_sentences(*arguments, []).shape == (0, 24)


@pytest.mark.parametrize("name", ["resnet152", "transformers:dinov2", "torchvision:resnet18"])
def test_a_backbone_without_texts_says_so(name):
    with pytest.raises(UserError, match=f"{name}: knows no texts"):
        encode_sentences(name, "auto", SENTENCES)


def test_random_weights_say_nothing_of_texts(model):
    with pytest.raises(UserError, match="random ones say nothing"):
        encode_sentences("open_clip:tiny-vit/own", "random", SENTENCES)


def test_a_tokenizer_that_is_not_there_is_one_message(clip, model, monkeypatch):
    Path("net/tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"^net/tokenizer\.json: No such file"):
        encode_sentences("transformers:net", "auto", SENTENCES)
    config = open_clip.factory._MODEL_CONFIGS["tiny-vit"]
    text_config = config["text_cfg"] | {"hf_tokenizer_name": "owner/words"}
    monkeypatch.setitem(
        open_clip.factory._MODEL_CONFIGS, "tiny-vit", config | {"text_cfg": text_config}
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"its tokenizer, of owner/words, cannot be had.*HF_HOME"):
        encode_sentences("open_clip:tiny-vit/own", "whole.safetensors", SENTENCES)


def run(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, encoding="utf-8"
    )


def test_the_script_writes_what_the_example_searches_with(clip, tmp_path):
    Path("more.txt").write_text("a red car\n\nthe sea\n", encoding="utf-8")
    script, example = ROOT / "scripts" / "encode_text.py", ROOT / "examples" / "find_sentence.py"
    done = run(
        script,
        "a dog runs",
        "--file=more.txt",
        "--backbone=transformers:net",
        "--output=query.npy",
    )
    assert (done.returncode, done.stdout) == (0, "query.npy: 3 sentences of 24 numbers\n"), done
    queries = np.load("query.npy")
    np.testing.assert_allclose(queries, encode_sentences("transformers:net", "auto", SENTENCES))
    # A video that shows the second sentence in its third second, and nothing else.
    features = np.eye(24, dtype=np.float32)[:5] * 0.1
    features[2] = queries[1]
    np.save("a.npy", features)
    write_csv(tmp_path / "videos.csv", [("a.mp4", "a.npy"), ("b.mp4", "missing.npy")])
    done = run(example, "videos.csv", "query.npy")
    assert done.returncode == 0, done.stderr
    second = done.stdout.partition("sentence 2\n")[2].splitlines()[0]
    assert second == "  1.000  a.mp4 at 2.5 s"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backbone=resnet152", "--output=a.npy"], "there are no sentences"),
        (["x", "--backbone=resnet152", "--output=a.npy"], "resnet152: knows no texts"),
        (["x", "--file=none.txt", "--backbone=resnet152", "--output=a.npy"], "none.txt: No such"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, message):
    done = run(ROOT / "scripts" / "encode_text.py", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
