"""Coordinate networks: encodings, sines, units and fleets against references written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from terrarium.errors import InputError
from terrarium.organisms.build import load, resolved
from terrarium.organisms.coordinate import Coordinate
from terrarium.organisms.coordinate_hash import (
    PRIMES,
    add_at,
    corners,
    interpolate,
    levels_of,
    table_shape,
)
from terrarium.organisms.recipe import CoordinateModel, LoRA
from terrarium.organisms.recipe_models import HashGrid
from terrarium.readings.read import read
from terrarium.worlds.base import Batch, VectorField

GRID = HashGrid(levels=4, features=2, table=64, coarsest=2, finest=16)
HASH = {"encoding": "hash", "grid": GRID, "width": 16}
SPECS = {
    "fourier": CoordinateModel(inputs=2, outputs=3, width=16, frequencies=8),
    "none": CoordinateModel(inputs=2, outputs=3, width=16, encoding="none"),
    "siren": CoordinateModel(inputs=2, outputs=3, width=16, encoding="none", activation="sine"),
    "hash": CoordinateModel(inputs=2, outputs=3, **HASH),
    "hash, skip": CoordinateModel(inputs=2, outputs=3, layers=3, skips=(2,), **HASH),
    "hash, 3-D box": CoordinateModel(
        inputs=3, outputs=1, box=((0, 5, -3), (1, 9, 40)), output_scale=7.0, **HASH
    ),
}


def points(n, d, seed=0, members=1):
    drawn = np.random.default_rng(seed).uniform(-1, 1, (members, n, d))
    return torch.from_numpy(drawn.astype(np.float32))


def naive(table, point, grid):
    """Encode one point (d,) of the unit cube by loops over levels and corners, as in the paper."""
    d = len(point)
    growth = (grid.finest / grid.coarsest) ** (1 / max(1, grid.levels - 1))
    rows = table.permute(1, 0, 2).flatten(1).double().numpy()  # entry, feature
    encoded, start = [], 0
    for level in range(grid.levels):
        cells = math.floor(grid.coarsest * growth**level + 1e-6)
        dense = (cells + 1) ** d <= grid.table
        total = np.zeros(grid.features)
        lower = [min(int(x * cells), cells - 1) for x in point]
        for corner in range(2**d):
            vertex, weight = [], 1.0
            for k in range(d):
                upper = corner >> k & 1
                share = point[k] * cells - lower[k]
                vertex.append(lower[k] + upper)
                weight *= share if upper else 1 - share
            if dense:
                entry = sum(v * (cells + 1) ** k for k, v in enumerate(vertex))
            else:
                entry = 0
                for k, v in enumerate(vertex):
                    entry ^= v * PRIMES[k] % 2**32
                entry %= grid.table
            total += weight * rows[start + entry]
        encoded.append(total)
        start += (cells + 1) ** d if dense else grid.table
    return np.concatenate(encoded)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("features", [1, 2, 4])
def test_hash_grid_equals_a_loop_over_corners(d, features):
    grid = GRID.model_copy(update={"features": features})
    assert 0 < levels_of(grid, 2).dense < grid.levels  # both kinds are there
    table = torch.randn(
        2, *table_shape(grid, d), generator=torch.Generator().manual_seed(0)
    ).double()
    where = torch.rand(2, 25, d, generator=torch.Generator().manual_seed(1)).double()
    where[0, :2] = torch.tensor([0.0, 1.0])[:, None]
    got = interpolate(table, where, grid)
    for member in range(2):
        for i in range(25):
            wanted = naive(table[member], where[member, i].tolist(), grid)
            # entries are summed within a channel in the order of levels
            np.testing.assert_allclose(got[member, i].numpy(), wanted, atol=1e-12)


def test_interpolation_reproduces_a_bilinear_function_exactly():
    grid = HashGrid(levels=1, features=1, table=256, coarsest=8, finest=8)
    vertex = torch.arange(81)
    x, y = (vertex % 9) / 8, (vertex // 9) / 8

    def bilinear(x, y):
        return 2 - 3 * x + 5 * y + 0.5 * x * y

    where = torch.rand(1, 500, 2, generator=torch.Generator().manual_seed(0)).double()
    got = interpolate(bilinear(x.double(), y.double()).view(1, 1, 81, 1), where, grid)
    torch.testing.assert_close(got[0, :, 0], bilinear(*where[0].T), rtol=0, atol=1e-14)


@pytest.mark.parametrize("features", [1, 2, 4])
def test_gradients_of_the_table_and_of_the_points(features):
    grid = HashGrid(levels=3, features=features, table=16, coarsest=2, finest=7)
    table = torch.randn(2, *table_shape(grid, 2), dtype=torch.float64, requires_grad=True)
    # away from the faces of cells, where the interpolation has a kink
    where = (torch.rand(2, 6, 2, dtype=torch.float64) * 0.1 + 0.6).requires_grad_()
    assert torch.autograd.gradcheck(lambda t, p: interpolate(t, p, grid), (table, where))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_adding_is_the_same_on_every_device(dtype):
    entries = torch.randint(0, 9, (200,), generator=torch.Generator().manual_seed(0))
    values = torch.randn(200, dtype=dtype, generator=torch.Generator().manual_seed(1))
    one, two = torch.zeros(9, dtype=dtype), torch.zeros(9, dtype=dtype)
    add_at(one, entries, values, pairs=True)
    add_at(two, entries, values, pairs=False)
    wanted = torch.stack([values[entries == i].sum() for i in range(9)])
    torch.testing.assert_close(one, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(two, wanted, rtol=1e-4, atol=1e-5)


def test_outside_the_cube_counts_as_its_face():
    levels = levels_of(GRID, 2)
    inside, outside = torch.tensor([[[1.0, 0.25]]]), torch.tensor([[[7.0, 0.25]]])
    for one, two in zip(corners(inside, levels), corners(outside, levels), strict=True):
        torch.testing.assert_close(one, two)


def test_levels_grow_geometrically_and_share_entries_where_they_must():
    levels = levels_of(HashGrid(levels=5, table=2**10, coarsest=4, finest=64), 2)
    assert levels.cells == (4, 8, 16, 32, 64)
    assert levels.sizes == (25, 81, 289, 1024, 1024)
    assert levels.dense == 3
    assert levels.entries == sum(levels.sizes)


def test_siren_begins_as_in_the_paper():
    # Sitzmann et al. 2020, theorem 1.8: what enters each sine is standard normal, and what leaves
    # it follows the arcsine law, whose variance is 1/2
    spec = CoordinateModel(
        inputs=2, outputs=1, layers=5, width=512, encoding="none", activation="sine"
    )
    network = Coordinate(spec, [("seed", 0)])
    state = network.member_state(0)
    assert state["layers.0.weight"].abs().max() <= 1 / 2
    assert state["layers.1.weight"].abs().max() <= math.sqrt(6 / 512) / 30
    batch = Batch(points(2000, 2)[0].numpy(), np.zeros((2000, 1), np.float32), {})
    reading = read(network, batch, [f"mlp.act[{i}]" for i in range(5)], None)
    for i in range(1, 5):
        below = reading.activations[f"mlp.act[{i - 1}]"][0]
        entering = 30 * (
            below @ state[f"layers.{i}.weight"].numpy() + state[f"layers.{i}.bias"].numpy()
        )
        assert abs(entering.mean()) < 0.1
        assert 0.9 < entering.std() < 1.1
        third, fourth = (np.mean((entering / entering.std()) ** k) for k in (3, 4))
        assert abs(third) < 0.15
        assert abs(fourth - 3) < 0.3  # of a normal law
        leaving = reading.activations[f"mlp.act[{i}]"][0]
        np.testing.assert_allclose(leaving, np.sin(entering), atol=1e-4)
        if i > 1:
            assert 0.38 < leaving.var() < 0.5  # of sin(N(0, 1)): (1 - exp(-2)) / 2 = 0.432


def by_hand(network, inputs):
    """The MLP as plain torch, from the encoding on."""
    spec, state = network.spec, network.member_state(0)
    x = inputs
    if spec.box is not None:
        low, high = (torch.tensor(c) for c in spec.box)
        x = (x - low) / (high - low) * 2 - 1
    if spec.encoding == "fourier":
        angle = 2 * math.pi * x @ state["frequencies"]
        x = torch.cat([angle.sin(), angle.cos()], dim=-1)
    elif spec.encoding == "hash":
        rows = [naive(state["grid.table"], p.tolist(), spec.grid) for p in (x + 1) / 2]
        x = torch.from_numpy(np.array(rows)).float()
    encoded = x
    for i in range(spec.layers):
        if i in spec.skips:
            x = torch.cat([x, encoded], dim=-1)
        x = x @ state[f"layers.{i}.weight"] + state[f"layers.{i}.bias"]
        x = torch.sin(30 * x) if spec.activation == "sine" else torch.relu(x)
    x = x @ state["head.weight"] + state["head.bias"]
    return x * spec.output_scale + spec.output_offset


@pytest.mark.parametrize("name", SPECS)
def test_forward_is_what_the_spec_says(name):
    spec = SPECS[name]
    network = Coordinate(spec, [("seed", 3)])
    with torch.no_grad():
        network.weights.values.add_(0.1 * torch.randn_like(network.weights.values))
        inputs = points(20, spec.inputs)[0]
        if spec.box is not None:
            low, high = (torch.tensor(c) for c in spec.box)
            inputs = (inputs + 1) / 2 * (high - low) + low
        got = network(inputs[None])[0]
    torch.testing.assert_close(got, by_hand(network, inputs), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SPECS)
def test_a_member_is_what_it_is_alone(name):
    spec = SPECS[name]
    keys = [("seed", i) for i in range(3)]
    fleet, lone = Coordinate(spec, keys), Coordinate(spec, keys[1:2])
    inputs = points(40, spec.inputs, members=3)
    one, three = lone(inputs[1:2]), fleet(inputs)
    torch.testing.assert_close(three[1:2], one, rtol=1e-5, atol=1e-6)
    one.square().sum().backward()
    three.square().sum().backward()
    for name in lone.weights.slots:
        a, b = lone.weights[name].grad, fleet.weights[name].grad
        if a is not None:
            torch.testing.assert_close(a[0], b[1], rtol=1e-4, atol=1e-5)
    chosen = fleet.select([2, 1])
    torch.testing.assert_close(chosen(inputs[[2, 1]]), three[[2, 1]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SPECS)
def test_saved_and_loaded_it_says_the_same(name, tmp_path):
    spec = SPECS[name]
    fleet = Coordinate(spec, [("seed", 0), ("seed", 1)])
    for member in (0, 1):
        fleet.save(member, tmp_path / str(member))
    again = load(spec, [tmp_path / "0", tmp_path / "1"])
    inputs = points(30, spec.inputs, members=2)
    torch.testing.assert_close(again(inputs), fleet(inputs), rtol=0, atol=0)


def test_sites_are_read_with_their_axes():
    spec = SPECS["hash"]
    network = Coordinate(spec, [("seed", 0), ("seed", 1)])
    batch = Batch(points(20, 2)[0].numpy(), np.zeros((20, 3), np.float32), {})
    reading = read(network, batch, ["encoding.out", "mlp.act[1]"], None)
    assert reading.activations["encoding.out"].shape == (2, 20, 8)
    assert reading.activations["mlp.act[1]"].shape == (2, 20, 16)
    assert "encoding.out" not in Coordinate(SPECS["none"], [("seed", 0)]).sites()


def test_adapters_are_for_matrices_and_merge_into_them():
    network = Coordinate(SPECS["hash"], [("seed", 0)])
    network.add_lora(LoRA(rank=2), [("seed", 0)])
    assert not any(name.startswith("grid") for name in network.adapters.slots)
    with torch.no_grad():
        network.adapters.values.normal_(generator=torch.Generator().manual_seed(0))
    inputs = points(10, 2)
    before = network(inputs)
    network.merge_lora()
    torch.testing.assert_close(network(inputs), before, rtol=1e-5, atol=1e-6)


def test_frequencies_do_not_train():
    network = Coordinate(SPECS["fourier"], [("seed", 0)])
    network(points(10, 2)).sum().backward()
    assert network.weights["frequencies"].grad is None
    trained = sum(p.numel() for p in network.member_parameters(0))
    assert trained == network.parameters_per_member - 2 * 8


@pytest.mark.parametrize("shape", [(1, 5, 3), (2, 5, 2), (5, 2)])
def test_wrong_shapes_give_one_sentence(shape):
    network = Coordinate(SPECS["hash"], [("seed", 0)])
    with pytest.raises(InputError, match=r"\(1, n, 2\)") as caught:
        network(torch.zeros(shape))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "part"),
    [
        ({"grid": {"table": 1000}}, "power of two"),
        ({"grid": {"coarsest": 9, "finest": 3}}, "below coarsest"),
        ({"skips": (2,)}, "hidden layers"),
        ({"box": ((0.0,), (1.0,))}, "two corners"),
        ({"box": ((0.0, 1.0), (1.0, 1.0))}, "below its upper"),
        ({"encoding": "hash", "inputs": 9}, "at most 7"),
    ],
)
def test_specs_that_make_no_sense_are_refused(bad, part):
    with pytest.raises(ValueError, match=part):
        CoordinateModel.model_validate(bad)


class Meadow:
    """What a network needs to know of a world."""

    name = "meadow"
    output = VectorField(1, "metres")
    box = ((0.0, 0.0), (3.0, 5.0))


def test_the_worlds_box_is_filled_in_and_numbers_are_compared():
    model = CoordinateModel(inputs=2, outputs=1)
    assert resolved(model, Meadow).box == Meadow.box
    own = model.model_copy(update={"box": ((0.0, 0.0), (1.0, 1.0))})
    assert resolved(own, Meadow) == own
    with pytest.raises(InputError, match="set outputs to 1"):
        resolved(model.model_copy(update={"outputs": 2}), Meadow)
