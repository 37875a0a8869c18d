"""Image autoencoders made elsewhere: TAESD-style state dicts and `diffusers` folders.

Nothing is downloaded and nothing in a file is executed: pickles are read with
``weights_only=True`` or refused.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from terrarium.errors import InputError, ModelError
from terrarium.organisms import taesd
from terrarium.organisms.folder import brief
from terrarium.organisms.offline import go_offline
from terrarium.organisms.state_files import check_weight, read_state_file
from terrarium.organisms.vision_network import ImageAutoencoder

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_CLASSES = ("AutoencoderKL", "AutoencoderTiny")
_OTHER: dict[taesd.Part, taesd.Part] = {"encoder": "decoder", "decoder": "encoder"}
_WANTED = (
    "give a diffusers folder (AutoencoderKL, AutoencoderTiny) or a folder with TAESD-style encoder "
    "and decoder state dicts"
)


def load_image_autoencoder(path: str | Path) -> ImageAutoencoder:
    """Load an image autoencoder, float32, in evaluation mode.

    Parameters
    ----------
    path:
        A `diffusers` folder of an AutoencoderKL or AutoencoderTiny (``config.json`` and weights),
        or a pipeline's folder that holds one as ``vae``; a folder with two TAESD-style state dicts
        whose names hold ``encoder`` and ``decoder``; either of the two files; or one file whose
        keys begin with ``encoder.`` and ``decoder.``.

    The architecture of a TAESD-style dict is inferred from its keys and shapes; see
    `terrarium.organisms.taesd`.  An AutoencoderKL encodes to the mean of its posterior.
    Raises ``ModelError`` with one sentence for whatever cannot be loaded or measured, and
    ``InputError`` where the extra ``vision`` is needed and missing.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise ModelError(f"There is no autoencoder at {path}; {_WANTED} (nothing is downloaded).")
    if path.is_file():
        return _from_dicts(*_parts_of_file(path))
    if (path / "config.json").exists():
        return _from_diffusers(path)
    if (path / "vae" / "config.json").exists():
        return _from_diffusers(path / "vae")
    return _from_dicts(*_parts_of_folder(path))


_State = dict[str, Tensor]


def _parts_of_folder(folder: Path) -> tuple[_State, _State, str, str, str]:
    files = sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES)
    if len(files) == 1:
        return _parts_of_file(files[0])
    encoders = [p for p in files if _role(p) == "encoder"]
    decoders = [p for p in files if _role(p) == "decoder"]
    if len(encoders) != 1 or len(decoders) != 1:
        found = ", ".join(p.name for p in files) or "no weights"
        raise ModelError(
            f"{folder} must hold one encoder and one decoder and has {found}; {_WANTED}, or name "
            "one file of the pair."
        )
    return _pair(encoders[0], decoders[0])


def _role(path: Path) -> taesd.Part | None:
    """Return which part a file's name says it is; the last word counts (autoencoder_decoder)."""
    places = {part: path.name.rfind(part) for part in _OTHER}
    part = max(places, key=lambda name: places[name])
    return part if places[part] >= 0 else None


def partner_of(path: Path) -> Path | None:
    """Return the other file of a pair, which need not exist; None where the name is of no pair."""
    part = _role(path)
    if part is None:
        return None
    before, _, after = path.name.rpartition(part)
    return path.with_name(f"{before}{_OTHER[part]}{after}")


def _parts_of_file(path: Path) -> tuple[_State, _State, str, str, str]:
    state = _read_state(path)
    parts = {
        part: {n.removeprefix(part): t for n, t in state.items() if n.startswith(part)}
        for part in ("encoder.", "decoder.")
    }
    partner = partner_of(path)
    if partner is not None and not any(parts.values()):
        if not partner.exists():
            raise ModelError(
                f"{path} has no {partner.name} beside it; put encoder and decoder into one "
                "folder under names that differ in that word alone."
            )
        return _pair(path, partner) if _role(path) == "encoder" else _pair(partner, path)
    if not all(parts.values()) or sum(map(len, parts.values())) != len(state):
        raise ModelError(
            f"{path} does not hold the keys 'encoder.<number>...' and 'decoder.<number>...' alone; "
            f"{_WANTED}."
        )
    names = (f"{path.name}, encoder", f"{path.name}, decoder")
    return parts["encoder."], parts["decoder."], *names, path.stem


