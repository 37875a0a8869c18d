"""Radiance fields: the network, and fields that were made elsewhere."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from terrarium.errors import InputError, ModelError
from terrarium.organisms.build import build
from terrarium.organisms.radiance import RadianceField, encode
from terrarium.organisms.radiance_file import load_radiance, shipped_specs
from terrarium.organisms.radiance_truth import as_truth
from terrarium.organisms.recipe import RadianceModel
from terrarium.organisms.recipe_models import Encoding
from terrarium.organisms.state_files import read_state_file
from terrarium.readings.hooks import edit
from terrarium.readings.read import read
from terrarium.worlds.base import Batch

SCENES = ("lego", "chair", "hotdog")


def points_and_directions(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    points = torch.rand(1, n, 3, generator=drawn) * 2 - 1
    directions = torch.nn.functional.normalize(torch.randn(1, n, 3, generator=drawn), dim=-1)
    return points, directions


# ------------------------------------------------------------------ an independent reference


class Reference(torch.nn.Module):
    """The network of nerf-pytorch, written as there: plain linear layers, encodings in loops."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = torch.nn.Linear(63, 128)
        self.layers_xyz = torch.nn.ModuleList(torch.nn.Linear(128, 128) for _ in range(3))
        self.fc_feat = torch.nn.Linear(128, 128)
        self.fc_alpha = torch.nn.Linear(128, 1)
        self.layers_dir = torch.nn.ModuleList([torch.nn.Linear(155, 64)])
        self.fc_rgb = torch.nn.Linear(64, 3)

    @staticmethod
    def encoded(x: torch.Tensor, count: int) -> torch.Tensor:
        parts = [x]
        for i in range(count):
            for wave in (torch.sin, torch.cos):
                parts.append(wave(x * 2.0**i))
        return torch.cat(parts, dim=-1)

    def forward(self, points: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        x = self.layer1(self.encoded(points, 10))
        for layer in self.layers_xyz:
            x = torch.relu(layer(x))
        feature = torch.relu(self.fc_feat(x))
        density = torch.relu(self.fc_alpha(x))
        x = torch.relu(self.layers_dir[0](torch.cat([feature, self.encoded(directions, 4)], -1)))
        return torch.cat([torch.sigmoid(self.fc_rgb(x)), density], dim=-1)


@pytest.fixture
def checkpoint() -> dict[str, object]:
    torch.manual_seed(0)
    return {
        "iter": 3,
        "model_coarse_state_dict": Reference().state_dict(),
        "model_fine_state_dict": Reference().state_dict(),
    }


def saved(checkpoint: dict[str, object], folder: Path) -> Path:
    torch.save(checkpoint, folder / "field.ckpt")
    return folder / "field.ckpt"


def test_a_loaded_field_computes_what_its_authors_network_does(checkpoint, tmp_path):
    field = load_radiance(saved(checkpoint, tmp_path))
    points, directions = points_and_directions(50)
    for net in ("coarse", "fine"):
        theirs = Reference()
        theirs.load_state_dict(checkpoint[f"model_{net}_state_dict"])
        with torch.no_grad():
            expected = theirs(points, directions)
            density, colour = field.net(net)(points, directions)
        torch.testing.assert_close(colour, expected[..., :3], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(density, expected[..., 3], atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        both = field(torch.cat([points, directions], dim=-1))
        apart = field(points, directions)
    torch.testing.assert_close(both, expected, atol=1e-5, rtol=1e-4)  # the fine net came last
    assert torch.equal(both, apart)


def test_the_encoding_is_as_written():
    x = torch.tensor([[0.25, -0.5, 1.0]])
    out = encode(x, Encoding(frequencies=2, identity=False, pi=True))[0]
    expected = [f(math.pi * c * 2**i) for i in (0, 1) for f in (math.sin, math.cos) for c in x[0]]
    torch.testing.assert_close(out, torch.tensor(expected), atol=1e-6, rtol=0)
    assert encode(x, Encoding(frequencies=3)).shape[-1] == Encoding(frequencies=3).width == 21
    assert torch.equal(encode(x, Encoding(frequencies=0)), x)


def test_skips_feature_and_density_go_where_the_spec_says():
    spec = RadianceModel(
        position={"frequencies": 1},
        widths=(5, 4),
        skips=(1,),
        skip_last=False,
        feature=3,
        density_after_feature=True,
        density_activation="exponential",
        direction=None,
        direction_widths=(),
    )
    field = RadianceField(spec, [("seed", 0)])
    w = field.member_state(0)
    points, directions = points_and_directions(7)
    x = encode(points[0], spec.position)
    one = torch.relu(x @ w["fine.trunk.0.weight"])
    two = torch.relu(torch.cat([x, one], dim=1) @ w["fine.trunk.1.weight"])
    three = torch.relu(two @ w["fine.feature.weight"])
    with torch.no_grad():
        density, colour = field.net()(points, directions)
    torch.testing.assert_close(density[0], (three @ w["fine.density.weight"])[:, 0].exp())
    torch.testing.assert_close(colour[0], torch.sigmoid(three @ w["fine.colour.weight"]))


def test_members_share_nothing():
    spec = RadianceModel(coarse=True)
    keys = [("seed", 0), ("seed", 1)]
    both = build(spec, keys)
    points, directions = points_and_directions(9)
    inputs = torch.cat([points, directions], dim=-1)
    with torch.no_grad():
        together = both(inputs.expand(2, -1, -1))
        for member, key in enumerate(keys):
            alone = build(spec, [key])(inputs)
            torch.testing.assert_close(together[member], alone[0], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(together[0], together[1])


def test_readings_and_edits_find_every_layer():
    field = build(RadianceModel(coarse=True), [("seed", 0)])
    points, directions = points_and_directions(20)
    inputs = torch.cat([points, directions], dim=-1)
    batch = Batch(inputs[0].numpy(), np.zeros((20, 4), np.float32), {})
    reading = read(field, batch, "all", None)
    expected = [f"{n}.{s}" for n in ("coarse", "fine") for s in (
        "mlp.act[0]", "mlp.act[1]", "density", "feat.out", "dir.act[0]", "colour")]  # fmt: skip
    assert list(reading.activations) == expected
    assert reading.activations["fine.mlp.act[1]"].shape == (1, 20, 64)
    with torch.no_grad():
        plain = field(inputs)
        with edit(field, "fine.mlp.act[0]", lambda x: x):
            assert torch.equal(field(inputs), plain)
        with edit(field, "fine.mlp.act[1]", torch.zeros_like):
            edited = field(inputs)
        with edit(field, "fine.feat.out", torch.zeros_like):
            recoloured = field(inputs)
    # nothing but a bias of zero is left
    torch.testing.assert_close(edited[..., 3], torch.full_like(edited[..., 3], math.log(2)))
    assert torch.equal(recoloured[..., 3], plain[..., 3])
    assert not torch.allclose(recoloured[..., :3], plain[..., :3])


def test_a_field_is_saved_and_found_again(tmp_path):
    from terrarium.organisms.build import load

    spec = RadianceModel(widths=(8,), feature=None)
    field = build(spec, [("seed", 3)])
    field.save(0, tmp_path)
    again = load(spec, [tmp_path])
    for name, tensor in field.member_state(0).items():
        assert torch.equal(again.member_state(0)[name], tensor)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"far": 1.0}, "beyond near"),
        ({"far": math.inf}, "finite number"),
        ({"near": math.nan}, "finite number"),
        ({"activations": ("relu",)}, "as many activations"),
        ({"skips": (0,)}, "layers from 1"),
        ({"feature": None, "density_after_feature": True}, "without a feature layer"),
        ({"position": {"frequencies": 0, "identity": False}}, "leave nothing"),
    ],
)
def test_impossible_models_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        RadianceModel.model_validate({"kind": "radiance", **change})


