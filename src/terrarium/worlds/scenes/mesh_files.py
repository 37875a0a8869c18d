"""Files of meshes as people make them: which files belong together, and opening them.

Read by trimesh: glTF and GLB, OBJ (with its MTL and textures), PLY, STL, OFF.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError

KINDS = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
"""Kinds of file that hold meshes."""

EXTRA = 'pip install "terrarium[vision]"'
"""How to get what this folder needs."""


def needs_vision(error: ImportError) -> InputError:
    """Return the error that says how to get a missing package."""
    return InputError(f"Meshes and pictures need the package '{error.name}': {EXTRA}")


def check_path(path: Path) -> None:
    """Raise ``InputError`` in one sentence unless ``path`` is a file of a known kind with bytes."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the mesh file in it ({', '.join(KINDS)}).")
    if not path.exists():
        raise InputError(f"There is no file {path}; give a mesh ({', '.join(KINDS)}).")
    if path.suffix.lower() not in KINDS:
        raise InputError(
            f"{path} is of no known kind of mesh; export it as one of {', '.join(KINDS)}."
        )
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; export the mesh again.")


def checksum(path: Path, texture: Path | None = None) -> str:
    """Return 32 hex digits of the mesh's content and of all files that it refers to.

    Names and folders do not count, so that a moved mesh keeps its keys.  Raises ``InputError``
    for a file that cannot be read.
    """
    check_path(path)
    digest = hashlib.blake2b(digest_size=16)
    files = [path, *companions(path), *([texture] if texture is not None else [])]
    for file in files:
        if not file.is_file():
            digest.update(b"absent\x00")
            continue
        try:
            content = file.read_bytes()
        except OSError as error:
            raise InputError(f"{file} cannot be read ({error.strerror}).") from None
        digest.update(f"{len(content)}\x00".encode())
        digest.update(content)
    return digest.hexdigest()


def companions(path: Path) -> list[Path]:
    """Return the files that a mesh refers to, absent ones included: materials, textures, buffers.

    Their names stand in the file: ``mtllib`` and ``map_...`` (OBJ), ``uri`` (glTF),
    ``TextureFile`` (PLY).
    """
    named: list[Path] = []
    kind = path.suffix.lower()
    if kind == ".obj":
        for name in _values(path, "mtllib"):
            library = path.parent / name
            named.append(library)
            if library.is_file():
                maps = [v for key in ("map_Kd", "map_Ka", "map_d") for v in _values(library, key)]
                named += [library.parent / m.split()[-1] for m in maps if m.split()]
    elif kind == ".gltf":
        named += [path.parent / uri for uri in _uris(path)]
    elif kind == ".ply":
        named += [path.parent / name for name in _values(path, "comment TextureFile")]
    return list(dict.fromkeys(named))


def _values(path: Path, keyword: str) -> Iterator[str]:
    """Yield what follows a keyword at the start of a line, up to a PLY header's end."""
    wanted = keyword.lower().encode()
    with path.open("rb") as file:
        for line in file:
            words = line.strip()
            if words == b"end_header":
                return
            if words[: len(wanted) + 1].lower() == wanted + b" ":
                yield words[len(wanted) :].strip().decode("utf-8", "replace")


def _uris(path: Path) -> Iterator[str]:
    try:
        tree = json.loads(path.read_bytes())
        for part in ("buffers", "images"):
            for entry in tree.get(part, []):
                uri = entry.get("uri", "")
                if uri and not uri.startswith("data:"):
                    yield uri
    except (ValueError, AttributeError, TypeError):
        raise InputError(
            f"{path} is no glTF file (its JSON cannot be read); export it again."
        ) from None


def opened(path: Path) -> list[tuple[Any, NDArray[np.float64]]]:
    """Return trimesh's geometries in the file, each with its ``(4, 4)`` place in the scene.

    Raises ``InputError`` in one sentence where the file is broken or holds no faces.
    """
    check_path(path)
    try:
        import trimesh
    except ImportError as error:
        raise needs_vision(error) from None
    for file in companions(path):
        if path.suffix.lower() == ".gltf" and not file.is_file():
            raise InputError(
                f"{path} refers to {file.name}, which is not beside it; put it there or export "
                "as .glb."
            )
    logger = logging.getLogger("trimesh")
    quiet = logger.disabled
    try:
        logger.disabled = True  # what it warns of is told in notes
        scene = trimesh.load_scene(path, process=False)
        placed = [
            (scene.geometry[name], np.asarray(transform, dtype=np.float64))
            for transform, name in map(scene.graph.get, scene.graph.nodes_geometry)
        ]
    except Exception as error:  # the readers of ten formats raise whatever they meet
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"{path} cannot be read as {path.suffix[1:].upper()} ({reason}); it may be cut off or "
            "of another kind: export it again."
        ) from None
    finally:
        logger.disabled = quiet
    return _with_faces(path, placed)


def _with_faces(
    path: Path, placed: list[tuple[Any, NDArray[np.float64]]]
) -> list[tuple[Any, NDArray[np.float64]]]:
    faced = [(g, t) for g, t in placed if len(getattr(g, "faces", ()))]
    if faced:
        return faced
    points = sum(len(getattr(g, "vertices", ())) for g, _ in placed)
    if points:
        raise InputError(
            f"{path} holds {points} points and no faces (a point cloud or lines); make a surface "
            "of them first, such as by Poisson reconstruction."
        )
    raise InputError(
        f"{path} holds no faces that can be read; it may be empty, cut off or of another kind: "
        "export the mesh again."
    )