def _pair(encoder: Path, decoder: Path) -> tuple[_State, _State, str, str, str]:
    name = encoder.stem.replace("encoder", "").strip("_-.") or encoder.parent.name
    return _read_state(encoder), _read_state(decoder), encoder.name, decoder.name, name


def _read_state(path: Path) -> _State:
    """Return a file's tensors; raises ``ModelError`` for pickles with code and damaged files."""
    state = read_state_file(path)
    if not state:
        raise ModelError(f"{path} holds no state dict (names and tensors); {_WANTED}.")
    for name, tensor in state.items():
        check_weight(name, tensor, str(path))
    return state


def _from_dicts(
    encoder: _State, decoder: _State, encoder_name: str, decoder_name: str, name: str
) -> ImageAutoencoder:
    model = nn.ModuleDict(
        {
            "encoder": _built(encoder, "encoder", encoder_name),
            "decoder": _built(decoder, "decoder", decoder_name),
        }
    )
    strides = [taesd.stride(_part(model, part)) for part in ("encoder", "decoder")]
    if strides[0] != strides[1]:
        raise ModelError(
            f"{encoder_name} shrinks images {strides[0]} times and {decoder_name} enlarges them "
            f"{strides[1]} times; use a pair that belongs together (a bias may be missing)."
        )
    (images, code), (code_in, images_out) = (
        _ends(_part(model, part)) for part in ("encoder", "decoder")
    )
    if code != code_in or images != images_out:
        raise ModelError(
            f"{encoder_name} maps {images} channels to {code} and {decoder_name} {code_in} to "
            f"{images_out}; use a pair that belongs together."
        )
    return ImageAutoencoder(
        model,
        encode=_encode_taesd,
        decode=_decode_taesd,
        blocks=_blocks_taesd,
        write=_write_taesd,
        channels=images,
        latent_channels=code,
        stride=strides[0],
        name=name,
    ).eval()


def _built(state: _State, part: taesd.Part, where: str) -> nn.Sequential:
    """Return a part; raises ``ModelError``, which tells where the file fits the other part."""
    swapped = ModelError(
        f"{where} looks like the {_OTHER[part]} and was given as the {part}; name the two files by "
        "what they hold."
    )
    try:
        built = taesd.build_part(state, part, where)
    except ModelError:
        if _resizes(state, _OTHER[part], where):
            raise swapped from None
        raise
    # an encoder's layers make a decoder, too, though one that enlarges nothing
    if taesd.stride(built) == 1 and _resizes(state, _OTHER[part], where):
        raise swapped
    return built


def _resizes(state: _State, part: taesd.Part, where: str) -> bool:
    """Whether a state dict makes such a part, and one that changes the sides of images."""
    try:
        return taesd.stride(taesd.build_part(state, part, where)) > 1
    except ModelError:
        return False


def _part(model: Any, part: str) -> nn.Sequential:
    chosen: nn.Sequential = model[part]
    return chosen


def _ends(part: nn.Sequential) -> tuple[int, int]:
    """Return how many channels go in and come out."""
    layers = [x.conv[0] if isinstance(x, taesd.Block) else x for x in part]
    convolutions = [x for x in layers if isinstance(x, nn.Conv2d)]
    return convolutions[0].in_channels, convolutions[-1].out_channels


def _encode_taesd(model: Any, images: Tensor) -> Tensor:
    latents: Tensor = model["encoder"](images)
    return latents


def _decode_taesd(model: Any, latents: Tensor) -> Tensor:
    images: Tensor = model["decoder"](latents)
    return images


def _blocks_taesd(model: Any) -> Mapping[str, Sequence[nn.Module]]:
    return {
        part: [x for x in model[part] if isinstance(x, (nn.Conv2d, taesd.Block))]
        for part in ("encoder", "decoder")
    }


def _write_taesd(model: Any, folder: Path) -> None:
    for part in ("encoder", "decoder"):
        state = {n: t.contiguous() for n, t in model[part].state_dict().items()}
        save_file(state, folder / f"{part}.safetensors", metadata={"format": "pt"})


def _from_diffusers(folder: Path) -> ImageAutoencoder:
    config = _config(folder)
    model = _load_diffusers(folder, str(config["_class_name"]))
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ModelError(
                f"{folder}: the parameter '{name}' holds NaN or infinity, so nothing can be "
                "measured; use an undamaged checkpoint."
            )
    tiny = config["_class_name"] == "AutoencoderTiny"
    told = model.config
    widths = told.encoder_block_out_channels if tiny else told.block_out_channels
    return ImageAutoencoder(
        model,
        encode=_encode_tiny if tiny else _encode_kl,
        decode=_decode_diffusers,
        blocks=_blocks_tiny if tiny else _blocks_kl,
        write=_write_diffusers,
        channels=int(told.in_channels),
        latent_channels=int(told.latent_channels),
        stride=2 ** (len(widths) - 1),
        name=folder.resolve().name,
    ).eval()


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} is not valid JSON ({brief(error)}); write it again with save_pretrained."
        ) from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds no settings of a model; {_WANTED}.")
    named = config.get("_class_name") or ", ".join(map(str, config.get("architectures") or ()))
    what = str(named or config.get("model_type") or "something unnamed")
    if what not in _CLASSES:
        raise ModelError(f"{folder} holds {what}, which is no image autoencoder; {_WANTED}.")
    return config


def _load_diffusers(folder: Path, kind: str) -> Any:
    go_offline()
    try:
        diffusers = importlib.import_module("diffusers")
    except ImportError:
        raise InputError(
            'Loading a diffusers folder needs diffusers; run pip install "terrarium[vision]".'
        ) from None
    before = diffusers.logging.get_verbosity()
    diffusers.logging.set_verbosity(50)
    try:
        model, info = getattr(diffusers, kind).from_pretrained(
            folder,
            local_files_only=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
            torch_dtype=torch.float32,
        )
    except Exception as error:  # damaged files and configs fail in many ways
        raise ModelError(
            f"The {kind} in {folder} cannot be loaded ({brief(error)}); check that config.json and "
            "the weights are whole and belong together."
        ) from None
    finally:
        diffusers.logging.set_verbosity(before)
    for kind_of_fault in ("missing_keys", "unexpected_keys"):
        if faults := sorted(info[kind_of_fault]):
            verb = "lack" if kind_of_fault == "missing_keys" else "hold besides"
            raise ModelError(
                f"{folder}: the weights {verb} '{faults[0]}'; use the config.json that belongs to "
                "them."
            )
    return model


def _encode_tiny(model: Any, images: Tensor) -> Tensor:
    latents: Tensor = model.encode(images * 2 - 1).latents
    return latents


def _encode_kl(model: Any, images: Tensor) -> Tensor:
    latents: Tensor = model.encode(images * 2 - 1).latent_dist.mode()
    return latents


def _decode_diffusers(model: Any, latents: Tensor) -> Tensor:
    images: Tensor = (model.decode(latents).sample + 1) / 2
    return images


def _blocks_tiny(model: Any) -> Mapping[str, Sequence[nn.Module]]:
    return {
        part: [x for x in getattr(model, part).layers if any(True for _ in x.parameters())]
        for part in ("encoder", "decoder")
    }


def _blocks_kl(model: Any) -> Mapping[str, Sequence[nn.Module]]:
    def inner(block: Any) -> list[nn.Module]:
        pairs = zip_longest(block.resnets, getattr(block, "attentions", None) or ())
        found = [x for pair in pairs for x in pair if x is not None]
        for name in ("downsamplers", "upsamplers"):
            found += list(getattr(block, name, None) or ())
        return found

    encoder, decoder = model.encoder, model.decoder
    down = [x for block in encoder.down_blocks for x in inner(block)]
    up = [x for block in decoder.up_blocks for x in inner(block)]
    return {
        "encoder": [encoder.conv_in, *down, *inner(encoder.mid_block), encoder.conv_out],
        "decoder": [decoder.conv_in, *inner(decoder.mid_block), *up, decoder.conv_out],
    }


def _write_diffusers(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