# ------------------------------------------------------------------ wrong files


def fine(checkpoint: dict[str, object]) -> dict[str, torch.Tensor]:
    return checkpoint["model_fine_state_dict"]  # type: ignore[return-value]


def drop(c):
    del fine(c)["fc_alpha.bias"]


def reshape(c):
    fine(c)["layers_dir.0.weight"] = torch.zeros(64, 152)


def spoil(c):
    fine(c)["fc_rgb.weight"][0, 0] = float("nan")


def whole_numbers(c):
    fine(c)["fc_rgb.bias"] = torch.zeros(3, dtype=torch.long)


def add(c):
    fine(c)["layers_xyz.3.weight"] = torch.zeros(128, 128)


def rename(c):
    c["model_fine"] = c.pop("model_fine_state_dict")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop, "lacks the tensor 'fc_alpha.bias'"),
        (
            reshape,
            r"'layers_dir.0.weight' has the shape \(64, 152\) and the spec asks for \(64, 155",
        ),
        (spoil, "'fc_rgb.weight' holds NaN"),
        (whole_numbers, "'fc_rgb.bias' is torch.int64"),
        (add, "holds 'layers_xyz.3.weight', of which the spec says nothing"),
        (rename, "no weights under 'model_fine_state_dict'; did you mean 'model_"),
    ],
)
def test_wrong_state_dicts_get_one_sentence(checkpoint, tmp_path, damage, words):
    damage(checkpoint)
    with pytest.raises(ModelError, match=words) as caught:
        load_radiance(saved(checkpoint, tmp_path))
    assert "\n" not in str(caught.value)


class Runs:
    def __reduce__(self):
        return (print, ("a pickle that runs code",))


