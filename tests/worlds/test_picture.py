"""One picture as a field."""

from __future__ import annotations

import numpy as np
import pytest

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds.check import check_world
from terrarium.worlds.picture import Picture

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("skimage")


@pytest.fixture
def small(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "small.png")
    return Picture(image=str(tmp_path / "small.png"), side=8), colours / 255


@pytest.mark.parametrize("side", [16, 33])
def test_it_keeps_the_contract(side):
    assert check_world(Picture(image="coffee", side=side)) == []


def test_pixels_are_exact_and_the_grid_is_the_picture(small):
    world, colours = small
    batch = world.grid()
    np.testing.assert_allclose(batch.targets.reshape(8, 8, 3), colours, atol=1e-7)
    np.testing.assert_allclose(world.optimum(batch).reshape(8, 8, 3), colours, atol=1e-7)
    assert batch.inputs[[0, -1]].tolist() == [[-1, -1], [1, 1]]
    assert batch.facts["column"][:8].tolist() == list(range(8))
    assert world.psnr(batch.targets) == float("inf")
    assert world.psnr(batch.targets * 0.5) == pytest.approx(
        -10 * np.log10(np.square(colours / 2).mean()), abs=1e-4
    )


def test_between_pixels_it_is_bilinear(small):
    from scipy.interpolate import RegularGridInterpolator

    world, colours = small
    points = np.random.default_rng(1).uniform(-1, 1, (300, 2))
    axis = np.linspace(-1, 1, 8)
    judge = RegularGridInterpolator((axis, axis), colours)
    away = (np.abs((points + 1) * 3.5 % 1 - 0.5) < 0.49).all(axis=1)
    np.testing.assert_allclose(world.value(points)[away], judge(points[away, ::-1]), atol=1e-6)
    outside = world.value(np.array([[-3.0, 0.0], [-1.0, 0.0]]))
    np.testing.assert_array_equal(outside[0], outside[1])


def test_held_out_are_the_middles_of_four(small):
    world, colours = small
    seen = set()
    for split in ("validation", "test"):
        batch = world.sample(2000, generator("t"), split)
        row, column = (batch.facts[f].astype(int) for f in ("row", "column"))
        assert (batch.facts["row"] % 1 == 0.5).all()
        four = sum(colours[row + i, column + j] for i in (0, 1) for j in (0, 1)) / 4
        np.testing.assert_allclose(batch.targets, four, atol=1e-6)
        seen |= set(zip(row, column, strict=True))
    assert len(seen) == 49


def test_the_file_is_part_of_what_it_is(tmp_path, small):
    world, _ = small
    again = Picture.model_validate_json(world.model_dump_json())
    assert again == world
    assert len(world.checksum) == 32
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "small.png")
    assert Picture(image=world.image, side=8).checksum != world.checksum
    with pytest.raises(InputError, match="no longer the one"):
        Picture.model_validate_json(world.model_dump_json())


@pytest.mark.parametrize("name", ["astronut", "missing.png", "some/where.png"])
def test_what_is_no_image_is_refused(name):
    with pytest.raises(InputError, match="image file") as caught:
        Picture(image=name)
    assert "\n" not in str(caught.value)


def test_an_even_picture_keeps_the_contract(tmp_path):
    Image.new("RGB", (40, 40), (90, 10, 200)).save(tmp_path / "even.png")
    assert check_world(Picture(image=str(tmp_path / "even.png"), side=20)) == []


def test_outputs_of_a_wrong_shape_and_counts_are_said_in_a_sentence(small):
    world, colours = small
    with pytest.raises(InputError, match=r"shape \(3, 3\).*ask for \(64, 3\)"):
        world.psnr(np.zeros((3, 3)))
    assert world.psnr(colours) > 100
    with pytest.raises(InputError, match="-5 examples"):
        world.sample(-5, generator("t"))
