"""Image files of every mode, as arrays of what they show: needs the extra ``vision``."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError, did_you_mean

LARGEST = 100_000_000
"""Images of more pixels than this are refused: they would not fit into a small memory."""

_SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_SUFFIXES = (".png", ".jpg")
_NOT_PHOTOGRAPHS = ("clock_motion", "color", "logo", "phantom")


def load_image(path: Path | str) -> NDArray[np.float32]:
    """Return what an image file shows, ``(rows, columns, 3)`` float32 in [0, 1], sRGB as stored.

    Every mode that Pillow opens: bilevel, grey (8, 16 and 32 bits, float in [0, 1]), palette, RGB,
    CMYK, YCbCr, HSV, Lab.  Transparent pixels lie on white; a rotation that the camera noted
    (EXIF) is carried out; of an animation or a file of several pages the first picture counts;
    colour profiles are not applied.  Pillow rounds colour of 16 bits to 8.

    Raises ``InputError`` with one sentence for what is no image, is damaged, has more than
    `LARGEST` pixels, or holds numbers outside its range.
    """
    pillow = _pillow()
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"There is no image file {path}; give a PNG, JPEG, TIFF or similar file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about size: LARGEST decides here
            with pillow.open(path) as image:
                if image.width * image.height > LARGEST:
                    raise InputError(
                        f"{path} has {image.width} x {image.height} pixels, more than {LARGEST:,}; "
                        "make it smaller first."
                    )
                image.load()
                turned = importlib.import_module("PIL.ImageOps").exif_transpose(image)
                return _colours(turned, path)
    except pillow.DecompressionBombError:
        raise InputError(
            f"{path} has more than {LARGEST:,} pixels; make it smaller first."
        ) from None
    except InputError:
        raise
    except pillow.UnidentifiedImageError:
        raise InputError(
            f"{path} is no image that Pillow can read; give a PNG, JPEG, TIFF or similar file."
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
        # Pillow's readers raise all of these on damaged files
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is damaged or of a kind not read here ({why}).") from None


def _colours(image: Any, path: Path) -> NDArray[np.float32]:
    """Return an open Pillow image as ``(rows, columns, 3)``."""
    if image.mode in _SIXTEEN_BITS or image.mode == "F":
        return _numbers(image, path)
    if image.mode == "LAB":
        return _from_lab(image)
    if image.mode in ("PA", "La", "LA", "RGBa", "RGBA") or "transparency" in image.info:
        if image.mode in ("La", "RGBa"):  # premultiplied: Pillow converts one step at a time
            image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
        rgba = _bytes(image.convert("RGBA"))
        alpha = rgba[..., 3:]
        return np.asarray(rgba[..., :3] * alpha + (1 - alpha), dtype=np.float32)
    return _bytes(image.convert("RGB"))


def _bytes(image: Any) -> NDArray[np.float32]:
    return np.asarray(np.asarray(image, np.float32) / 255, dtype=np.float32)


def _numbers(image: Any, path: Path) -> NDArray[np.float32]:
    """Return a grey image of 16 or 32 bits or of floats."""
    values = np.asarray(image)
    largest = 1.0 if image.mode == "F" else 65535.0
    wanted = "0 to 1" if image.mode == "F" else "0 to 65535"
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > largest:
        raise InputError(
            f"{path} holds numbers from {values.min():g} to {values.max():g}, and an image of "
            f"mode '{image.mode}' must hold {wanted}; scale it first."
        )
    grey = (values / largest).astype(np.float32)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 1.0
    return np.repeat(grey[..., None], 3, axis=2)


def _from_lab(image: Any) -> NDArray[np.float32]:
    """Return an image of CIE L*a*b* (white point D50, as files have it) in sRGB."""
    cms = vision("PIL.ImageCms")
    both = cms.createProfile("LAB"), cms.createProfile("sRGB")
    turned = cms.applyTransform(image, cms.buildTransform(*both, "LAB", "RGB"))
    return _bytes(turned)


def photographs() -> list[str]:
    """Return the names of the images that lie in scikit-image's own folder, sorted."""
    found = {p.stem for p in _data_folder().iterdir() if p.suffix in _SUFFIXES}
    return sorted(found - set(_NOT_PHOTOGRAPHS))


def photograph(name: str) -> NDArray[np.float32]:
    """Return an image that ships with scikit-image (``"astronaut"``), as `load_image` does.

    It is read from the package's folder: nothing is fetched.  Raises ``InputError`` for others.
    """
    return load_image(photograph_file(name))


def photograph_file(name: str) -> Path:
    """Return the file of an image that ships with scikit-image."""
    known = photographs()
    if name not in known:
        raise InputError(f"scikit-image ships no photograph '{name}'{did_you_mean(name, known)}")
    for suffix in _SUFFIXES:
        path = _data_folder() / f"{name}{suffix}"
        if path.exists():
            return path
    raise InputError(f"scikit-image's photograph '{name}' vanished from its folder.")


def square(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return the centre square of ``(rows, columns, 3)`` at ``(side, side, 3)``.

    Resized with a Lanczos filter as wide as it must be not to alias, channel by channel in float32,
    clipped to [0, 1].
    """
    rows, columns, _ = image.shape
    short = min(rows, columns)
    top, left = (rows - short) // 2, (columns - short) // 2
    cut = image[top : top + short, left : left + short]
    if short == side:
        return np.ascontiguousarray(cut)
    pillow = _pillow()
    channels = [
        np.asarray(
            pillow.fromarray(np.ascontiguousarray(cut[..., c])).resize(
                (side, side), pillow.Resampling.LANCZOS
            )
        )
        for c in range(3)
    ]
    return np.asarray(np.clip(np.stack(channels, axis=-1), 0, 1), dtype=np.float32)


def vision(module: str) -> Any:
    """Import a module of the extra ``vision``; raises ``InputError`` where it is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = (error.name or module).partition(".")[0]
        raise InputError(
            f'The package {name} is missing; install it with: pip install "terrarium[vision]".'
        ) from None


def _pillow() -> Any:
    return vision("PIL.Image")


def _data_folder() -> Path:
    vision("skimage")
    found = importlib.util.find_spec("skimage.data")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent
