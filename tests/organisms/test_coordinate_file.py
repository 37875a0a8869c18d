"""Coordinate networks made elsewhere, and worlds whose truth they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from terrarium.errors import InputError, ModelError
from terrarium.organisms.coordinate import Coordinate
from terrarium.organisms.coordinate_file import load_coordinate_network
from terrarium.organisms.grow import grow
from terrarium.organisms.lineage import chain
from terrarium.organisms.network_field import NetworkField
from terrarium.organisms.recipe import (
    CoordinateModel,
    Optimizer,
    Phase,
    Recipe,
    Reconstruction,
    Source,
)
from terrarium.readings.read import read
from terrarium.store import Store
from terrarium.worlds.check import check_world


class Theirs(nn.Module):
    """A network as somebody would write it: positional encoding, a skip, a tanh, a sigmoid."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2 + 2 * 2 * 3, 16)
        self.second = nn.Linear(16, 16)
        self.third = nn.Linear(14 + 16, 8, bias=False)
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        parts = [x]
        for i in range(3):
            parts += [torch.sin(math.pi * 2**i * x), torch.cos(math.pi * 2**i * x)]
        encoded = torch.cat(parts, dim=-1)
        hidden = torch.relu(self.second(torch.sin(5 * self.first(encoded))))
        hidden = torch.tanh(self.third(torch.cat([encoded, hidden], dim=-1)))
        return torch.sigmoid(self.last(hidden))


SPEC = {
    "weights": "theirs.pt",
    "model": {
        "inputs": 2,
        "encoding": {
            "kind": "positional",
            "frequencies": 3,
            "factor": math.pi,
            "identity": True,
        },
        "layers": [
            {"name": "first", "activation": "sine", "omega": 5.0},
            {"name": "second", "activation": "relu"},
            {"name": "third", "activation": "tanh", "bias": False, "encoded": "before"},
            {"name": "last", "activation": "sigmoid"},
        ],
    },
}


def changed(**more):
    return {**SPEC, "model": {**SPEC["model"], **more}}


@pytest.fixture
def theirs(tmp_path):
    torch.manual_seed(0)
    network = Theirs()
    torch.save(network.state_dict(), tmp_path / "theirs.pt")
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(SPEC))
    return network, tmp_path / "theirs.yaml"


POINTS = torch.rand(50, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_it_says_what_the_module_says(theirs):
    network, path = theirs
    torch.testing.assert_close(load_coordinate_network(path)(POINTS[None])[0], network(POINTS))


def test_matrices_the_other_way_round_and_within_a_checkpoint(theirs, tmp_path):
    network, path = theirs
    turned = {n: t.t().contiguous() if t.dim() == 2 else t for n, t in network.state_dict().items()}
    save_file({f"net.{n}": t for n, t in turned.items()}, tmp_path / "turned.safetensors")
    path.write_text(
        yaml.safe_dump(
            {**SPEC, "weights": "turned.safetensors", "place": "net", "transposed": True}
        )
    )
    torch.testing.assert_close(load_coordinate_network(path)(POINTS[None])[0], network(POINTS))


@pytest.mark.parametrize("transposed", [False, True])
def test_fourier_features_and_a_box(tmp_path, transposed):
    torch.manual_seed(0)
    matrix, first, last = torch.randn(7, 2), nn.Linear(14, 5), nn.Linear(5, 1)
    held = {f"a.{n}": t for n, t in first.state_dict().items()}
    held |= {f"b.{n}": t for n, t in last.state_dict().items()}
    torch.save(held | {"B": matrix.t() if transposed else matrix}, tmp_path / "f.pt")
    spec = {
        "weights": "f.pt",
        "model": {
            "inputs": 2,
            "box": [[0, 10], [2, 30]],
            "output_scale": 4.0,
            "output_offset": 1.0,
            "encoding": {
                "kind": "fourier",
                "matrix": "B",
                "transposed": transposed,
                "factor": 2 * math.pi,
                "cosine_first": True,
            },
            "layers": [{"name": "a"}, {"name": "b", "activation": "none"}],
        },
    }
    (tmp_path / "f.yaml").write_text(yaml.safe_dump(spec))
    angle = 2 * math.pi * POINTS @ matrix.t()
    hidden = torch.relu(first(torch.cat([angle.cos(), angle.sin()], dim=-1)))
    wanted = 4 * last(hidden) + 1
    inside = torch.stack([POINTS[:, 0] + 1, 10 * POINTS[:, 1] + 20], dim=1)
    got = load_coordinate_network(tmp_path / "f.yaml")(inside[None])[0]
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_saved_again_it_is_the_same_and_has_sites(theirs, tmp_path):
    network = load_coordinate_network(theirs[1])
    network.save(0, tmp_path / "again")
    again = load_coordinate_network(tmp_path / "again")
    assert again.spec == network.spec
    torch.testing.assert_close(again(POINTS[None]), network(POINTS[None]), rtol=0, atol=0)
    assert list(again.sites()) == ["encoding.out", "mlp.act[0]", "mlp.act[1]", "mlp.act[2]"]
    two = network.select([0, 0])
    torch.testing.assert_close(two(POINTS.expand(2, -1, -1))[1], network(POINTS[None])[0])


def test_a_grown_network_is_loaded_from_its_folder(tmp_path):
    own = Coordinate(CoordinateModel(inputs=2, encoding="hash"), [("seed", 0)])
    own.save(0, tmp_path)
    torch.testing.assert_close(load_coordinate_network(tmp_path)(POINTS[None]), own(POINTS[None]))


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        (changed(inputs=3), "'first.weight' has the shape"),
        (changed(layers=SPEC["model"]["layers"][:3]), "of which the spec says nothing"),
        (changed(layers=[{"name": "fist"}]), "did you mean 'first.weight'"),
        (changed(layers=[{"name": "first", "activation": "rely"}]), "activation"),
        (changed(layres=[]), "did you mean 'layers'"),
        (changed(box=[[0], [1]]), "two corners"),
        (changed(box=[[0, 0], [0, 1]]), "lower corner below its upper one"),
        (changed(box=[[0, 2], [1, 1]]), "lower corner below its upper one"),
        (changed(box=[[0, math.nan], [1, 1]]), "'model.box.0.1' is nan"),
        (changed(box=[[0, 0], [1, math.inf]]), "finite number"),
        (changed(output_scale=math.nan), "'model.output_scale' is nan"),
        (changed(output_scale=0), "output_scale 0 makes every output alike"),
        (changed(output_offset=-math.inf), "finite number"),
        (changed(layers=[{"name": "first", "omega": math.inf}]), "omega' is inf"),
        (changed(layers=[*SPEC["model"]["layers"][:2], {"name": "third"}]), "say `bias: false`"),
        ({"weights": "theirs.pt"}, r"theirs.yaml lacks the key 'model'; add it\.$"),
        (changed(layers=[{"nam": "first"}]), "did you mean 'name'"),
        ({**SPEC, "transposed": True}, "has the shape"),
        ({**SPEC, "weights": "other.pt"}, "There is no file of weights"),
        ({**SPEC, "place": "model"}, "under 'model'"),
        ([], "describes no network"),
    ],
)
def test_what_does_not_fit_gives_one_sentence(theirs, spec, part):
    _, path = theirs
    path.write_text(yaml.safe_dump(spec))
    with pytest.raises(InputError, match=part) as caught:
        load_coordinate_network(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value).replace(str(path.parent), "")) < 200


@pytest.mark.parametrize("text", [b"hello", b"weights: a\n", b""])
def test_what_is_no_file_of_weights_is_said_to_be_none(theirs, text):
    _, path = theirs
    (path.parent / "theirs.pt").write_bytes(text)
    with pytest.raises(ModelError, match="is not a file of PyTorch weights"):
        load_coordinate_network(path)


@pytest.mark.parametrize("held", ["nan", "pickle", "vector", "sparse", "whole"])
def test_bad_weights_give_one_sentence(theirs, held):
    network, path = theirs
    state = network.state_dict()
    if held == "nan":
        state["last.bias"][0] = math.nan
    if held == "vector":
        state["first.weight"] = state["first.bias"]
    if held == "sparse":
        state["last.bias"] = state["last.bias"].to_sparse()
    if held == "whole":
        state["last.bias"] = state["last.bias"].long()
    torch.save(network if held == "pickle" else state, path.parent / "theirs.pt")
    said = {"nan": "NaN", "pickle": "run code", "vector": "no matrix",
            "sparse": "is a sparse tensor", "whole": "is torch.int64"}[held]  # fmt: skip
    with pytest.raises(InputError, match=said) as caught:
        load_coordinate_network(path)
    assert "\n" not in str(caught.value)


def test_a_network_as_the_truth_keeps_the_contract(theirs):
    network, path = theirs
    world = NetworkField(network=str(path))
    assert check_world(world) == []
    assert (world.outputs, len(world.box[0])) == (3, 2)
    batch = world.sample(20, np.random.default_rng(0))
    wanted = network(torch.from_numpy(batch.inputs)).detach().numpy()
    np.testing.assert_allclose(batch.targets, wanted, atol=1e-6)
    reading = read(load_coordinate_network(path), batch, ["mlp.act[1]"], None)
    np.testing.assert_allclose(reading.says[0], world.optimum(batch), atol=1e-6)


def test_a_function_as_the_truth():
    world = NetworkField(low=(0.0,), high=(4.0,)).with_oracle(np.sin)
    batch = world.sample(50, np.random.default_rng(0), "test")
    np.testing.assert_allclose(world.optimum(batch), np.sin(batch.inputs.astype(float)), atol=1e-6)
    with pytest.raises(InputError, match="with_oracle"):
        NetworkField(low=(0.0,), high=(4.0,)).sample(1, np.random.default_rng(0))
    with pytest.raises(InputError, match="must give"):
        world.with_oracle(lambda x: x[:, 0]).sample(1, np.random.default_rng(0))


def test_a_student_learns_from_a_network_and_its_key_follows_the_files(tmp_path):
    folder = tmp_path / "teacher"

    def teach(seed):
        teacher = Coordinate(CoordinateModel(frequencies=4, scale=0.3), [("teacher", seed)])
        teacher.save(0, folder)

    phase = Phase(
        name="fit",
        sources=(Source(world="network_field", options={"network": str(folder)}),),
        objective=Reconstruction(),
        steps=200,
        batch=256,
        optimizer=Optimizer(lr=1e-2, warmup=5),
    )
    recipe = Recipe(name="student", model=CoordinateModel(scale=0.4), phases=(phase,))
    teach(0)
    (organism,) = grow([(recipe, 0)], Store(tmp_path / "store"))
    world = organism.world
    batch = world.sample(500, np.random.default_rng(0), "test")
    with torch.no_grad():
        said = organism.network()(torch.from_numpy(batch.inputs)[None])[0].numpy()
    assert world.regret(batch, said).mean() < 0.05 * batch.targets.var()
    before = chain(recipe, 0)[0].key
    assert before == organism.key
    teach(1)
    assert chain(recipe, 0)[0].key != before
    with pytest.raises(InputError, match="no longer the one"):
        type(world).model_validate_json(world.model_dump_json())


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"network": "nowhere.yaml"}, "no spec file"),
        ({"network": "{}", "low": (0.0,), "high": (1.0,)}, "takes 2 coordinates"),
        ({"network": "{}", "outputs": 2}, "has 3 outputs"),
        ({"network": "{folder}"}, "no file"),
    ],
)
def test_fields_that_make_no_sense_are_refused(theirs, options, part):
    _, path = theirs
    named = {"{}": str(path), "{folder}": str(path.parent)}
    options = {**options, "network": named.get(options["network"], options["network"])}
    with pytest.raises(InputError, match=part) as caught:
        NetworkField.model_validate(options)
    assert "\n" not in str(caught.value)
