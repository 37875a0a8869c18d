"""Image autoencoders made elsewhere: TAEF2's known round trips, diffusers as the judge, damage."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from terrarium.errors import InputError, ModelError
from terrarium.organisms.vision_folder import load_image_autoencoder
from terrarium.readings.hooks import capture, edit
from terrarium.readings.read import read
from terrarium.worlds.base import Batch

diffusers = pytest.importorskip("diffusers", reason="the extra vision is not installed")

KNOWN_DB = {
    "chelsea": 32.70,
    "rocket": 30.49,
    "astronaut": 31.19,
    "coffee": 29.62,
    "camera": 29.97,
}
"""Round trips of TAEF2, measured with its author's code (issue 4)."""


def one_sentence(error):
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


def photograph(name):
    """Return (1, 1, 3, rows, columns) in [0, 1], sides cropped to multiples of 16."""
    data = pytest.importorskip("skimage.data")
    image = getattr(data, name)()
    image = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    rows, columns = (side // 16 * 16 for side in image.shape[:2])
    scaled = torch.from_numpy(image[:rows, :columns].astype(np.float32) / 255)
    return scaled.permute(2, 0, 1)[None, None]


def decibel(images, made):
    return -10 * math.log10(float((images - made).square().mean()))


@pytest.mark.parametrize(
    "name",
    [
        "chelsea",
        *(pytest.param(n, marks=pytest.mark.science) for n in KNOWN_DB if n != "chelsea"),
    ],
)
def test_taef2_gives_the_round_trip_of_its_authors_code(shared_data, name):
    network = load_image_autoencoder(shared_data("taef2"))
    images = photograph(name)
    with torch.no_grad():
        made = network(images)
    assert decibel(images, made) == pytest.approx(KNOWN_DB[name], abs=0.05)


def tiny_state(part, width=4, code=2, wide=8):
    """A TAESD-style part drawn at random: stride 2, one plain and one widening block."""
    drawn = torch.Generator().manual_seed(len(part))

    def normal(*shape):
        return torch.randn(shape, generator=drawn) * (0.3 if len(shape) == 4 else 0.1)

    def conv(name, outputs, inputs, bias=True, side=3):
        found = {f"{name}.weight": normal(outputs, inputs, side, side)}
        return found | ({f"{name}.bias": normal(outputs)} if bias else {})

    def block(number, pooled):
        found = {}
        for i in (0, 2, 4):
            found |= conv(f"{number}.conv.{i}", width, width)
        if pooled:
            found |= conv(f"{number}.pool.0", wide, width, bias=False, side=1)
            found |= {f"{number}.pool.1.weight": 1 + normal(wide)}
            found |= {f"{number}.pool.1.bias": normal(wide)}
            found |= conv(f"{number}.pool.3", width, wide, bias=False, side=1)
        return found

    if part == "encoder":  # convolution, block, stride 2, widening block, convolution
        state = conv("0", width, 3) | block(1, False) | conv("2", width, width, bias=False)
        return state | block(3, True) | conv("4", code, width)
    # clamp, convolution, ReLU, widening block, upsampling, convolution, block, convolution
    state = conv("1", width, code) | block(3, True) | conv("5", width, width, bias=False)
    return state | block(6, False) | conv("7", 3, width)


@pytest.fixture
def pair(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    for part in ("encoder", "decoder"):
        torch.save(tiny_state(part), folder / f"my_{part}.pth")
    return folder


def by_hand(images):
    """The tiny pair's round trip, written out with functions alone."""
    f = torch.nn.functional
    e, d = tiny_state("encoder"), tiny_state("decoder")

    def block(state, number, x, pooled):
        if pooled:
            w = f.conv2d(x, state[f"{number}.pool.0.weight"])
            w = f.group_norm(w, 4, state[f"{number}.pool.1.weight"], state[f"{number}.pool.1.bias"])
            x = x + f.conv2d(w.relu(), state[f"{number}.pool.3.weight"])
        y = x
        for i in (0, 2, 4):
            y = f.conv2d(y if i == 0 else y.relu(), state[f"{number}.conv.{i}.weight"], padding=1)
            y = y + state[f"{number}.conv.{i}.bias"][:, None, None]
        return (x + y).relu()

    x = f.conv2d(images, e["0.weight"], e["0.bias"], padding=1)
    x = f.conv2d(block(e, 1, x, False), e["2.weight"], stride=2, padding=1)
    code = f.conv2d(block(e, 3, x, True), e["4.weight"], e["4.bias"], padding=1)
    x = f.conv2d(torch.tanh(code / 3) * 3, d["1.weight"], d["1.bias"], padding=1).relu()
    x = block(d, 3, x, True).repeat_interleave(2, 2).repeat_interleave(2, 3)
    x = block(d, 6, f.conv2d(x, d["5.weight"], padding=1), False)
    return code, f.conv2d(x, d["7.weight"], d["7.bias"], padding=1).clamp(0, 1)


def test_numbered_layers_are_inferred_as_written_by_hand(pair):
    network = load_image_autoencoder(pair)
    images = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(1))
    code, made = by_hand(images)
    assert network.stride == 2
    torch.testing.assert_close(network.encode(images[None])[0], code)
    torch.testing.assert_close(network(images[None])[0], made)
    assert float(((made > 0) & (made < 1)).float().mean()) > 0.01, "all clamped: nothing tested"


@pytest.mark.parametrize("how", ["encoder", "decoder", "joined", "autoencoders", "saved"])
def test_every_way_of_naming_the_pair_loads_the_same(pair, tmp_path, how):
    images = torch.rand(1, 1, 3, 4, 4)
    wanted = load_image_autoencoder(pair)(images)
    path = pair / f"my_{how}.pth"
    if how == "joined":
        path = tmp_path / "autoencoder.safetensors"
        save_file(
            {f"{p}.{n}": t for p in ("encoder", "decoder") for n, t in tiny_state(p).items()}, path
        )
    if how == "autoencoders":  # the word stands in both names
        for part in ("encoder", "decoder"):
            (pair / f"my_{part}.pth").rename(pair / f"autoencoder_{part}.pth")
        path = pair
    if how == "saved":
        path = tmp_path / "again"
        load_image_autoencoder(pair).save(0, path)
    torch.testing.assert_close(load_image_autoencoder(path)(images), wanted)


def tiny_diffusers(kind, attention=True):
    torch.manual_seed(3)
    if kind == "AutoencoderTiny":
        return diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 2),
            num_decoder_blocks=(2, 1),
        ).eval()
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=2,
        layers_per_block=1,
        mid_block_add_attention=attention,
    ).eval()


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTiny"])
def test_diffusers_folders_say_what_diffusers_says(tmp_path, kind):
    judge = tiny_diffusers(kind)
    judge.save_pretrained(tmp_path / "vae")
    images = torch.rand(2, 3, 8, 12)
    with torch.no_grad():
        told = judge.encode(images * 2 - 1)
        code = told.latents if kind == "AutoencoderTiny" else told.latent_dist.mean
        wanted = (judge.decode(code).sample + 1) / 2
        network = load_image_autoencoder(tmp_path / "vae")
        torch.testing.assert_close(network.encode(images[None])[0], code)
        torch.testing.assert_close(network(images[None])[0], wanted.clamp(0, 1))
        # a pipeline's folder leads to the same, and so does what the network itself writes
        torch.testing.assert_close(
            load_image_autoencoder(tmp_path)(images[None]), network(images[None])
        )
        network.save(0, tmp_path / "again")
        again = load_image_autoencoder(tmp_path / "again")
        torch.testing.assert_close(again(images[None]), network(images[None]))


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTiny", "taesd"])
def test_every_site_is_met_in_order_and_an_edit_there_reaches_the_image(tmp_path, pair, kind):
    if kind != "taesd":
        tiny_diffusers(kind).save_pretrained(pair := tmp_path / "vae")
    network = load_image_autoencoder(pair)
    images = torch.rand(1, 1, 3, 8, 8)
    met = []
    hooks = [
        site.module.register_forward_hook(lambda m, i, o, name=name: met.append(name))
        for name, site in network.sites().items()
    ]
    with torch.no_grad(), capture(network, "all") as kept:
        plain = network(images)
    for hook in hooks:
        hook.remove()
    assert met == list(network.sites())
    assert all(value.dim() == 5 for value in kept.values())
    for name in ("encoder.block[0]", "latent", "decoder.block[-1]"):
        with torch.no_grad(), edit(network, name, lambda x: x + 0.7):
            assert not torch.equal(network(images), plain)
        with torch.no_grad(), edit(network, name, lambda x: x):
            torch.testing.assert_close(network(images), plain)


