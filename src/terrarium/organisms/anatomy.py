"""Where the named sites lie in Hugging Face decoders: a table, and a search for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from terrarium.errors import ModelError
from terrarium.organisms.network import Site


@dataclass(frozen=True)
class Anatomy:
    """Paths of submodules: from the model to its decoder, from there to blocks and final norm.

    ``attention`` and ``mlp`` name, inside a block, the module whose output is *added to the
    residual stream* (in sandwich-norm blocks the norm behind attention and MLP); ``hidden`` the
    module whose input are the MLP's hidden units.  ``mlp_layout`` as in `Site`.
    """

    decoders: tuple[str, ...]
    blocks: str
    norm: str
    attention: str
    mlp: str
    hidden: str
    mlp_layout: Literal["single", "flat"] = "single"


_GPT2 = Anatomy(("transformer",), "h", "ln_f", "attn", "mlp", "mlp.c_proj")
_NEOX = Anatomy(
    ("gpt_neox",), "layers", "final_layer_norm", "attention", "mlp", "mlp.dense_4h_to_h"
)
_DECODERS = ("model", "model.language_model")
_LLAMA = Anatomy(_DECODERS, "layers", "norm", "self_attn", "mlp", "mlp.down_proj")
_SANDWICH = Anatomy(
    _DECODERS,
    "layers",
    "norm",
    "post_attention_layernorm",
    "post_feedforward_layernorm",
    "mlp.down_proj",
)
_OPT = Anatomy(("model.decoder",), "layers", "final_layer_norm", "self_attn", "fc2", "fc2", "flat")
_PHI = Anatomy(("model",), "layers", "final_layernorm", "self_attn", "mlp", "mlp.fc2")

ANATOMIES: Mapping[str, Anatomy] = {
    "gpt2": _GPT2,
    "gpt_neo": _GPT2,
    "gpt_neox": _NEOX,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _SANDWICH,
    "gemma3": _SANDWICH,
    "gemma3_text": _SANDWICH,
    "opt": _OPT,
    "phi": _PHI,
}
"""Anatomies by ``config.model_type``.  Phi and (by default) GPT-NeoX have parallel residuals."""


def find_sites(model: nn.Module) -> dict[str, Site]:
    """Return the sites of a causal LM in the order of the forward pass.

    Architectures outside the table get ``embed`` and ``resid.post`` alone: what their parts add
    cannot be told from structure.  Raises ``ModelError`` where no block list is found.
    """
    known = _anatomy(model)
    blocks = find_blocks(model)
    found = {"embed": Site(blocks[0], side="input", layout="single")}
    for layer, block in enumerate(blocks):
        if known is not None:
            attention, mlp = _child(block, known.attention), _child(block, known.mlp)
            hidden = _child(block, known.hidden)
            if attention is not None:
                found[f"attn.out[{layer}]"] = Site(attention, layout="single")
            if hidden is not None:
                found[f"mlp.act[{layer}]"] = Site(hidden, side="input", layout=known.mlp_layout)
            if mlp is not None:
                found[f"mlp.out[{layer}]"] = Site(mlp, layout=known.mlp_layout)
        found[f"resid.post[{layer}]"] = Site(block, layout="single")
    return found


def find_blocks(model: nn.Module) -> nn.ModuleList:
    """Return the list of decoder blocks: from the table, else the longest list of one type."""
    known = _anatomy(model)
    if known is not None:
        for path in known.decoders:
            blocks = _child(model, f"{path}.{known.blocks}")
            if isinstance(blocks, nn.ModuleList):
                return blocks
    return _longest_list(model)


def unembed(model: nn.Module, residual: Tensor) -> Tensor:
    """Return logits ``(..., vocabulary)`` of a residual ``(..., channel)``: final norm and head.

    Raises ``ModelError`` for architectures whose final norm is not in the table.
    """
    known = _anatomy(model)
    kind = _config(model).model_type
    if known is None:
        raise ModelError(
            f"An early exit needs the final norm, and terrarium does not know where '{kind}' "
            f"keeps it; use one of {', '.join(sorted(ANATOMIES))}."
        )
    decoder = next(d for path in known.decoders if (d := _child(model, path)) is not None)
    norm, project = _child(decoder, known.norm), _child(decoder, "project_out")
    for part in (norm, project):
        residual = residual if part is None else part(residual)
    logits: Tensor = model.get_output_embeddings()(residual)  # type: ignore[operator]
    cap = getattr(_config(model), "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _config(model: nn.Module) -> Any:
    config: Any = model.config
    return config.get_text_config()


def _anatomy(model: nn.Module) -> Anatomy | None:
    config: Any = model.config
    return ANATOMIES.get(config.model_type)


def _child(module: nn.Module, path: str) -> nn.Module | None:
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, nn.Module) else None


def _longest_list(model: nn.Module) -> nn.ModuleList:
    """Return the longest outermost `nn.ModuleList` of one type (experts lie inside blocks)."""
    inside: set[int] = set()
    best: nn.ModuleList | None = None
    for module in model.modules():  # parents come before their children
        if not isinstance(module, nn.ModuleList) or id(module) in inside:
            continue
        inside.update(id(part) for part in module.modules())
        if len({type(block) for block in module}) == 1 and len(module) > len(best or ()):
            best = module
    if best is None:
        kind = _config(model).model_type
        raise ModelError(
            f"No list of decoder blocks was found in a model of type '{kind}'; "
            f"use one of {', '.join(sorted(ANATOMIES))}."
        )
    return best
