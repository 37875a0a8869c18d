"""Opening scenes: a mesh file, a YAML file with a spec, or the spec itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from terrarium.errors import InputError, did_you_mean
from terrarium.worlds.faults import sentence
from terrarium.worlds.scenes.analytic import AnalyticScene
from terrarium.worlds.scenes.mesh import MeshFile, MeshScene, open_mesh

SceneSpec = Annotated[AnalyticScene | MeshFile, Field(discriminator="kind")]
"""A scene as data: ``kind: analytic`` with a shape, or ``kind: mesh`` with a path."""


def load_scene(
    source: str | Path | Mapping[str, Any] | AnalyticScene | MeshFile, **options: Any
) -> AnalyticScene | MeshScene:
    """Return the scene of a mesh file, of a YAML or JSON file with a spec, or of a spec.

    ``options`` are further fields of the spec: ``load_scene("cow.obj", texture="cow.png")``.  What
    was mended in a mesh, or is odd, stands in ``scene.notes``.  Raises ``InputError`` in one
    sentence for what cannot be used.
    """
    spec = scene_spec(source, **options)
    return spec if isinstance(spec, AnalyticScene) else open_mesh(spec)


def scene_spec(
    source: str | Path | Mapping[str, Any] | AnalyticScene | MeshFile, **options: Any
) -> AnalyticScene | MeshFile:
    """Return the frozen spec of a scene; arguments and errors as for `load_scene`."""
    if isinstance(source, AnalyticScene | MeshFile):
        source = source.model_dump(mode="json", exclude={"checksum"} if options else set())
    what = "The scene"
    if isinstance(source, str | Path):
        what = f"The scene {source}"
        source = _of_file(Path(source))
    if not isinstance(source, Mapping):
        raise InputError(
            f"A scene cannot be made of {source!r:.60}; give the path of a mesh or of a YAML file, "
            "or a spec such as {'shape': {'kind': 'sphere'}}."
        )
    spec = with_kind({**source, **options})
    kinds: dict[str, type[AnalyticScene] | type[MeshFile]] = {
        "analytic": AnalyticScene,
        "mesh": MeshFile,
    }
    kind = kinds.get(str(spec["kind"]))
    if kind is None:
        known = did_you_mean(str(spec["kind"]), kinds)
        raise InputError(f"{what}: there is no kind of scene '{spec['kind']}'{known}")
    try:
        return kind.model_validate(spec)
    except ValidationError as error:
        raise InputError(sentence(error, kind, what)) from None


def with_kind(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scene's spec with its ``kind``, which it may leave out: a mesh has a path."""
    return {"kind": "mesh" if "path" in spec else "analytic", **spec}


def _of_file(path: Path) -> Mapping[str, Any]:
    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        return {"kind": "mesh", "path": str(path)}
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise InputError(f"{path} is no YAML; expected a scene's spec with 'shape'.") from None
    if not isinstance(read, Mapping):
        raise InputError(f"{path} holds no mapping; expected a scene's spec with 'shape'.")
    return read
