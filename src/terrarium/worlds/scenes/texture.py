"""The colours that a mesh wears: textures, vertex and face colours, materials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.worlds.scenes.jet import Floats
from terrarium.worlds.scenes.mesh_files import companions, needs_vision

Filter = Literal["bilinear", "nearest"]

NO_PICTURES = (".mtl", ".bin")
"""Files that meshes refer to, and that are no textures."""

GREY = 0.7
"""The colour of meshes that come without any."""


class Wear(NamedTuple):
    """Colours of ``m`` faces.

    ``uv`` (m, 3, 2) and ``rgb`` (m, 3, 3) belong to the faces' corners, ``image`` (m,) counts
    ``images`` from 0 and is -1 without a texture; a colour is ``rgb`` times the texture.
    """

    uv: Floats
    rgb: Floats
    image: NDArray[np.int64]
    images: tuple[Floats, ...]

    def take(self, faces: NDArray[Any]) -> Wear:
        """Return the wear of some faces, in that order."""
        return self._replace(uv=self.uv[faces], rgb=self.rgb[faces], image=self.image[faces])

    def turned(self, faces: NDArray[np.bool_]) -> Wear:
        """Return the wear after the second and third corner of some faces changed places."""
        uv, rgb = self.uv.copy(), self.rgb.copy()
        for part in (uv, rgb):
            part[faces] = part[faces][:, [0, 2, 1]]
        return self._replace(uv=uv, rgb=rgb)

    @property
    def plain(self) -> bool:
        """Whether all of the mesh has one colour."""
        return bool((self.image < 0).all() and np.ptp(self.rgb.reshape(-1, 3), axis=0).max() == 0)

    def at(self, face: NDArray[np.int64], weights: Floats, filter_: Filter) -> Floats:
        """Return colours ``(n, 3)`` in [0, 1] at barycentric ``weights`` (n, 3) of faces (n,)."""
        colour = np.asarray(np.einsum("nc,nck->nk", weights, self.rgb[face]))
        which = self.image[face]
        for i, image in enumerate(self.images):
            here = np.flatnonzero(which == i)
            if len(here):
                uv = np.einsum("nc,nck->nk", weights[here], self.uv[face[here]])
                colour[here] *= lookup(image, uv, filter_)
        return np.asarray(np.clip(colour, 0.0, 1.0))


def lookup(image: Floats, uv: Floats, filter_: Filter = "bilinear") -> Floats:
    """Return texture colours ``(n, 3)`` at ``uv`` (n, 2), origin at the lower left, repeating.

    The middle of pixel ``(row, column)`` lies at ``((column + 0.5) / width, 1 - (row + 0.5) /
    height)``, as in OpenGL; there both filters give the pixel's own colour.
    """
    rows, columns = image.shape[:2]
    x, y = uv[:, 0] * columns - 0.5, (1 - uv[:, 1]) * rows - 0.5
    if filter_ == "nearest":
        return np.asarray(
            image[
                np.floor(y + 0.5).astype(np.int64) % rows,
                np.floor(x + 0.5).astype(np.int64) % columns,
            ]
        )
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    across, down = (x - left)[:, None], (y - top)[:, None]
    r0, r1, c0, c1 = top % rows, (top + 1) % rows, left % columns, (left + 1) % columns
    upper = (1 - across) * image[r0, c0] + across * image[r0, c1]
    lower = (1 - across) * image[r1, c0] + across * image[r1, c1]
    return np.asarray((1 - down) * upper + down * lower)


def read_texture(path: Path) -> Floats:
    """Return a picture file as ``(rows, columns, 3)`` in [0, 1]; ``InputError`` if it is none."""
    try:
        from PIL import Image
    except ImportError as error:
        raise needs_vision(error) from None
    if not path.is_file():
        raise InputError(f"There is no texture {path}; give a picture file (PNG, JPEG).")
    try:
        with Image.open(path) as picture:
            return pixels(picture)
    except Exception:  # Pillow raises what its many readers meet
        raise InputError(
            f"{path} cannot be read as a picture; it may be cut off: save it again."
        ) from None


def pixels(picture: Any) -> Floats:
    """Return a Pillow picture as ``(rows, columns, 3)`` in [0, 1], transparency left out."""
    return np.asarray(picture.convert("RGB"), dtype=np.float64) / 255


@dataclass(frozen=True)
class Dressed:
    """One geometry's colours, and what was amiss with them."""

    uv: Floats
    rgb: Floats
    image: Floats | None
    notes: tuple[str, ...] = ()


def dressed(geometry: Any, override: Floats | None, path: Path) -> Dressed:
    """Return the colours of trimesh's ``geometry``; ``override`` is a texture instead of its own.

    ``path`` is the mesh's file.  Raises ``InputError`` where a texture is given and the mesh has no
    texture coordinates, and where its own texture cannot be read.
    """
    faces = np.asarray(geometry.faces)
    visual = geometry.visual
    uv = getattr(visual, "uv", None)
    corner = np.zeros((*faces.shape, 2))
    if uv is not None and len(uv) == len(geometry.vertices):
        corner = np.asarray(uv, dtype=np.float64)[faces]
        uv = uv if np.isfinite(corner).all() else None
    else:
        uv = None
    if override is not None:
        if uv is None:
            raise InputError(
                "A texture was given, and the mesh has no texture coordinates; unwrap it in the 3D "
                "program, or leave texture out."
            )
        return Dressed(corner, np.ones((*faces.shape, 3)), override)
    if getattr(visual, "kind", None) in ("vertex", "face"):
        own = visual.face_colors[:, None] if visual.kind == "face" else visual.vertex_colors[faces]
        rgb = np.broadcast_to(np.asarray(own, dtype=np.float64)[..., :3] / 255, (*faces.shape, 3))
        return Dressed(corner, np.array(rgb), None)
    image, factor = _material(getattr(visual, "material", None), path)
    rgb = np.tile(factor, (*faces.shape, 1))
    attributes = getattr(visual, "vertex_attributes", None) or {}
    if image is None and "color" in attributes:
        own = np.asarray(attributes["color"])
        scale = 255 if own.dtype.kind in "iu" else 1
        rgb = np.clip(np.asarray(own, dtype=np.float64)[faces][..., :3] / scale, 0, 1)
        return Dressed(corner, rgb, None)
    if image is None and uv is not None:
        note = "It has texture coordinates and no texture was found: it wears its material's plain "
        return Dressed(corner, rgb, None, (note + "colour; give texture to dress it.",))
    return Dressed(corner, rgb, image if uv is not None else None)


def _material(material: Any, path: Path) -> tuple[Floats | None, Floats]:
    """Return a material's base texture, if any, and the colour that multiplies it (or stands)."""
    if material is None:
        return None, np.full(3, GREY)
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    factor = getattr(material, "baseColorFactor", None)
    base = np.ones(3)
    if factor is not None:
        base = np.asarray(factor, dtype=np.float64)[:3]
        base = base / 255 if np.asarray(factor).dtype.kind in "iu" else base
    if picture is not None:
        whole = _own_pixels(picture, path)
        if picture.size != (2, 2) or np.ptp(whole.reshape(-1, 3), axis=0).max() > 0:
            return whole, base
        return None, base * whole[0, 0]  # what trimesh puts in for a texture that it did not find
    diffuse = getattr(material, "diffuse", None)
    if factor is None and diffuse is not None:
        return None, np.asarray(diffuse, dtype=np.float64)[:3] / 255
    return None, base if factor is not None else np.full(3, GREY)


def _own_pixels(picture: Any, path: Path) -> Floats:
    """Return the pixels of a texture that a mesh's file holds or refers to."""
    try:
        return pixels(picture)
    except Exception:  # trimesh opens pictures, and Pillow reads their pixels only now
        for file in companions(path):
            if file.suffix.lower() not in NO_PICTURES and file.is_file():
                read_texture(file)  # says which one it is
        raise InputError(
            f"A texture of {path} cannot be read as a picture; it may be cut off: export the mesh "
            "again, or give a picture file as texture."
        ) from None