def test_files_that_are_no_weights_get_one_sentence(tmp_path, capsys):
    with pytest.raises(ModelError, match="There is no file of weights"):
        load_radiance(tmp_path / "absent.ckpt")
    (tmp_path / "text.ckpt").write_text("weights\n")
    with pytest.raises(ModelError, match="not a file of PyTorch weights"):
        load_radiance(tmp_path / "text.ckpt")
    torch.save({f"{i}.weight": torch.zeros(1) for i in range(99)}, tmp_path / "other.ckpt")
    with pytest.raises(ModelError, match=r"are: 0, 0.weight, 1, 1.weight, 10 and 193 more\.$"):
        load_radiance(tmp_path / "other.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(ModelError, match="holds a list and no state dict"):
        load_radiance(tmp_path / "list.ckpt")
    torch.save(Runs(), tmp_path / "runs.ckpt")
    with pytest.raises(ModelError, match="would run code"):
        load_radiance(tmp_path / "runs.ckpt")
    assert capsys.readouterr().out == ""
    good = saved({"a": torch.zeros(3)}, tmp_path)
    good.write_bytes(good.read_bytes()[:200])
    with pytest.raises(ModelError, match="cannot be read as weights"):
        load_radiance(good)


def described(**changes: object) -> dict[str, object]:
    told = yaml.safe_load(shipped_specs()["nerf-pytorch"].read_text())
    return {**told, **changes}


def test_a_spec_of_ones_own_with_prefixes_and_safetensors(checkpoint, tmp_path):
    from safetensors.torch import save_file

    flat = {f"{net}.{name}": tensor for net in ("coarse", "fine")
            for name, tensor in checkpoint[f"model_{net}_state_dict"].items()}  # fmt: skip
    save_file(flat, tmp_path / "flat.safetensors")
    told = described(nets={"coarse": "coarse", "fine": "fine"}, weights="flat.safetensors")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(told))
    one, two = load_radiance(spec=tmp_path / "own.yaml"), load_radiance(saved(checkpoint, tmp_path))
    assert torch.equal(one.weights.values, two.weights.values)
    alone = described(nets={"fine": ""})
    alone["model"] = {**alone["model"], "coarse": False}
    (tmp_path / "alone.yaml").write_text(yaml.safe_dump(alone))
    torch.save(fine(checkpoint), tmp_path / "alone.pt")
    single = load_radiance(tmp_path / "alone.pt", tmp_path / "alone.yaml")
    points, directions = points_and_directions(5)
    with torch.no_grad():
        assert torch.equal(single(points, directions), two(points, directions))


LAYERS = yaml.safe_load(shipped_specs()["nerf-pytorch"].read_text())["layers"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nets": {"fine": "x"}}, r"own.yaml: nets must say where coarse and fine lie, .* fine\.$"),
        ({"layers": {"trunk": ["a"], "density": "d", "colour": "c"}}, "layers lack 'direction.0'"),
        ({"layers": {**LAYERS, "trunk": ["a"] * 5}}, "layers name 'trunk.4'"),
        ({"weight": "x"}, "unknown key 'weight'; did you mean 'weights'"),
    ],
)
def test_wrong_specs_get_one_sentence(tmp_path, changes, words):
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(described(**changes)))
    with pytest.raises(InputError, match=words) as caught:
        load_radiance(spec=tmp_path / "own.yaml")
    assert "\n" not in str(caught.value)


def test_specs_that_are_none_get_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"There is no spec file 'nerf-pytorsh'.*did you mean"):
        load_radiance("x", "nerf-pytorsh")
    with pytest.raises(InputError, match="names no weights"):
        load_radiance()
    (tmp_path / "bad.yaml").write_text("[1, 2")
    with pytest.raises(InputError, match="not valid YAML"):
        load_radiance("x", tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(InputError, match="describes no field"):
        load_radiance("x", tmp_path / "list.yaml")


@pytest.mark.parametrize("name", SCENES)
def test_the_published_fields_load(shared_data, name):
    field = load_radiance(shared_data(f"nerf/{name}.ckpt"))
    assert field.parameters_per_member == 2 * 84_548
    assert not any(p.requires_grad for p in field.parameters())
    held = read_state_file(shared_data(f"nerf/{name}.ckpt"))
    theirs = Reference()
    theirs.load_state_dict(held["model_fine_state_dict"])
    points, directions = points_and_directions(200)
    with torch.no_grad():
        expected, got = theirs(points, directions), field(points, directions)
    torch.testing.assert_close(got, expected, atol=2e-3, rtol=2e-3)


# ------------------------------------------------------------------ a field as the truth


def test_a_field_as_the_truth_is_two_functions_of_arrays(checkpoint, tmp_path):
    field = load_radiance(saved(checkpoint, tmp_path))
    truth = as_truth(field)
    points, directions = points_and_directions(40)
    with torch.no_grad():
        expected = field(points, directions)[0].double().numpy()
    assert truth.density(points[0].numpy()).dtype == np.float64
    np.testing.assert_allclose(truth.density(points[0].numpy()), expected[:, 3], atol=1e-6)
    longer = 3 * directions[0].numpy()  # only where it points counts
    np.testing.assert_allclose(truth.colour(points[0].numpy(), longer), expected[:, :3], atol=1e-6)
    assert truth.density(np.zeros((0, 3))).shape == (0,)
    with pytest.raises(InputError, match=r"points must be \(n, 3\)"):
        truth.density(np.zeros(3))
