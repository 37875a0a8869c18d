"""The world `photographs`: crops of photographs that ship with scikit-image, or of your own images.

Joint table: ``photograph`` is even over the photographs, in every split.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from terrarium.errors import InputError
from terrarium.worlds import splits
from terrarium.worlds.base import Array, Batch, Counterfactual, Image, JointRow, Split
from terrarium.worlds.faults import Told
from terrarium.worlds.given import check_count
from terrarium.worlds.image_files import load_image, photograph_file
from terrarium.worlds.images.factors import judged, squared_errors

SHIPPED = ("astronaut", "camera", "chelsea", "coffee", "coins", "motorcycle_left", "rocket")
"""Photographs taken where none are named."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".ppm", ".pgm")
"""Files of a folder that count as images."""

TILE = 2
"""A photograph is cut into tiles of so many crops a side; a tile belongs to one split."""


def _known_size(side: Any) -> Any:
    """Say what a side is of: studies and papers know it by other names."""
    if isinstance(side, int) and not 4 <= side <= 256:
        raise ValueError(
            f"crops (tiles) of {side} x {side} pixels were asked for; expected 4 to 256 a side"
        )
    return side


class Photographs(Told):
    """Crops ``(channels, side, side)`` float32 in [0, 1] (sRGB as stored); the output is the input.

    Needs the extra ``vision``.  A photograph is drawn, then one of the split's tiles, then a crop
    inside it, so that splits share no pixel.  Crops of one single value are not drawn.

    Facts: ``photograph`` (text), ``row``, ``column`` (pixels of the reduced photograph, int64).

    Attributes
    ----------
    names:
        Photographs that ship with scikit-image (`terrarium.worlds.image_files.photographs`);
        nothing is fetched.
    folder:
        A folder of your own images instead, of every mode; its files count, not those
        of folders inside.  Images too small or too plain for three tiles are refused by name when
        they are read; of images that show the same pixels the first by name counts (`notes`).
        ``digest`` pins what is in them.
    reduce:
        Photographs are made smaller by this factor first (means of squares of pixels).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: Annotated[int, BeforeValidator(_known_size)] = Field(32, ge=4, le=256)
    channels: Literal[1, 3] = 3
    names: tuple[str, ...] = SHIPPED
    folder: str = ""
    reduce: int = Field(1, ge=1, le=64)
    digest: str = Field("", description="of the folder's content; filled in")

    @model_validator(mode="after")
    def _pin_content(self) -> Photographs:
        if not self.folder:
            if not self.names or len(set(self.names)) != len(self.names):
                raise ValueError("names must hold at least one photograph, each once")
            return self
        files = image_files(self.folder)
        content = _digest(files)
        if self.digest not in ("", content):
            raise InputError(
                f"{self.folder} does not hold the images that were used before (digest "
                f"{self.digest}); put those back, or leave digest out to take these."
            )
        object.__setattr__(self, "digest", content)
        object.__setattr__(self, "names", tuple(path.name for path in files))
        return self

    @property
    def name(self) -> str:
        """``"photographs"``."""
        return "photographs"

    @property
    def output(self) -> Image:
        """An image like the input."""
        return Image(self.channels, self.side, self.side)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which images do not count, a sentence; reads them all."""
        counted = {one.place for one in _tiled(self)}
        again = [name for place, name in enumerate(self.names) if place not in counted]
        if not again:
            return ()
        shown = ", ".join(again[:3]) + (" and others" if len(again) > 3 else "")
        return (
            f"{len(again)} of {len(self.names)} images show the same pixels as another and do not "
            f"count: {shown}.",
        )

    def sample(self, n: int, rng: np.random.Generator, split: Split = "train") -> Batch:
        """Return ``n`` crops from tiles of ``split``."""
        check_count(n, self.name)
        splits.check_split(split, splits.SPLITS, self.name)
        found = _tiled(self)
        which = rng.integers(len(found), size=n)
        row, column = np.zeros(n, np.int64), np.zeros(n, np.int64)
        images = np.zeros((n, self.channels, self.side, self.side), np.float32)
        for i, place in enumerate(which):
            one = found[place]
            tiles = one.tiles[split]
            flat = True
            while flat:
                top, left = tiles[rng.integers(len(tiles))]
                top += rng.integers(one.height - self.side + 1)
                left += rng.integers(one.width - self.side + 1)
                crop = one.image[:, top : top + self.side, left : left + self.side]
                flat = bool((crop == crop[:, :1, :1]).all())
            row[i], column[i], images[i] = top, left, crop
        facts: dict[str, Array] = {
            "photograph": np.asarray(self.names)[[found[place].place for place in which]],
            "row": row,
            "column": column,
        }
        return Batch(images, images.copy(), facts)

    def optimum(self, batch: Batch) -> NDArray[np.float32]:
        """Return the input."""
        return np.asarray(batch.inputs, dtype=np.float32)

    def regret(self, batch: Batch, output: Array) -> NDArray[np.float64]:
        """Return ``(n,)`` squared errors summed over channels and pixels."""
        return squared_errors(batch, output)

    def judge(self, batch: Batch, output: Sequence[Any]) -> Mapping[str, Array]:
        """Judge ``n`` images as the world `images` does."""
        return judged(batch, output)

    def joint_table(self, split: Split = "train") -> list[JointRow]:
        """Return the law of ``photograph``: even."""
        names = self.names
        if self.folder:  # those that count are known once they are read
            names = tuple(names[one.place] for one in _tiled(self))
        return [JointRow({"photograph": name}, 1 / len(names)) for name in names]

    def counterfactuals(self, n: int, rng: np.random.Generator) -> list[Counterfactual]:
        """Return crops mirrored left to right: the same place of the same photograph."""
        before = self.sample(n, rng, "test")
        mirrored = np.ascontiguousarray(before.inputs[..., ::-1])
        after = Batch(mirrored, mirrored.copy(), before.facts)
        return [Counterfactual("mirror", "image", (), before, after)]


@dataclass(frozen=True)
class _Tiled:
    """A photograph ``(channels, rows, columns)`` and its tiles' top left corners by split.

    ``place`` is that of its name among the world's.
    """

    place: int
    image: NDArray[np.float32]
    tiles: Mapping[str, NDArray[np.int64]]
    height: int
    width: int


def image_files(folder: str | Path) -> list[Path]:
    """Return the image files of a folder, by name; raises ``InputError`` where there are none."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise InputError(f"There is no folder {path}; give one that holds images.")
    found = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"The folder {path} holds no images ({', '.join(SUFFIXES)}).")
    return found


def _digest(files: Sequence[Path]) -> str:
    return _digest_of(tuple((p, p.stat().st_size, p.stat().st_mtime_ns) for p in files))


@functools.lru_cache(maxsize=8)
def _digest_of(stamped: tuple[tuple[Path, int, int], ...]) -> str:
    """Return 32 hex digits of files' names and bytes, computed once for these sizes and times."""
    digest = hashlib.blake2b(digest_size=16)
    for path, size, _ in stamped:
        digest.update(f"{path.name}\x00{size}\x00".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.lru_cache(maxsize=4)
def _tiled(world: Photographs) -> list[_Tiled]:
    """Return a world's photographs, read and cut once.

    Tiles are given to splits photograph by photograph: one that is there twice would be in the
    training of its own test, so that of those with the same pixels only the first is kept.
    """
    files = (
        image_files(world.folder)
        if world.folder
        else [photograph_file(name) for name in world.names]
    )
    found, seen = list[_Tiled](), set[bytes]()
    for place, path in enumerate(files):
        image = _reduced(load_image(path), world)
        pixels = hashlib.blake2b(repr(image.shape).encode() + image.tobytes()).digest()
        if pixels not in seen:
            seen.add(pixels)
            found.append(_cut(image, path, place, world))
    return found


def _reduced(image: NDArray[np.float32], world: Photographs) -> NDArray[np.float32]:
    """Return ``(rows, columns, 3)`` as ``(channels, rows, columns)``, smaller by ``reduce``."""
    by = world.reduce
    rows, columns = image.shape[0] // by, image.shape[1] // by
    parts = image[: rows * by, : columns * by].reshape(rows, by, columns, by, 3)
    small = parts.mean(axis=(1, 3)).transpose(2, 0, 1)
    if world.channels == 1:
        small = small.mean(axis=0, keepdims=True)
    return np.ascontiguousarray(small, dtype=np.float32)


def _cut(image: NDArray[np.float32], path: Path, place: int, world: Photographs) -> _Tiled:
    """Cut a photograph into tiles and give each split its share of them, by a hash of the tile."""
    _, rows, columns = image.shape
    height, width = (max(world.side, min(TILE * world.side, size // 3)) for size in (rows, columns))
    corners = [
        (top, left)
        for top in range(0, rows - height + 1, height)
        for left in range(0, columns - width + 1, width)
        if np.ptp(image[:, top : top + height, left : left + width], axis=(1, 2)).any()
    ]
    if len(corners) < len(splits.SPLITS):
        raise _too_few(image, path, len(corners), world)
    name = path.name
    corners.sort(key=lambda corner: splits.text_hash(f"{name} {corner[0]} {corner[1]}"))
    held = max(1, round(splits.SHARES[1] * len(corners)))
    parts = (corners[2 * held :], corners[:held], corners[held : 2 * held])
    tiles = {s: np.array(part, np.int64) for s, part in zip(splits.SPLITS, parts, strict=True)}
    return _Tiled(place, image, tiles, height, width)


def _too_few(image: NDArray[np.float32], path: Path, tiles: int, world: Photographs) -> InputError:
    """Return the error of a photograph that does not give each split a tile."""
    _, rows, columns = image.shape
    if min(rows, columns) >= 2 * world.side and not np.ptp(image, axis=(1, 2)).any():
        return InputError(f"{path} has one colour throughout; take it out or give another image.")
    reduced = f" after it was reduced {world.reduce} times" if world.reduce > 1 else ""
    return InputError(
        f"{path} has {rows} x {columns} pixels{reduced}: that gives {tiles} tiles for crops of "
        f"{world.side} x {world.side} pixels that are not of one colour, and three splits need 3; "
        f"ask for smaller crops{', reduce it less' if reduced else ''} or take the image out."
    )
