"""Image files of every mode, or one clear sentence."""

from __future__ import annotations

import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.worlds.image_files import load_image, photograph, photographs, square

Image = pytest.importorskip("PIL.Image")

COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def written(image, path, **options):
    image.save(path, **options)
    return load_image(path)


def test_rgb_and_grey_are_read_exactly(tmp_path):
    exact = COLOURS.astype(np.float32) / 255
    np.testing.assert_array_equal(written(Image.fromarray(COLOURS), tmp_path / "a.png"), exact)
    grey = COLOURS[..., 0]
    got = written(Image.fromarray(grey), tmp_path / "g.png")
    np.testing.assert_array_equal(got, np.repeat(exact[..., :1], 3, axis=2))
    assert got.dtype == np.float32


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_keep_their_precision(tmp_path, suffix):
    deep = (np.arange(35, dtype=np.uint16) * 1872).reshape(5, 7)
    got = written(Image.fromarray(deep), tmp_path / f"deep.{suffix}")
    np.testing.assert_allclose(got[..., 1], deep / 65535, atol=1e-7)


def test_transparent_pixels_lie_on_white(tmp_path):
    alpha = np.array([[0, 255, 51]], np.uint8)
    rgba = np.dstack([np.full((1, 3, 3), 100, np.uint8), alpha])
    got = written(Image.fromarray(rgba), tmp_path / "a.png")
    a, c = 51 / 255, 100 / 255
    np.testing.assert_allclose(got[0, :, 0], [1, c, c * a + 1 - a], atol=1e-6)
    palette = Image.fromarray(COLOURS).quantize(8)
    palette.info["transparency"] = int(np.asarray(palette)[0, 0])
    got = written(palette, tmp_path / "p.png", transparency=palette.info["transparency"])
    clear = np.asarray(palette) == palette.info["transparency"]
    assert (got[clear] == 1).all()
    flat = np.asarray(palette.convert("RGB"), np.float32) / 255
    np.testing.assert_allclose(got[~clear], flat[~clear], atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "LAB"])
def test_every_mode_has_one_shape_and_range(tmp_path, mode):
    image = Image.fromarray(COLOURS)
    if mode == "LAB":
        # Pillow makes Lab images through ImageCms alone
        cms = pytest.importorskip("PIL.ImageCms")
        both = cms.createProfile("sRGB"), cms.createProfile("LAB")
        image = cms.applyTransform(image, cms.buildTransform(*both, "RGB", "LAB"))
    elif mode == "F":
        image = Image.fromarray(COLOURS[..., 0].astype(np.float32) / 255)
    else:
        image = image.convert(mode)
    got = written(image, tmp_path / "x.tif")
    assert got.shape == (5, 7, 3)
    assert got.dtype == np.float32
    assert got.min() >= 0
    assert got.max() <= 1
    if mode == "LAB":  # 8 bits of L, a and b
        assert np.abs(got - COLOURS / 255).mean() < 0.01
    if mode == "CMYK":
        np.testing.assert_allclose(got, COLOURS / 255, atol=2 / 255)


def test_the_camera_held_sideways(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise
    got = written(Image.fromarray(COLOURS), tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(got, np.rot90(COLOURS, -1).astype(np.float32) / 255)


def test_first_picture_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), c) for c in ((255, 0, 0), (0, 255, 0))]
    got = written(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(got[0, 0], [1, 0, 0], atol=0.01)


def test_bad_files_give_one_sentence(tmp_path):
    (tmp_path / "note.png").write_text("not an image")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
        tmp_path / "whole.png"
    )
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    (tmp_path / "empty.jpg").write_bytes(b"")
    Image.fromarray(np.full((2, 2), 7.5, np.float32)).save(tmp_path / "hdr.tif")
    Image.fromarray(np.full((2, 2), np.nan, np.float32)).save(tmp_path / "nan.tif")
    said = {
        "missing.png": "There is no image file",
        "note.png": "no image",
        "empty.jpg": "no image",
        "half.png": "damaged",
        "hdr.tif": "must hold 0 to 1",
        "nan.tif": "must hold 0 to 1",
        ".": "There is no image file",
    }
    for name, part in said.items():
        with pytest.raises(InputError, match=part) as caught:
            load_image(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith(".")


def test_photographs_of_scikit_image():
    skimage = pytest.importorskip("skimage")
    assert {"astronaut", "coffee", "chelsea", "rocket", "camera"} <= set(photographs())
    np.testing.assert_array_equal(
        photograph("astronaut"), skimage.data.astronaut().astype(np.float32) / 255
    )
    with pytest.raises(InputError, match="did you mean 'rocket'"):
        photograph("rockett")


def test_square_keeps_the_centre_and_even_colours():
    image = np.zeros((4, 8, 3), np.float32)
    image[:, 2:6] = 0.25
    np.testing.assert_array_equal(square(image, 4), np.full((4, 4, 3), 0.25, np.float32))
    np.testing.assert_allclose(square(np.full((40, 30, 3), 0.3, np.float32), 9), 0.3, atol=1e-6)
