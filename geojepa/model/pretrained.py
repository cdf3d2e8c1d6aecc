"""Reads vision models of the transformers library: safetensors and JSON, and no code of theirs."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geojepa.errors import GeoJEPAError


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A vision model as it was found.

    Attributes:
        model: of transformers, in evaluation, float32, without gradients.
        preprocessor: content of its preprocessor_config.json.
        revision: commit of the hub; "" of a folder.
        sha256: of names, shapes and bytes of the weights, whatever files they came in.
        licence: that its model card says, "" where it says none.
    """

    model: Any
    preprocessor: dict[str, Any]
    revision: str
    sha256: str
    licence: str


def read_pretrained(name: str, revision: str | None = None) -> Pretrained:
    """Load a vision model from the hub, its local cache, or a folder made by `save_pretrained`.

    Raises:
        GeoJEPAError: if transformers is missing, the model cannot be had, or it takes no colour
            images in patches.
    """
    try:
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise GeoJEPAError(
            f"{name}: a vision model needs transformers; pip install 'geojepa[vision]'"
        ) from error
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
        is_visual = all(hasattr(config, one) for one in ("patch_size", "image_size", "hidden_size"))
        if not is_visual or config.num_channels != 3:
            raise no_transformer(name, config.model_type)
        # all files of one state of the repository
        commit = getattr(config, "_commit_hash", None) or revision
        preprocessor = json.loads(_text(name, "preprocessor_config.json", commit))
        model, told = AutoModel.from_pretrained(
            name,
            config=config,
            revision=commit,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except GeoJEPAError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        cause = str(error).strip().partition("\n")[0]
        raise GeoJEPAError(
            f"{name}: cannot be loaded ({cause}); download it once with network (hf download "
            f"{name}; some ask to accept a licence first), or name a folder that holds "
            "config.json, preprocessor_config.json and model.safetensors"
        ) from error
    # heads and mask tokens have no part in the tokens of an image
    absent = set(told["missing_keys"])
    lacking = [key for key in sorted(absent) if not key.startswith("pooler.")]
    lacking = [key for key in lacking if not key.endswith("mask_token")]
    if lacking:
        raise GeoJEPAError(
            f"{name}: its weights lack {lacking[0]} ({len(lacking)} in all); name a whole model"
        )
    return Pretrained(
        model=model.eval().requires_grad_(False),
        preprocessor=preprocessor,
        revision="" if Path(name).is_dir() else str(commit or ""),
        sha256=_digest(model, absent),
        licence=_licence(name, commit),
    )


def no_transformer(name: str, kind: str) -> GeoJEPAError:
    """The error of a model that cannot serve."""
    return GeoJEPAError(
        f"{name}: {kind} is no vision transformer that gives one token for each patch of an RGB "
        "image; name one such as google/vit-base-patch16-224 or facebook/dinov2-base"
    )


def _digest(model: Any, absent: set[str]) -> str:
    """Without the weights that no file gave, which are drawn anew each time."""
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        if key not in absent:
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def _licence(name: str, revision: str | None) -> str:
    from huggingface_hub import ModelCard

    try:
        card = ModelCard(_text(name, "README.md", revision))
    except (OSError, ValueError):
        return ""
    return str(card.data.to_dict().get("license", ""))


def _text(name: str, file: str, revision: str | None) -> str:
    """A file of a model's folder or repository."""
    from transformers.utils import cached_file

    path = cached_file(name, file, revision=revision)
    if path is None:
        raise OSError(f"{file} is not there")
    return Path(path).read_text(encoding="utf-8")
