"""Sentences where features are: by the other tower of networks that know images and texts.

It is in the same file of weights. A feature and a sentence are compared by their cosine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from videofeatures.errors import UserError
from videofeatures.networks import hub
from videofeatures.networks.backbones import Backbone, find_backbone
from videofeatures.networks.weights import (
    RANDOM,
    check_content,
    find_weights,
    load_network,
    prepare_weights,
)

if TYPE_CHECKING:
    import torch

BATCH_SIZE = 64
"""Sentences at a time: some 20 MB of activations for each layer."""

VOCABULARY_FILE = "tokenizer.json"

POOLING = "projected"
"""Features of other poolings are not where sentences are."""


def encode_sentences(
    backbone_name: str, weights: str, sentences: Sequence[str], *, l2_normalize: bool = True
) -> np.ndarray:
    """Return a vector for each sentence, (N, feature_dim), float32, comparable with features.

    Args:
        backbone_name: as `find_backbone` knows it.
        weights: as the key `weights` has it.
        l2_normalize: whether each vector is divided by its length.

    Raises:
        UserError: the backbone knows no texts, or its weights or its tokenizer cannot be had.
        OSError: a file cannot be read or written.
    """
    backbone = find_backbone(backbone_name)
    family, _, name = backbone_name.partition(":")
    if family not in ENCODERS or POOLING not in backbone.poolings:
        raise UserError(
            f"{backbone_name}: knows no texts. Those of open_clip do, and of transformers those "
            "like CLIP and SigLIP"
        )
    if weights == RANDOM:
        raise UserError("weights: random ones say nothing of texts. Name weights")
    found = find_weights(backbone_name, weights)
    path = prepare_weights(found)
    check_content(path)
    encode = ENCODERS[family](name, backbone, path)
    import torch

    batches = [list(sentences[k : k + BATCH_SIZE]) for k in range(0, len(sentences), BATCH_SIZE)]
    with torch.inference_mode():
        parts = [encode(batch).float().numpy() for batch in batches]
    vectors = np.concatenate(parts) if parts else np.zeros((0, backbone.feature_dim), np.float32)
    if l2_normalize:
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


class OpenClipEncoder:
    """The text tower of a model of open_clip, and its tokenizer."""

    def __init__(self, name: str, backbone: Backbone, weights_path: Path):
        """Load both.

        Raises:
            UserError: the tokenizer, or a text tower of transformers', cannot be had.
        """
        import open_clip
        from open_clip.factory import load_checkpoint

        model, tag = backbone.arguments
        settings = open_clip.get_pretrained_cfg(model, tag) if tag else {}
        level_before = logging.root.manager.disable
        logging.disable(logging.WARNING)  # that weights are random, which are read below
        try:
            self._tokenizer = open_clip.get_tokenizer(model)
            self._network: Any = open_clip.create_model(
                model,
                load_weights=False,
                pretrained_text=False,
                force_quick_gelu=bool(settings.get("quick_gelu")),
            )
        except Exception as error:  # of transformers and of the hub, of many kinds
            text_config = open_clip.get_model_config(model)["text_cfg"]
            place = text_config.get("hf_tokenizer_name") or text_config.get("hf_model_name")
            raise _missing(f"open_clip:{name}", str(place), error) from None
        finally:
            logging.disable(level_before)
        load_checkpoint(self._network, str(weights_path), strict=True, weights_only=True)
        self._network.eval()

    def __call__(self, sentences: list[str]) -> torch.Tensor:
        """Return (N, dim)."""
        features: torch.Tensor = self._network.encode_text(self._tokenizer(sentences))
        return features


class TransformersEncoder:
    """The text tower of a network of transformers, and its tokenizer."""

    def __init__(self, name: str, backbone: Backbone, weights_path: Path):
        """Load both.

        Raises:
            UserError: the tokenizer cannot be had.
        """
        from transformers import AutoTokenizer

        # Without this file, the library makes a tokenizer that knows no word, and says nothing.
        if os.path.isfile(Path(name) / "config.json"):
            hub.read_json_file(Path(name) / VOCABULARY_FILE)
        else:
            hub.read_json(name, VOCABULARY_FILE)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        except Exception as error:  # the library and the hub raise many kinds
            raise _missing(f"transformers:{name}", name, error) from None
        self._network: Any = load_network(backbone, weights_path)
        self._max_length = min(self._tokenizer.model_max_length, _max_length(self._network))

    def __call__(self, sentences: list[str]) -> torch.Tensor:
        """Return (N, dim)."""
        # SigLIP was trained with all sentences of one length; CLIP leaves padding out.
        tokens = self._tokenizer(
            sentences,
            padding="max_length",
            truncation=True,
            max_length=self._max_length,
            return_tensors="pt",
        )
        output = self._network.get_text_features(**tokens)
        features: torch.Tensor = getattr(output, "pooler_output", output)
        return features


ENCODERS: dict[str, Any] = {"open_clip": OpenClipEncoder, "transformers": TransformersEncoder}
"""By family: what is made of a name in it, a backbone, and a file of weights."""


def _max_length(network: Any) -> int:
    """Return how many tokens the text tower of a network of transformers takes."""
    length: int = network.config.text_config.max_position_embeddings
    return length


def _missing(network: str, repo: str, error: Exception) -> UserError:
    first_line = (str(error).strip().splitlines() or ["no detail"])[0]
    return UserError(
        f"{network}: its tokenizer, of {repo}, cannot be had ({type(error).__name__}: "
        f"{first_line}). {hub.by_hand(repo, 'tokenizer.json tokenizer_config.json config.json')}"
    )
