"""SAELens' file format, read and written: ``cfg.json`` beside ``sae_weights.safetensors``.

BatchTopK and Matryoshka dictionaries are ``jumprelu`` there once they are trained, as here; files
of theirs from the middle of a training (``batchtopk``, ``matryoshka_batchtopk``) are read so, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terrarium.errors import InputError, ModelError, did_you_mean
from terrarium.instruments.dictionaries.fitted import SparseDictionary

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
VERSION = "6.0.0"
"""The first version of SAELens that writes the layout written here."""

_TENSORS = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "r_mag", "b_mag"),
    "batchtopk": ("b_enc", "topk_threshold"),
    "matryoshka_batchtopk": ("b_enc", "topk_threshold"),
}
"""What each architecture of SAELens has beside ``W_enc`` ``(d, k)``, ``W_dec``, ``b_dec``."""

_IDLE = ("scaling_factor",)
"""What files from before version 6 may hold though it counts only where the settings say so."""

Arrays = dict[str, NDArray[Any]]


def save_saelens(
    dictionary: SparseDictionary, folder: str | Path, metadata: Mapping[str, Any] | None = None
) -> Path:
    """Write ``dictionary`` so that ``sae_lens.SAE.load_from_disk(folder)`` opens it.

    ``metadata`` (plain JSON: ``model_name``, ``hook_name``) goes with it, beside what the
    dictionary notes.  Raises ``InputError`` for other than sparse autoencoders, and where the
    folder holds a dictionary already.
    """
    if not isinstance(dictionary, SparseDictionary):
        raise InputError(
            f"A {type(dictionary).__name__} has no place in SAELens' format; save a sparse "
            "autoencoder."
        )
    where = Path(folder)
    if (where / WEIGHTS).exists() or (where / CONFIG).exists():
        raise InputError(f"{where} holds a dictionary already; name a new folder.")
    config = {
        "architecture": dictionary.architecture,
        "d_in": dictionary.d,
        "d_sae": dictionary.k,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": VERSION,
            "sae_lens_training_version": None,
            "trained_by": "terrarium",
            "dictionary": dictionary.name,
            **dictionary.notes,
            **(metadata or {}),
        },
    }
    if dictionary.architecture == "topk":
        config |= {"k": dictionary.active, "rescale_acts_by_decoder_norm": False}
    from safetensors.numpy import save_file

    try:
        text = json.dumps(config, indent=1)
    except TypeError as error:
        raise InputError(
            f"The metadata are no plain JSON ({error}); give text and numbers."
        ) from None
    try:
        where.mkdir(parents=True, exist_ok=True)
        save_file(_tensors(dictionary), where / WEIGHTS)
        (where / CONFIG).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{where} cannot be written ({error}).") from None
    return where


def _tensors(dictionary: SparseDictionary) -> Arrays:
    tensors: dict[str, Any] = {
        "W_enc": dictionary.w_enc.T,
        "W_dec": dictionary.w_dec,
        "b_dec": dictionary.b_dec,
    }
    if dictionary.architecture == "gated":
        tensors |= {"b_gate": dictionary.b_enc, "r_mag": dictionary.r_mag}
        tensors["b_mag"] = dictionary.b_mag
    else:
        tensors["b_enc"] = dictionary.b_enc
    if dictionary.architecture == "jumprelu":
        tensors["threshold"] = dictionary.threshold
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def load_saelens(folder: str | Path) -> SparseDictionary:
    """Return the dictionary in ``folder``, written by SAELens or by `save_saelens`.

    Architectures ``standard``, ``topk``, ``jumprelu``, ``gated``, and training files of
    ``batchtopk`` and ``matryoshka_batchtopk``.  Its features and directions are those that SAELens
    computes: directions keep the lengths that they have in the file, and only where its settings
    say ``rescale_acts_by_decoder_norm`` do features bear the length and directions have norm 1.
    Raises ``ModelError`` for missing or damaged files, other or unnamed architectures, tensors
    that the architecture does not use, directions of length 0, and normalisations that only
    SAELens's own code can undo.
    """
    where = Path(folder)
    config = _config(where)
    tensors = _read(where)
    architecture = _architecture(where, config)
    normalised = config.get("normalize_activations") or "none"
    if normalised != "none":
        raise ModelError(
            f"{where}: activations are normalised by '{normalised}'; fold that into the weights "
            "with SAELens first and save again."
        )
    needed = ("W_enc", "W_dec", "b_dec", *_TENSORS[architecture])
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise ModelError(f"{where / WEIGHTS} lacks {', '.join(missing)}; save it again.")
    if unused := sorted(set(tensors) - {*needed, *_IDLE}):
        raise ModelError(
            f"{where / WEIGHTS} holds {', '.join(unused[:5])}, which a dictionary of the "
            f"architecture '{architecture}' does not use; mend the architecture in {CONFIG}, or "
            "save it again."
        )
    found = {name: tensors[name] for name in needed}
    if "scaling_factor" in tensors and config.get("finetuning_scaling_factor"):
        _shaped(where, {"scaling_factor": tensors["scaling_factor"]} | found)
        found["W_dec"] = found["W_dec"] * tensors["scaling_factor"][:, None]
    _shaped(where, found)
    _pointing(where, found["W_dec"])
    try:
        return _dictionary(architecture, found, config)
    except InputError as error:
        raise ModelError(f"{where}: {error}") from None


def _architecture(where: Path, config: dict[str, Any]) -> str:
    """Return the architecture that the settings name; puts the k of older files in its place."""
    activation = config.get("activation_fn", config.get("activation_fn_str"))
    named = config.get("architecture")
    if activation == "topk":  # SAELens before 6.0
        named = "topk"
        config.setdefault("k", (config.get("activation_fn_kwargs") or {}).get("k"))
    elif activation not in (None, "relu"):
        raise ModelError(
            f"{where}: the activation function '{activation}' is not read; known are: relu, topk."
        )
    elif named is None and activation == "relu":
        named = "standard"  # before architectures had names
    if named is None:
        raise ModelError(
            f"{where / CONFIG} names no architecture; expected one of {', '.join(_TENSORS)}: write "
            "it there, or save the dictionary again."
        )
    architecture = str(named)
    if architecture not in _TENSORS:
        raise ModelError(
            f"{where}: the architecture '{architecture}' is not read"
            f"{did_you_mean(architecture, _TENSORS)}"
        )
    return architecture


def _pointing(where: Path, w_dec: NDArray[Any]) -> None:
    """Raise ``ModelError`` where a feature points nowhere; NaN is found later."""
    still = np.flatnonzero(np.linalg.norm(w_dec, axis=1) == 0)
    if len(still):
        raise ModelError(
            f"{where / WEIGHTS}: {len(still)} of {len(w_dec)} rows of W_dec have length 0 (the "
            f"first is {still[0]}), so that these features point nowhere; leave them out and save "
            "it again."
        )


def _shaped(where: Path, found: Arrays) -> None:
    k, d = found["W_dec"].shape if found["W_dec"].ndim == 2 else (0, 0)
    for name, value in found.items():
        wanted: tuple[int, ...] = {"W_enc": (d, k), "W_dec": (k, d), "b_dec": (d,)}.get(name, (k,))
        if name == "topk_threshold":
            wanted = ()
        if value.shape != wanted or k == 0:
            raise ModelError(
                f"{where / WEIGHTS}: {name} is {value.shape}, which does not fit W_dec "
                f"{found['W_dec'].shape} (features, channels); save it again."
            )


def _dictionary(architecture: str, found: Arrays, config: dict[str, Any]) -> SparseDictionary:
    w_enc, w_dec, b_dec = found["W_enc"].T, found["W_dec"], found["b_dec"]
    gated = architecture == "gated"
    b_enc = found["b_gate" if gated else "b_enc"]
    b_mag, r_mag = found.get("b_mag"), found.get("r_mag")
    if config.get("apply_b_dec_to_input") is False:
        shift = w_enc @ b_dec
        b_enc = b_enc + shift
        b_mag = None if b_mag is None or r_mag is None else b_mag + np.exp(r_mag) * shift
    if config.get("rescale_acts_by_decoder_norm") and architecture != "standard":
        norms = np.linalg.norm(w_dec, axis=1).astype(np.float32)
        w_enc, b_enc, w_dec = w_enc * norms[:, None], b_enc * norms, w_dec / norms[:, None]
    threshold = found.get("threshold")
    if "topk_threshold" in found:
        threshold = np.full(len(b_enc), float(found["topk_threshold"]), np.float32)
    name = {"matryoshka_batchtopk": "matryoshka", "batchtopk": "batch_topk"}
    own = {"standard": "standard", "topk": "topk", "gated": "gated"}
    metadata = config.get("metadata") or {}
    return SparseDictionary(
        own.get(architecture, "jumprelu"),
        w_enc,
        b_enc,
        w_dec,
        b_dec,
        threshold=threshold,
        r_mag=r_mag,
        b_mag=b_mag,
        active=int(config["k"]) if architecture == "topk" and config.get("k") else None,
        name=str(metadata.get("dictionary") or name.get(architecture, architecture)),
        notes={key: value for key, value in metadata.items() if key in _KEPT and value is not None},
    )


_KEPT = ("model_name", "hook_name", "dataset_path", "context_size", "prepend_bos", "site", "model")


def _config(where: Path) -> dict[str, Any]:
    try:
        config = json.loads((where / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{where} holds no {CONFIG}; give a folder written by SAELens or save_saelens."
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{where / CONFIG} cannot be read ({error}).") from None
    if not isinstance(config, dict):
        raise ModelError(f"{where / CONFIG} is no table of settings; save it again.")
    return config


def _read(where: Path) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(where / WEIGHTS)
    except FileNotFoundError:
        raise ModelError(
            f"{where} holds no {WEIGHTS}; give a folder written by SAELens or save_saelens."
        ) from None
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{where / WEIGHTS} is damaged ({error}); save it again.") from None
    return {name: value.to(torch.float32).numpy() for name, value in tensors.items()}
