"""The world `photographs`: crops are the file's pixels, splits share none, every file is read."""

from __future__ import annotations

import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds.check import check_world
from terrarium.worlds.images.photographs import SHIPPED, Photographs

Image = pytest.importorskip("PIL.Image")
skimage_data = pytest.importorskip("skimage.data")


@pytest.mark.parametrize(
    "world",
    [Photographs(side=16), Photographs(side=8, channels=1, reduce=4, names=("camera", "coffee"))],
    ids=["colour", "grey"],
)
def test_the_contract_is_kept(world):
    assert check_world(world) == []


def test_crops_are_what_scikit_image_shows():
    """All shipped names, against scikit-image's own loader (of files that lie there)."""
    world = Photographs(side=24)
    batch = world.sample(60, generator("crops"))
    own = {
        "motorcycle_left": lambda: skimage_data.stereo_motorcycle()[0],
    }
    seen = set()
    for i, name in enumerate(batch.facts["photograph"]):
        image = np.asarray(own.get(name, getattr(skimage_data, str(name), None))(), np.float64)
        image = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
        top, left = batch.facts["row"][i], batch.facts["column"][i]
        wanted = image[top : top + 24, left : left + 24].transpose(2, 0, 1) / 255
        assert batch.inputs[i] == pytest.approx(wanted, abs=1e-6)
        seen.add(str(name))
    assert seen == set(SHIPPED)


def test_splits_share_no_pixel():
    world = Photographs(side=16, names=("astronaut",))
    covered = {}
    for split in ("train", "validation", "test"):
        batch = world.sample(3000, generator("pixels"), split)
        seen = np.zeros((512, 512), bool)
        for top, left in zip(batch.facts["row"], batch.facts["column"], strict=True):
            seen[top : top + 16, left : left + 16] = True
        covered[split] = seen
    assert not (covered["train"] & covered["test"]).any()
    assert not (covered["train"] & covered["validation"]).any()
    assert not (covered["validation"] & covered["test"]).any()
    assert covered["train"].mean() > 0.5


def test_reduced_photographs_are_means():
    small = Photographs(side=16, reduce=4, names=("chelsea",), channels=1)
    batch = small.sample(5, generator("small"))
    whole = np.asarray(skimage_data.chelsea(), np.float64) / 255
    for i in range(5):
        top, left = 4 * batch.facts["row"][i], 4 * batch.facts["column"][i]
        cut = whole[top : top + 64, left : left + 64].reshape(16, 4, 16, 4, 3)
        assert batch.inputs[i, 0] == pytest.approx(cut.mean(axis=(1, 3, 4)), abs=1e-5)


def test_a_folder_of_every_mode_and_size(tmp_path):
    rng = np.random.default_rng(0)
    modes = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "F")
    for place, mode in enumerate(modes):
        size = (40 + 7 * place, 37 + 5 * place)
        noise = Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
        if mode == "I;16":
            image = Image.fromarray(rng.integers(0, 65535, size[::-1], dtype=np.uint16))
        elif mode == "F":
            image = Image.fromarray(rng.random(size[::-1], dtype=np.float32))
        else:
            image = noise.convert(mode)
        suffix = ".tif" if mode in ("CMYK", "YCbCr", "F", "I;16") else ".png"
        image = image.convert("RGB") if mode == "HSV" else image
        image.save(tmp_path / f"{place}-{mode.replace(';', '')}{suffix}")
    (tmp_path / "notes.txt").write_text("not an image", encoding="utf-8")
    world = Photographs(side=8, folder=str(tmp_path))
    assert len(world.names) == len(modes)
    assert check_world(world) == []
    again = Photographs.model_validate_json(world.model_dump_json())
    assert again == world
    noise.save(tmp_path / "0-1.png")
    with pytest.raises(InputError, match="used before"):
        Photographs.model_validate_json(world.model_dump_json())


def test_what_cannot_be_used_is_said_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="no photograph 'astronout'"):
        Photographs(names=("astronout",)).sample(1, generator(0))
    with pytest.raises(InputError, match="each once"):
        Photographs(names=("camera", "camera"))
    with pytest.raises(InputError, match="There is no folder"):
        Photographs(folder=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="holds no images"):
        Photographs(folder=str(tmp_path))
    Image.new("RGB", (20, 20)).save(tmp_path / "tiny.png")
    with pytest.raises(InputError, match="one colour throughout"):
        Photographs(side=4, folder=str(tmp_path)).sample(1, generator(0))
    (tmp_path / "tiny.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="no image that Pillow can read"):
        Photographs(side=4, folder=str(tmp_path)).sample(1, generator(0))


def noise(seed: int, side: int = 120):
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_the_same_pixels_count_once(tmp_path):
    for name in ("a.png", "b.bmp", "c.png"):
        noise(0).save(tmp_path / name)
    noise(1).save(tmp_path / "d.png")
    world = Photographs(side=24, folder=str(tmp_path))
    assert world.names == ("a.png", "b.bmp", "c.png", "d.png")
    assert world.notes == (
        "2 of 4 images show the same pixels as another and do not count: b.bmp, c.png.",
    )
    assert [row.values["photograph"] for row in world.joint_table()] == ["a.png", "d.png"]
    parts = {s: world.sample(300, generator("again"), s) for s in ("train", "test")}
    assert set(parts["train"].facts["photograph"]) == {"a.png", "d.png"}
    crops = [{crop.tobytes() for crop in part.inputs} for part in parts.values()]
    assert not crops[0] & crops[1]
    (tmp_path / "b.bmp").unlink()
    (tmp_path / "c.png").unlink()
    alone = Photographs(side=24, folder=str(tmp_path))
    assert alone.notes == ()
    assert (alone.sample(300, generator("again")).inputs == parts["train"].inputs).all()


def test_images_that_give_no_tiles_are_named_with_what_is_wrong(tmp_path):
    def refused(expected, **options):
        with pytest.raises(InputError, match=expected) as raised:
            Photographs(folder=str(tmp_path), **options).sample(1, generator(0))
        assert str(tmp_path / "it.png") in str(raised.value)
        assert "\n" not in str(raised.value)

    Image.new("RGB", (200, 200), (9, 20, 30)).save(tmp_path / "it.png")
    refused("has one colour throughout; take it out", side=24)
    noise(2, 40).save(tmp_path / "it.png")
    refused("40 x 40 pixels: that gives 1 tiles for crops of 32 x 32 pixels", side=32)
    refused("20 x 20 pixels after it was reduced 2 times.*reduce it less", side=16, reduce=2)
