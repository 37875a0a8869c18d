"""Radiance fields made elsewhere: a state dict, and a small YAML file that says what it is.

The file holds ``model`` (a `terrarium.organisms.recipe.RadianceModel`), ``nets`` (where each net
lies in the checkpoint) and ``layers`` (what the linear layers are called there); see
``radiance_specs/nerf-pytorch.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, model_validator
from torch import Tensor

from terrarium.errors import InputError, did_you_mean
from terrarium.organisms.radiance import RadianceField, net_names, net_shapes
from terrarium.organisms.recipe import RadianceModel, Spec, parse
from terrarium.organisms.state_files import (
    check_all_used,
    check_tables,
    read_state_file,
    state_at,
    tensor_at,
)


class LayerNames(Spec):
    """What the linear layers are called in a state dict."""

    trunk: tuple[str, ...]
    density: str
    feature: str | None = None
    direction: tuple[str, ...] = ()
    colour: str

    def by_layer(self) -> dict[str, str]:
        """Return our names of the layers to theirs."""
        names = {f"trunk.{i}": name for i, name in enumerate(self.trunk)}
        names |= {f"direction.{i}": name for i, name in enumerate(self.direction)}
        if self.feature is not None:
            names["feature"] = self.feature
        return names | {"density": self.density, "colour": self.colour}


class RadianceFile(Spec):
    """A radiance field that was made elsewhere: what it is, and where its tensors lie.

    ``weights`` is a path, from the YAML file's own folder; None where it is given when loading.
    ``nets`` says for ``fine`` (and ``coarse``) under which key or prefix of the checkpoint it
    lies; ``""`` stands for the checkpoint as a whole.
    """

    model: RadianceModel
    nets: dict[str, str] = Field(default_factory=lambda: {"fine": ""})
    layers: LayerNames
    weights: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> RadianceFile:
        if set(self.nets) != set(net_names(self.model)):
            raise ValueError(
                f"nets must say where {' and '.join(net_names(self.model))} lie, and names "
                f"{', '.join(sorted(self.nets)) or 'none'}"
            )
        named, needed = set(self.layers.by_layer()), set(net_shapes(self.model))
        if needed - named:
            raise ValueError(f"layers lack '{min(needed - named)}', which the model has")
        if named - needed:
            raise ValueError(f"layers name '{min(named - needed)}', which the model has not")
        return self


def load_radiance(
    weights: str | Path | None = None, spec: str | Path = "nerf-pytorch"
) -> RadianceField:
    """Return a radiance field made elsewhere, as a fleet of one that does not train.

    Parameters
    ----------
    weights:
        A checkpoint (pickled state dicts; read with ``weights_only=True``) or ``.safetensors``;
        None where the spec file names it.
    spec:
        A YAML file as this module says, or the name of one that terrarium brings
        (``"nerf-pytorch"``).

    Raises ``InputError`` for a spec that says something impossible and ``ModelError`` for weights
    that are not what it says: missing, of another shape, not finite, not named by it.
    """
    path, weights = radiance_files(weights, spec)
    described = _read_spec(path)
    held = read_state_file(weights)
    field = RadianceField(described.model, [("load", 0)])
    state: dict[str, Tensor] = {}
    for net, place in described.nets.items():
        where = f"{weights}, {net} net" if len(described.nets) > 1 else str(weights)
        state |= _net_state(described, net, state_at(held, place, str(weights)), where)
    field.load_member_state(0, state)
    field.weights.learn(False)
    return field.eval()


def radiance_files(
    weights: str | Path | None = None, spec: str | Path = "nerf-pytorch"
) -> tuple[Path, Path]:
    """Return the files that `load_radiance` reads: the spec, and the weights, which may be absent.

    Raises ``InputError`` where there is no such spec, or none of the two names weights.
    """
    path = _spec_path(spec)
    if weights is not None:
        return path, Path(weights).expanduser()
    described = _read_spec(path)
    if described.weights is None:
        raise InputError(f"{path} names no weights; give a checkpoint.")
    return path, path.parent / Path(described.weights).expanduser()


def shipped_specs() -> dict[str, Path]:
    """Return the spec files that terrarium brings, by name."""
    folder = Path(str(files("terrarium.organisms") / "radiance_specs"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _spec_path(spec: str | Path) -> Path:
    path = Path(spec).expanduser()
    if path.is_file():
        return path
    known = shipped_specs()
    if str(spec) in known:
        return known[str(spec)]
    near = did_you_mean(str(spec), known)
    raise InputError(f"There is no spec file '{spec}' of a radiance field{near}")


def _read_spec(path: Path) -> RadianceFile:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is not valid YAML ({' '.join(str(error).split())}); mend it there."
        ) from None
    if not isinstance(data, dict):
        raise InputError(f"{path} describes no field: expected keys 'model', 'nets', 'layers'.")
    if isinstance(data.get("model"), dict):
        data["model"].setdefault("kind", "radiance")
    check_tables(RadianceFile, data, str(path))
    described: RadianceFile = parse(RadianceFile, data, str(path))
    return described


def _net_state(
    described: RadianceFile, net: str, held: Mapping[str, Any], where: str
) -> dict[str, Tensor]:
    """Return one net's tensors under our names; matrices are turned to ``(in, out)``."""
    theirs = described.layers.by_layer()
    state: dict[str, Tensor] = {}
    used: set[str] = set()
    for layer, (inner, outer) in net_shapes(described.model).items():
        weight, bias = f"{theirs[layer]}.weight", f"{theirs[layer]}.bias"
        state[f"{net}.{layer}.weight"] = tensor_at(held, weight, (outer, inner), where).t()
        state[f"{net}.{layer}.bias"] = tensor_at(held, bias, (outer,), where)
        used |= {weight, bias}
    check_all_used(held, used, where)
    return state
