"""Members in and out of Hugging Face layout (``LlamaForCausalLM``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from terrarium.errors import ModelError
from terrarium.organisms.recipe import TransformerModel

EPSILON = 1e-6
"""Added to the mean square in RMSNorm."""

CONTEXT = 512
"""``max_position_embeddings`` where the spec leaves the context open, tokens."""


def save_llama(
    spec: TransformerModel,
    state: Mapping[str, Tensor],
    folder: Path,
    tokenizer_json: str | None = None,
) -> None:
    """Write ``config.json``, ``model.safetensors`` and, if given, the tokenizer's files.

    ``AutoModelForCausalLM.from_pretrained(folder)`` gives the member's logits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    special = _special_tokens(tokenizer_json)
    config = llama_config(spec, {name: number for name, (_, number) in special.items()})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(to_llama(spec, state), folder / "model.safetensors", metadata={"format": "pt"})
    if tokenizer_json is not None:
        (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
        described = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": spec.context or CONTEXT,
            **{f"{name}_token": text for name, (text, _) in special.items()},
        }
        (folder / "tokenizer_config.json").write_text(
            json.dumps(described, indent=2) + "\n", encoding="utf-8"
        )


def llama_config(spec: TransformerModel, special: Mapping[str, int]) -> dict[str, Any]:
    """Return the config as ``transformers`` writes it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": spec.vocabulary,
        "hidden_size": spec.width,
        "intermediate_size": spec.mlp,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.heads,
        "head_dim": spec.width // spec.heads,
        "hidden_act": "silu",
        "max_position_embeddings": spec.context or CONTEXT,
        "rms_norm_eps": EPSILON,
        "rope_theta": spec.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": spec.rope_base},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "use_cache": True,
        "torch_dtype": "float32",
        "bos_token_id": special.get("bos"),
        "eos_token_id": special.get("eos"),
        "pad_token_id": special.get("pad"),
    }


def to_llama(spec: TransformerModel, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and transpose a member's tensors to those of ``LlamaForCausalLM``."""
    out = {
        "model.embed_tokens.weight": state["embed"],
        "model.norm.weight": state["norm"],
        "lm_head.weight": state["unembed"].T,
    }
    for layer in range(spec.layers):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        query, key, value = state[f"{ours}.qkv"].T.chunk(3)
        gate, up = state[f"{ours}.gate_up"].T.chunk(2)
        out |= {
            f"{theirs}.input_layernorm.weight": state[f"{ours}.norm1"],
            f"{theirs}.post_attention_layernorm.weight": state[f"{ours}.norm2"],
            f"{theirs}.self_attn.q_proj.weight": query,
            f"{theirs}.self_attn.k_proj.weight": key,
            f"{theirs}.self_attn.v_proj.weight": value,
            f"{theirs}.self_attn.o_proj.weight": state[f"{ours}.out"].T,
            f"{theirs}.mlp.gate_proj.weight": gate,
            f"{theirs}.mlp.up_proj.weight": up,
            f"{theirs}.mlp.down_proj.weight": state[f"{ours}.down"].T,
        }
    return {name: tensor.detach().cpu().contiguous() for name, tensor in out.items()}


def from_llama(spec: TransformerModel, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `to_llama`; raises ``ModelError`` naming a missing tensor."""
    try:
        out = {
            "embed": state["model.embed_tokens.weight"],
            "norm": state["model.norm.weight"],
            "unembed": state["lm_head.weight"].T,
        }
        for layer in range(spec.layers):
            ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
            attention, mlp = f"{theirs}.self_attn", f"{theirs}.mlp"
            out |= {
                f"{ours}.norm1": state[f"{theirs}.input_layernorm.weight"],
                f"{ours}.norm2": state[f"{theirs}.post_attention_layernorm.weight"],
                f"{ours}.qkv": torch.cat([state[f"{attention}.{x}_proj.weight"] for x in "qkv"]).T,
                f"{ours}.out": state[f"{attention}.o_proj.weight"].T,
                f"{ours}.gate_up": torch.cat(
                    [state[f"{mlp}.{x}_proj.weight"] for x in ("gate", "up")]
                ).T,
                f"{ours}.down": state[f"{mlp}.down_proj.weight"].T,
            }
    except KeyError as missing:
        raise ModelError(
            f"The organism's weights lack {missing}; its folder is not whole: grow it again."
        ) from None
    return {name: tensor.contiguous() for name, tensor in out.items()}


def load_llama(spec: TransformerModel, folder: Path) -> dict[str, Tensor]:
    """Read one member's tensors from a folder that `save_llama` wrote."""
    return from_llama(spec, load_file(folder / "model.safetensors"))


def _special_tokens(tokenizer_json: str | None) -> dict[str, tuple[str, int]]:
    """Return role to (text, id) of the tokenizer's special tokens, by their usual names."""
    if tokenizer_json is None:
        return {}
    known = {t["content"]: t["id"] for t in json.loads(tokenizer_json).get("added_tokens", [])}
    usual = {
        "pad": ("<pad>", "[PAD]"),
        "unk": ("<unk>", "[UNK]"),
        "bos": ("<bos>", "<s>"),
        "eos": ("<eos>", "</s>", "<|endoftext|>"),
    }
    return {
        role: (name, known[name])
        for role, names in usual.items()
        for name in names
        if name in known
    }