def test_attention_free_middle_blocks_have_their_sites(tmp_path):
    tiny_diffusers("AutoencoderKL", attention=False).save_pretrained(tmp_path)
    network = load_image_autoencoder(tmp_path)
    with torch.no_grad(), capture(network, "all") as kept:
        network(torch.rand(1, 1, 3, 8, 8))
    assert set(kept) == set(network.sites())


def test_reading_and_the_network_contract(pair):
    network = load_image_autoencoder(pair)
    images = np.random.default_rng(0).random((3, 3, 4, 4), dtype=np.float32)
    reading = read(network, Batch(images, images, {}), ["latent"], None)
    assert reading.activations["latent"].shape == (1, 3, 2, 2, 2)
    assert reading.says.shape == (1, 3, 3, 4, 4)
    state = network.member_state(0)
    untrained = network.untrained("a", 1)
    torch.testing.assert_close(untrained.member_state(0), network.untrained("a", 1).member_state(0))
    assert any(not torch.equal(t, state[n]) for n, t in untrained.member_state(0).items())
    untrained.load_member_state(0, state)
    x = torch.from_numpy(images)[None]
    torch.testing.assert_close(untrained(x), network(x))
    assert len(network.member_parameters(0, ("encoder",))) < len(network.member_parameters(0))


