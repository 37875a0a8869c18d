"""Networks of our own that have no standard architecture: config and safetensors in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel
from safetensors.torch import load_file, save_file
from torch import Tensor


def save_plain(spec: BaseModel, state: Mapping[str, Tensor], folder: Path) -> None:
    """Write ``config.json`` (the spec) and ``model.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": f"terrarium-{spec.model_dump()['kind']}", **spec.model_dump()}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load_plain(folder: Path) -> dict[str, Tensor]:
    """Read what `save_plain` wrote."""
    return dict(load_file(folder / "model.safetensors"))
