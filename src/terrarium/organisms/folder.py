"""What a Hugging Face model folder must be before anything in it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from terrarium.errors import ModelError
from terrarium.organisms.offline import import_offline, quiet

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
_PLAIN = ("TokenizersBackend", "PreTrainedTokenizerFast")
_CAUSAL = ("ForCausalLM", "LMHeadModel")


def check_folder(folder: Path) -> dict[str, Any]:
    """Return ``config.json``; raises ``ModelError`` with one sentence for what cannot be loaded.

    Nothing from the folder is executed and no weights are read beyond their headers.
    """
    if not folder.exists():
        raise ModelError(
            f"There is no model folder {folder}; give a folder that holds config.json, "
            "safetensors weights and a tokenizer (nothing is downloaded)."
        )
    if not folder.is_dir():
        raise ModelError(f"{folder} is a file; give the model's folder (with config.json).")
    config = _read_config(folder)
    _check_kind(folder, config)
    _check_weights(folder)
    return config


def load_tokenizer(folder: Path) -> Any:
    """Return the folder's tokenizer; raises ``ModelError`` where there is none or it is broken."""
    if not any((folder / name).exists() for name in _TOKENIZERS):
        raise ModelError(
            f"{folder} holds no tokenizer (tokenizer.json); copy the model's tokenizer files into "
            "the folder, because texts and arithmetic alike must be turned into its tokens."
        )
    transformers = import_offline("transformers")
    try:
        with quiet():
            # The automatic choice prefers the class of some model types (qwen2) to the one that
            # was saved, and then adds tokens and splits text by that model's rules.
            plain = _tokenizer_class(folder) in _PLAIN and (folder / "tokenizer.json").exists()
            chosen = transformers.PreTrainedTokenizerFast if plain else transformers.AutoTokenizer
            return chosen.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each tokenizer class fails in its own way
        raise ModelError(
            f"The tokenizer in {folder} cannot be loaded ({brief(error)}); "
            "save it again with tokenizer.save_pretrained(folder)."
        ) from error


def _tokenizer_class(folder: Path) -> str:
    """Return the class that ``tokenizer_config.json`` names; empty where it names none."""
    try:
        told = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(told.get("tokenizer_class", "")) if isinstance(told, dict) else ""


def brief(error: BaseException) -> str:
    """Return the error's first 200 characters on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        raise ModelError(
            f"{folder} holds no config.json; give a folder written by save_pretrained "
            "(for adapters alone, merge them into their base model first)."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(
            f"{path} is not valid JSON ({brief(error)}); write it again with save_pretrained."
        ) from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError(f"{path} names no model_type; expected the config of a causal LM.")
    return config


def _check_kind(folder: Path, config: dict[str, Any]) -> None:
    """Refuse what needs foreign code and what is not a causal language model."""
    import_offline("transformers")
    auto = import_offline("transformers.models.auto.modeling_auto")
    configs = import_offline("transformers.models.auto.configuration_auto")
    kind = config["model_type"]
    if kind not in configs.CONFIG_MAPPING_NAMES:
        if config.get("auto_map"):
            raise ModelError(
                f"{folder} needs Python code from the folder to run (auto_map in config.json), "
                "which terrarium never executes; use a model that transformers itself supports."
            )
        raise ModelError(
            f"{folder}: transformers {import_offline('transformers').__version__} knows no model "
            f"type '{kind}'; use a causal LM of a known type or a newer transformers."
        )
    named = [str(name) for name in config.get("architectures") or ()]
    causal = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    # encoders such as BERT can be built as decoders, but then config.json says so
    masked = kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder")
    wanted = (causal,) if isinstance(causal, str) else tuple(causal or ())
    fits = any(n in wanted or n.endswith(_CAUSAL) for n in named) if named else not masked
    if causal is None or not fits:
        what = ", ".join(named) or kind
        raise ModelError(
            f"{folder} holds a {what}, which is not a causal language model; "
            "give one whose config.json names a ...ForCausalLM architecture."
        )


def _check_weights(folder: Path) -> None:
    files = _weight_files(folder)
    for path in files:
        if not path.exists():
            raise ModelError(
                f"{folder} lacks the weight file {path.name} that its index names; copy it there."
            )
        if path.suffix == ".safetensors":
            _check_header(path)


def _weight_files(folder: Path) -> list[Path]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).exists():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.exists():
            try:
                shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            except (ValueError, KeyError, AttributeError, TypeError):
                raise ModelError(f"{index} is no index of weights; copy the file again.") from None
            return [folder / shard for shard in sorted(set(shards))]
    others = sorted(
        p.name for p in folder.iterdir() if p.suffix in {".pt", ".pth", ".ckpt", ".h5", ".gguf"}
    )
    if others:
        raise ModelError(
            f"{folder} holds its weights as {others[0]} only; convert them to safetensors "
            "(load the model where they came from and call save_pretrained)."
        )
    raise ModelError(f"{folder} holds no weights (model.safetensors); copy them there.")


def _check_header(path: Path) -> None:
    """Open the file: safetensors compares the length its header promises with the file's."""
    safetensors = import_offline("safetensors")
    try:
        with safetensors.safe_open(path, framework="pt"):
            pass
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is truncated or no safetensors file ({brief(error)}); copy it again."
        ) from None