def drop(name):
    return lambda state: state.pop(name)


def put(name, value):
    return lambda state: state.update({name: value})


DAMAGE = {
    "a block's bias is missing": (
        "encoder",
        drop("1.conv.2.bias"),
        "lacks the key '1.conv.2.bias'",
    ),
    "a strided layer is missing": ("encoder", drop("2.weight"), "lacks the keys of layer 2"),
    "an upsampled layer is missing": ("decoder", drop("5.weight"), "lacks the keys of layer 4"),
    "the last bias is missing": ("decoder", drop("7.bias"), "lacks the key '7.bias'"),
    "part of a branch is missing": ("decoder", drop("3.pool.1.bias"), "lacks the key '3.pool.1"),
    "the first layer's bias is missing": ("encoder", drop("0.bias"), "lacks the key '0.bias'"),
    "a wrong shape": (
        "encoder",
        put("1.conv.2.weight", torch.zeros(4, 5, 3, 3)),
        "is (4, 5, 3, 3)",
    ),
    "a wrong kernel": ("encoder", put("0.weight", torch.zeros(4, 3, 5, 5)), "is (4, 3, 5, 5)"),
    "layers that do not fit": ("encoder", put("2.weight", torch.zeros(4, 6, 3, 3)), "takes 6"),
    "NaN": ("decoder", put("7.bias", torch.tensor([0, math.nan, 0])), "holds NaN"),
    "a foreign key": ("decoder", put("mid.weight", torch.zeros(1)), "'mid.weight'"),
    "a number written otherwise": ("decoder", put("07.bias", torch.zeros(3)), "'07.bias'"),
    "an unknown part": ("decoder", put("3.gate.weight", torch.zeros(1)), "'3.gate.weight'"),
    "no tensor": ("decoder", put("7.bias", "x"), "is str and must be a dense tensor"),
    "a sparse tensor": ("decoder", put("7.bias", torch.zeros(3).to_sparse()), "is a sparse tensor"),
    "whole numbers": ("decoder", put("7.bias", torch.zeros(3, dtype=torch.int64)), "torch.int64"),
    "a huge number": ("decoder", put("99999999999.weight", torch.zeros(1)), "numbered up to"),
    "groups that do not divide": (
        "encoder",
        put("3.pool.0.weight", torch.zeros(6, 4, 1, 1)),
        "groups",
    ),
    "another code": ("encoder", put("4.weight", torch.zeros(2, 4, 3)), "'4.weight'"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_dicts_get_one_sentence(pair, what):
    part, spoil, told = DAMAGE[what]
    state = tiny_state(part)
    spoil(state)
    torch.save(state, pair / f"my_{part}.pth")
    with pytest.raises(ModelError) as error:
        load_image_autoencoder(pair)
    assert told in one_sentence(error)
    assert f"my_{part}.pth" in str(error.value)


def test_pairs_that_do_not_belong_together(pair):
    encoder = tiny_state("encoder")
    encoder["4.weight"], encoder["4.bias"] = torch.zeros(5, 4, 3, 3), torch.zeros(5)
    torch.save(encoder, pair / "my_encoder.pth")
    with pytest.raises(ModelError, match="3 channels to 5 and"):
        load_image_autoencoder(pair)
    encoder = tiny_state("encoder") | {"2.bias": torch.zeros(4)}
    torch.save(encoder, pair / "my_encoder.pth")
    with pytest.raises(ModelError, match="shrinks images 1 times and"):
        load_image_autoencoder(pair)


@pytest.mark.parametrize("given", ["swapped", "two encoders", "two decoders"])
def test_parts_under_each_others_names_are_told(pair, given):
    encoder, decoder = pair / "my_encoder.pth", pair / "my_decoder.pth"
    held = {"encoder": encoder.read_bytes(), "decoder": decoder.read_bytes()}
    if given != "two encoders":
        encoder.write_bytes(held["decoder"])
    if given != "two decoders":
        decoder.write_bytes(held["encoder"])
    wrong, other = ("decoder", "encoder") if given == "two encoders" else ("encoder", "decoder")
    with pytest.raises(ModelError) as error:
        load_image_autoencoder(pair)
    assert f"my_{wrong}.pth looks like the {other} and was given as" in one_sentence(error)


class Harmful:
    """A pickle that would run code."""

    def __reduce__(self):
        return (print, ("code ran",))


def test_pickles_with_code_run_nothing(pair, capsys):
    torch.save({"0.weight": Harmful()}, pair / "my_encoder.pth")
    with pytest.raises(ModelError, match="would run code") as error:
        load_image_autoencoder(pair)
    one_sentence(error)
    assert "code ran" not in capsys.readouterr().out


def test_files_that_are_no_pair(pair, tmp_path, tiny_models):
    (pair / "my_encoder.pth").write_bytes((pair / "my_encoder.pth").read_bytes()[:300])
    with pytest.raises(ModelError) as error:
        load_image_autoencoder(pair)
    one_sentence(error)
    (pair / "my_encoder.pth").unlink()
    with pytest.raises(ModelError, match=r"has no my_encoder\.pth beside it"):
        load_image_autoencoder(pair)
    with pytest.raises(ModelError, match=r"has no my_encoder\.pth beside it"):
        load_image_autoencoder(pair / "my_decoder.pth")
    shutil.copy(pair / "my_decoder.pth", pair / "other_decoder.pth")
    with pytest.raises(ModelError, match="one encoder and one decoder"):
        load_image_autoencoder(pair)
    with pytest.raises(ModelError, match="There is no autoencoder at"):
        load_image_autoencoder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="has no weights"):
        load_image_autoencoder(tmp_path / "empty")
    with pytest.raises(ModelError, match="LlamaForCausalLM, which is no image autoencoder") as told:
        load_image_autoencoder(tiny_models("llama"))
    one_sentence(told)


def test_damaged_diffusers_folders_get_one_sentence(tmp_path):
    whole = tmp_path / "whole"
    tiny_diffusers("AutoencoderTiny").save_pretrained(whole)
    (name,) = [p.name for p in whole.glob("*.safetensors")]

    def spoilt(change):
        folder = tmp_path / f"spoilt{len(list(tmp_path.iterdir()))}"
        shutil.copytree(whole, folder)
        state = load_file(folder / name)
        change(state, folder)
        if state:
            save_file(state, folder / name, metadata={"format": "pt"})
        with pytest.raises(ModelError) as error:
            load_image_autoencoder(folder)
        return one_sentence(error)

    key = "encoder.layers.0.bias"
    assert key in spoilt(lambda s, f: s.pop(key))
    assert "cannot be loaded" in spoilt(lambda s, f: s.update({key: torch.zeros(3)}))
    assert "holds NaN" in spoilt(lambda s, f: s.update({key: s[key] * math.nan}))
    assert "more.weight" in spoilt(lambda s, f: s.update({"more.weight": torch.zeros(3)}))

    def truncate(state, folder):
        (folder / name).write_bytes((folder / name).read_bytes()[:200])
        state.clear()

    assert "cannot be loaded" in spoilt(truncate)
    assert "valid JSON" in spoilt(lambda s, f: (f / "config.json").write_text("{"))
    other = json.dumps({"_class_name": "UNet2DConditionModel"})
    assert "UNet2D" in spoilt(lambda s, f: (f / "config.json").write_text(other))


def test_images_that_do_not_fit(pair):
    network = load_image_autoencoder(pair)
    with pytest.raises(InputError, match="crop the images to 4 x 6") as error:
        network(torch.rand(1, 1, 3, 5, 7))
    one_sentence(error)
    with pytest.raises(InputError, match="takes images"):
        network(torch.rand(1, 1, 1, 4, 4))
    with pytest.raises(InputError, match="decodes latents"):
        network.decode(torch.rand(1, 1, 3, 2, 2))


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (torch.full((1, 1, 3, 4, 4), 200, dtype=torch.uint8), "divide by 255"),
        (torch.full((1, 1, 3, 4, 4), 200.0), "got 200 to 200"),
        (torch.full((1, 2, 3, 4, 4), -0.5), "values in \\[0, 1\\]"),
        (torch.full((1, 1, 3, 4, 4), math.nan), "hold NaN"),
    ],
)
def test_images_of_other_values_are_refused(pair, images, told):
    network = load_image_autoencoder(pair)
    with pytest.raises(InputError, match=told) as error:
        network(images)
    one_sentence(error)


def test_images_of_double_precision_and_a_slight_overshoot_are_taken(pair):
    network = load_image_autoencoder(pair)
    images = torch.linspace(-0.005, 1.005, 48).reshape(1, 1, 3, 4, 4)
    torch.testing.assert_close(network(images.double()), network(images))
    assert network(images[:, :0]).shape == (1, 0, 3, 4, 4)
