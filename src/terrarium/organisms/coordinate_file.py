"""Coordinate networks made elsewhere: a state dict, and a small YAML file that says what it is.

::

    weights: circle.pt        # from this file's own folder; state dict or safetensors
    place: model              # key or prefix of the network in it; left out: the whole file
    transposed: false         # true where matrices are (in, out)
    model:
      inputs: 2
      encoding: {kind: positional, frequencies: 6, factor: 3.141592653589793, identity: true}
      layers:                 # tensors <name>.weight, <name>.bias
        - {name: net.0, activation: relu}
        - {name: net.2, activation: relu, encoded: after}
        - {name: net.4, activation: none}

Other keys are those of `terrarium.organisms.coordinate_foreign`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from terrarium.errors import InputError, ModelError
from terrarium.organisms.coordinate import Coordinate
from terrarium.organisms.coordinate_foreign import ForeignCoordinate, ForeignModel
from terrarium.organisms.recipe import CoordinateModel, Spec, parse
from terrarium.organisms.state_files import (
    check_all_used,
    check_tables,
    read_state_file,
    state_at,
    tensor_at,
)

_KINDS: dict[str, tuple[Any, Any]] = {
    "coordinate": (CoordinateModel, Coordinate),
    "coordinate_foreign": (ForeignModel, ForeignCoordinate),
}


class CoordinateFile(Spec):
    """A coordinate network that was made elsewhere: what it is, and where its tensors lie."""

    weights: str
    place: str = ""
    transposed: bool = False
    model: ForeignModel


def load_coordinate_network(path: str | Path) -> Any:
    """Return a coordinate network as a fleet of one that does not train.

    ``path`` is a YAML file as this module says, or a folder that terrarium has saved one in (a
    grown organism's, too).  It follows the contract of networks: ``forward`` takes points
    ``(1, n, inputs)`` and gives ``(1, n, outputs)``, float32.

    Raises ``InputError`` for a spec that says something impossible and ``ModelError`` for weights
    that are not what it says: missing, of another shape, not finite, not named by it.
    """
    path = Path(path).expanduser()
    network = _saved(path) if path.is_dir() else _described(path)
    network.weights.learn(False)
    return network.eval()


def network_files(path: str | Path) -> list[Path]:
    """Return the files that `load_coordinate_network` reads, the spec first."""
    path = Path(path).expanduser()
    if path.is_dir():
        return [path / "config.json", path / "model.safetensors"]
    return [path, _weights_file(path, _read_spec(path))]


def _weights_file(path: Path, described: CoordinateFile) -> Path:
    return path.parent / Path(described.weights).expanduser()


def _saved(folder: Path) -> Any:
    """Return what `save` of a coordinate network has written."""
    config = folder / "config.json"
    try:
        told = json.loads(config.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(
            f"{folder} holds no config.json; give the folder of a saved coordinate network, or a "
            "YAML file that describes one."
        ) from None
    except ValueError:
        raise InputError(f"{config} is not valid JSON; save the network again.") from None
    kind = told.get("kind") if isinstance(told, dict) else None
    if kind not in _KINDS:
        raise InputError(f"{folder} holds no coordinate network (its kind is {kind!r}).")
    spec_type, network_type = _KINDS[kind]
    told.pop("model_type", None)
    network = network_type(parse(spec_type, told, str(config)), [("load", 0)])
    where = str(folder / "model.safetensors")
    held = read_state_file(where)
    shapes = {name: slot.shape for name, slot in network.weights.slots.items()}
    network.load_member_state(
        0, {name: tensor_at(held, name, shape, where) for name, shape in shapes.items()}
    )
    check_all_used(held, set(shapes), where)
    return network


def _described(path: Path) -> ForeignCoordinate:
    described = _read_spec(path)
    where = str(_weights_file(path, described))
    held = state_at(read_state_file(where), described.place, where)
    spec = _with_widths(described, held, where)
    network = ForeignCoordinate(spec, [("load", 0)])
    network.load_member_state(0, _state(described, spec, held, where))
    return network


def _read_spec(path: Path) -> CoordinateFile:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(
            f"There is no spec file {path}; give a YAML file that describes a coordinate network."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is not valid YAML ({' '.join(str(error).split())}); mend it there."
        ) from None
    if not isinstance(data, dict):
        raise InputError(f"{path} describes no network: expected keys 'weights' and 'model'.")
    check_tables(CoordinateFile, data, str(path))
    described: CoordinateFile = parse(CoordinateFile, data, str(path))
    return described


def _with_widths(described: CoordinateFile, held: Mapping[str, Any], where: str) -> ForeignModel:
    """Return the model with the numbers that only the weights tell filled in."""
    model = described.model
    layers = []
    for layer in model.layers:
        width = _size(held, f"{layer.name}.weight", 1 if described.transposed else 0, where)
        if layer.width not in (0, width):
            raise ModelError(
                f"{where}: '{layer.name}.weight' has {width} outputs and the spec says "
                f"{layer.width}; use the spec that belongs to the weights."
            )
        layers.append(layer.model_copy(update={"width": width}))
    encoding = model.encoding
    if encoding.kind == "fourier":
        found = _size(held, encoding.matrix, 1 if encoding.transposed else 0, where)
        encoding = encoding.model_copy(update={"frequencies": found})
    return model.model_copy(update={"layers": tuple(layers), "encoding": encoding})


def _size(held: Mapping[str, Any], name: str, axis: int, where: str) -> int:
    """Return the size of a matrix along an axis; its other size is compared when it is read."""
    tensor = held.get(name)
    if not isinstance(tensor, Tensor):
        tensor_at(held, name, (), where)  # raises what is wrong with it
    elif tensor.dim() == 2:
        return tensor.shape[axis]
    raise ModelError(f"{where}: '{name}' is no matrix; name the tensors of linear layers.")


def _state(
    described: CoordinateFile, spec: ForeignModel, held: Mapping[str, Any], where: str
) -> dict[str, Tensor]:
    """Return the tensors under our names; matrices are turned to ``(in, out)``."""
    theirs = {
        f"layers.{i}.{part}": (f"{layer.name}.{part}", described.transposed)
        for i, layer in enumerate(spec.layers)
        for part in ("weight", "bias")
    }
    theirs["frequencies"] = (spec.encoding.matrix, spec.encoding.transposed)
    for layer in spec.layers:
        if layer.bias and f"{layer.name}.bias" not in held:
            raise ModelError(
                f"{where} lacks the tensor '{layer.name}.bias'; where the layer '{layer.name}' has "
                "none, say `bias: false` of it in the spec."
            )
    state: dict[str, Tensor] = {}
    for ours, shape in spec.shapes().items():
        name, as_ours = theirs[ours]
        turned = len(shape) == 2 and not as_ours
        tensor = tensor_at(held, name, shape[::-1] if turned else shape, where)
        state[ours] = tensor.t() if turned else tensor
    check_all_used(held, {theirs[ours][0] for ours in state}, where)
    return state
