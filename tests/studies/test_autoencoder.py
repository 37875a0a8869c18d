"""`autoencoder` at a tiny size, its measures on planted codes, its verdicts on our rows."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import decomposition

from terrarium.errors import InputError
from terrarium.evidence.hypotheses import Verdict, judge
from terrarium.evidence.rows import Row, measured
from terrarium.figures.gallery import png_uri
from terrarium.instruments.effects import exact_effects
from terrarium.instruments.quantities import decibels
from terrarium.instruments.site_features import dictionary_features
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.studies.autoencoder.alignment import (
    alignment,
    explained,
    random_directions,
    total_shares,
)
from terrarium.studies.autoencoder.arms import (
    ANY,
    AUTOENCODER,
    FEATURES,
    FEW,
    GROWN,
    LATENT,
    LOADED,
    MEAN,
    PCA,
    ROOMY,
    SINGLE,
    TIGHT,
    UNITS,
    UNTRAINED,
    VARYING,
    YOURS,
)
from terrarium.studies.autoencoder.baselines import fit_patch_pca, from_patches, to_patches
from terrarium.studies.autoencoder.features import feature_pictures, last_maps
from terrarium.studies.autoencoder.hypotheses import HYPOTHESES
from terrarium.studies.autoencoder.measure import effect_rows, effects_at, kept_rows, region_rows
from terrarium.studies.base import Study, studies
from terrarium.studies.runner import StudyResult, plan, run_study
from terrarium.studies.site_dictionaries import Fit, activations, live
from terrarium.worlds.images.factors import Images

STUDY: Study = studies.get("autoencoder")
TINY = {"steps": 5, "side": 8, "rows": 20, "effect_rows": 8, "randoms": 1}
SEEDS = range(10, 15)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    store = Store(tmp_path_factory.mktemp("store"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return run_study(STUDY, "smoke", TINY, store, workers=0)


# As a whole


def test_everything_planned_is_measured(result: StudyResult) -> None:
    assert result.failures == []
    assert {row.factors["arm"] for row in result.rows} == set(GROWN)
    assert {row.metric for row in result.rows} == {
        "parameters", "error", "reconstruction", "removed", "region_error", "outline_ratio",
        "factor_share", "alignment", "loss", "effect_ratio", "effect_explained", "picture",
        "live",
    }  # fmt: skip


def test_every_figure_check_and_card_is_there(result: StudyResult) -> None:
    names = [figure.name for figure in STUDY.figures(result.rows)]
    assert len(names) == len(set(names)) == 5 + 4 * len(GROWN)
    assert all(figure.data for figure in STUDY.figures(result.rows))
    assert len(STUDY.cards(result.rows)) == len(GROWN)
    statuses = {check.status for check in STUDY.checks(result.rows)}
    assert statuses <= {"passed", "failed", "not made"}
    assert len(STUDY.checks(result.rows)) == 4 * len(GROWN)


def test_cells_are_pure_functions_of_their_spec(result: StudyResult, tmp_path: Path) -> None:
    again = run_study(STUDY, "smoke", TINY, Store(tmp_path), workers=0)
    assert list(again.rows) == list(result.rows)


def test_no_rows_no_figures() -> None:
    assert list(STUDY.figures([])) == []
    assert list(STUDY.cards([])) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": 0}, "'steps' expects at least 1"),
        ({"images": "nowhere"}, "There is no folder nowhere"),
        ({"model": "nowhere"}, "There is no autoencoder at nowhere"),
    ],
)
def test_impossible_settings_get_one_sentence(
    change: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        plan(STUDY, "smoke", change, Store(tmp_path))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_images_that_are_too_small_are_told_before_anything_runs(tmp_path: Path) -> None:
    images_in(tmp_path / "images", 10, 12)
    with pytest.raises(InputError, match=r"0\.png has 10 x 12 pixels.* ask for smaller crops"):
        plan(STUDY, "quick", {"images": str(tmp_path / "images")}, Store(tmp_path / "store"))


def images_in(folder: Path, rows: int = 64, columns: int = 80) -> None:
    """Write two images of noise."""
    pillow = pytest.importorskip("PIL.Image")
    folder.mkdir()
    for place in range(2):
        drawn = generator("photograph", place).integers(0, 256, (rows, columns, 3), dtype=np.uint8)
        pillow.fromarray(drawn).save(folder / f"{place}.png")


def test_a_folder_of_images_grows_autoencoders_of_its_own(tmp_path: Path) -> None:
    images_in(tmp_path / "images")
    told = {**TINY, "images": str(tmp_path / "images")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = run_study(STUDY, "smoke", told, Store(tmp_path / "store"), workers=0)
    assert result.failures == []
    assert {row.factors["arm"] for row in result.rows} == set(YOURS)
    metrics = {row.metric for row in result.rows}
    assert {"reconstruction", "loss", "live", "effect_ratio"} <= metrics
    assert not {"factor_share", "region_error", "alignment", "effect_explained"} & metrics
    figures = {figure.name: figure for figure in STUDY.figures(result.rows)}
    assert len(figures) == 3 + 3 * len(YOURS)
    assert "Nobody knows the factors" in figures["reconstruction"].caption
    assert len(STUDY.checks(result.rows)) == 4 * len(YOURS)
    # other pictures in the same folder are other cells
    first = [cell.spec for cell in STUDY.cells({**STUDY.defaults["smoke"], **told})]
    (tmp_path / "images" / "1.png").unlink()
    assert first != [cell.spec for cell in STUDY.cells({**STUDY.defaults["smoke"], **told})]


def test_a_loaded_model_goes_the_same_way(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(4, 4), decoder_block_out_channels=(4, 4),
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), latent_channels=3,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "model")
    images_in(tmp_path / "images")
    told = {
        "model": str(tmp_path / "model"), "images": str(tmp_path / "images"), "crop": 16,
        "effect_crops": 2,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = run_study(STUDY, "smoke", told, Store(tmp_path / "store"), workers=0)
    assert result.failures == []
    assert {row.factors["arm"] for row in result.rows} == {LOADED}
    losses = [r for r in result.rows if r.metric == "loss" and r.factors["kind"] == "unit"]
    places = [(r.factors["site"], r.factors.get("at")) for r in losses]
    # the block before the one that makes the three latents has four channels
    assert sorted(set(places), key=str) == [(UNITS, "encoder.block[3]"), (LATENT, None)]
    assert [site for site, _ in places] == [LATENT] * 3 + [UNITS] * 4
    features = [r for r in result.rows if r.metric == "loss" and r.factors["kind"] == "feature"]
    assert features
    assert len(STUDY.figures(result.rows)) == 6


def _saved(folder: Path, how: str = "") -> Path:
    """Save a tiny TAESD-style pair of stride 2; ``how`` says what is wrong with it."""

    def conv(outputs: int, inputs: int) -> torch.Tensor:
        return torch.randn(outputs, inputs, 3, 3)

    parts = {
        "encoder": {"0.weight": conv(4, 3), "0.bias": torch.zeros(4), "1.weight": conv(4, 4),
                    "2.weight": conv(2, 4), "2.bias": torch.zeros(2)},
        "decoder": {"1.weight": conv(4, 2), "1.bias": torch.zeros(4), "3.weight": conv(4, 4),
                    "3.bias": torch.zeros(4), "5.weight": conv(4, 4), "6.weight": conv(3, 4),
                    "6.bias": torch.zeros(3)},
    }  # fmt: skip
    if how == "nan":
        parts["decoder"]["6.bias"][0] = float("nan")
    if how == "swapped":
        parts["encoder"], parts["decoder"] = parts["decoder"], parts["encoder"]
    folder.mkdir()
    for part, state in parts.items():
        torch.save(state, folder / f"my_{part}.pth")
    return folder


def _pictures(folder: Path, side: int) -> Path:
    pillow = pytest.importorskip("PIL.Image")
    folder.mkdir()
    drawn = generator("pictures", side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    pillow.fromarray(drawn).save(folder / "one.png")
    return folder


@pytest.mark.parametrize(
    ("how", "side", "told"),
    [
        ("nan", 64, "my_decoder.pth: '6.bias' holds NaN"),
        ("swapped", 64, "my_encoder.pth"),
        ("", 1, "one.png has 1 x 1 pixels"),
    ],
)
def test_faults_of_content_are_seen_before_anything_runs(
    how: str, side: int, told: str, tmp_path: Path
) -> None:
    model = _saved(tmp_path / "model", how)
    images = _pictures(tmp_path / "images", side)
    change = {"model": str(model), "images": str(images), "crop": 16}
    with pytest.raises(InputError) as error:
        plan(STUDY, "smoke", change, Store(tmp_path / "store"))
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    whole = {**change, "model": str(_saved(tmp_path / "whole")),
             "images": str(_pictures(tmp_path / "large", 64))}  # fmt: skip
    assert plan(STUDY, "smoke", whole, Store(tmp_path / "store")).cells


def test_a_changed_model_is_measured_again(tmp_path: Path) -> None:
    from terrarium.studies.autoencoder.loaded import content_of

    for part in ("encoder", "decoder"):
        (tmp_path / f"my_{part}.pth").write_bytes(part.encode())
    one, folder = content_of(tmp_path / "my_encoder.pth"), content_of(tmp_path)
    assert content_of(tmp_path / "my_decoder.pth") == one
    (tmp_path / "my_decoder.pth").write_bytes(b"other")
    assert content_of(tmp_path / "my_encoder.pth") != one
    assert content_of(tmp_path) != folder


# Baselines


def test_pca_is_that_of_scikit_learn() -> None:
    images = generator("pca").random((60, 3, 8, 8))
    found = fit_patch_pca(images, 5, 8)(images[:7])
    judge = decomposition.PCA(5).fit(images.reshape(60, -1))
    flat = images[:7].reshape(7, -1)
    np.testing.assert_allclose(
        found.reshape(7, -1), judge.inverse_transform(judge.transform(flat)), atol=1e-8
    )


def test_patches_come_back_and_all_components_lose_nothing() -> None:
    images = generator("patches").random((3, 2, 8, 12))
    patches = to_patches(images, 4)
    assert patches.shape == (3 * 2 * 3, 2 * 16)
    np.testing.assert_array_equal(patches[1].reshape(2, 4, 4), images[0, :, :4, 4:8])
    np.testing.assert_array_equal(from_patches(patches, images.shape, 4), images)
    np.testing.assert_allclose(fit_patch_pca(images, 32, 4)(images), images, atol=1e-10)
    with pytest.raises(InputError, match="at most as many components"):
        fit_patch_pca(images, 33, 4)


def test_shares_of_errors_are_exact() -> None:
    images = np.full((4, 1, 2, 2), 0.5)
    made = {AUTOENCODER: images + 0.1, PCA: images - 0.2, MEAN: images + 0.4}
    rows = {(r.metric, r.factors.get("coder") or r.factors.get("of")): r.value
            for r in kept_rows(images, made)}  # fmt: skip
    assert rows["reconstruction", AUTOENCODER] == pytest.approx(20)
    assert rows["removed", PCA] == pytest.approx(0.75)
    assert rows["removed", MEAN] == pytest.approx(1 - 1 / 16)


def test_errors_are_found_where_they_are() -> None:
    world = Images(side=16, vary=("row", "column", "size", "hue"))
    batch = world.sample(12, generator("regions"), "test")
    outline = np.asarray(world.maps(batch)["edge"], bool)[:, None]
    rows = region_rows(world, batch, batch.inputs + np.where(outline, 0.2, 0.02))
    found = {r.factors.get("region", r.metric): r.value for r in rows}
    assert found["outline"] == pytest.approx(0.04, rel=1e-4)
    assert found["shape"] == pytest.approx(4e-4, rel=1e-3)
    assert found["outline_ratio"] == pytest.approx(2, abs=1e-3)


# Factors


def planted(mixing: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Codes that are a linear mixture of four independent factors, and their counterfactuals."""
    rng = generator("planted")
    factors = rng.random((4000, 4))
    after = {}
    for f in range(4):
        other = factors.copy()
        other[:, f] = rng.random(4000)
        after[f"factor {f}"] = other @ mixing
    return factors @ mixing, after


def test_a_code_of_single_factors_is_aligned_and_its_rotation_is_not() -> None:
    straight, after = planted(np.diag([1.0, 5.0, 0.1, 2.0]))
    shares = total_shares(straight, after)
    np.testing.assert_allclose(shares, np.eye(4), atol=0.05)
    assert alignment(shares).min() > 0.95
    quarter = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    mixed, turned = planted(quarter)
    np.testing.assert_allclose(total_shares(mixed, turned), 0.25, atol=0.03)
    assert alignment(total_shares(mixed, turned)).max() < 0.3


def test_random_directions_of_an_aligned_code_are_less_aligned() -> None:
    straight, after = planted(np.diag([1.0, 5.0, 0.1, 2.0]))
    vectors = random_directions({"before": straight}, 200, generator("v"))
    turned = total_shares(straight @ vectors.T, {f: x @ vectors.T for f, x in after.items()})
    assert 0.4 < alignment(turned).mean() < 0.8
    # latents weigh alike, whatever their scale
    parts = turned.mean(axis=0)
    assert parts.min() > 0.15


def test_a_factor_that_decides_is_found_and_noise_is_not() -> None:
    rng = generator("explained")
    factors = {name: rng.random(400) for name in ("a", "b", "c")}
    assert explained(np.square(factors["b"] - 0.4), factors) > 0.95
    assert explained(rng.standard_normal(400), factors) < 0.1
    assert explained(np.zeros(400), factors) == 0.0


class Pair(torch.nn.Module):
    """A network of two latents of which the second does nothing."""

    members = 1

    def __init__(self) -> None:
        super().__init__()
        self.code = torch.nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = images.mean(dim=(2, 3, 4))
        code = self.code(torch.stack([mean, 3 * mean], dim=-1))
        return images - mean[..., None, None, None] + code[..., :1, None, None]

    def sites(self) -> dict[str, Any]:
        from terrarium.organisms.network import Site

        return {LATENT: Site(self.code)}

    def member_parameters(self, member: int, frozen: Any = ()) -> list[Any]:
        return []


def test_a_latent_that_does_nothing_costs_nothing() -> None:
    images = generator("effects").random((16, 1, 4, 4), dtype=np.float32)
    effects = effects_at(Pair(), images, LATENT, 2, "key")
    rows = effect_rows(effects, LATENT)
    loss = {(r.factors["feature"], r.factors["kind"]): r.value for r in rows if r.metric == "loss"}
    assert loss["unit 0", "unit"] > 10
    assert loss["unit 1", "unit"] == pytest.approx(0, abs=0.5)


# Features of a dictionary


class Maps(torch.nn.Module):
    """A network whose maps hold three channels, of which the image is the first two's sum."""

    members = 1

    def __init__(self, widths: tuple[int, ...] = (3,)) -> None:
        super().__init__()
        self.widths = widths
        self.blocks = torch.nn.ModuleList(torch.nn.Identity() for _ in widths)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for width, block in zip(self.widths, self.blocks, strict=True):
            shares = torch.tensor([0.75, 0.25, 1.0, 1.0, 1.0])[:width]
            maps = block(images[:, :, :1] * shares.view(1, 1, -1, 1, 1))
        return maps[:, :, :2].sum(dim=2, keepdim=True)

    def sites(self) -> dict[str, Any]:
        from terrarium.organisms.network import Site

        return {f"encoder.block[{i}]": Site(block) for i, block in enumerate(self.blocks)}

    def member_parameters(self, member: int, frozen: Any = ()) -> list[Any]:
        return []


class Planted:
    """A dictionary whose features are the channels, the second twice as long."""

    directions = np.diag([1.0, 2.0, 1.0])

    def encode(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x / np.array([1.0, 2.0, 1.0]), np.float32)


def test_a_feature_costs_what_its_channel_gives_and_adds_it() -> None:
    images = generator("maps").random((12, 1, 4, 4), dtype=np.float32)
    site, features = "encoder.block[0]", dictionary_features(Planted())
    # the network's own output is exact, so that 120 dB fall to those of the part left out
    effects = exact_effects(Maps(), images, site, features, decibels(images), randoms=1)
    power = np.square(images.astype(np.float64)).mean(axis=(1, 2, 3))
    want = [-10 * np.log10(share**2 * power) - 120 for share in (0.75, 0.25)]
    np.testing.assert_allclose(effects.change[0, :2], want, rtol=1e-4)
    np.testing.assert_allclose(effects.change[0, 2], 0, atol=1e-6)
    rows = feature_pictures(Maps(), site, Planted(), effects, images)
    lines = list(dict.fromkeys(r.factors["line"] for r in rows))
    assert [line.split(" (")[0] for line in lines] == ["feature 0", "feature 1", "feature 2"]
    # what a feature adds stands beside the image where it is most active
    brightest = images[images.max(axis=(1, 2, 3)).argmax()]
    first = {r.factors["column"]: r.factors["image"] for r in rows[:2]}
    assert first["image 1"] == png_uri(brightest)
    assert first["adds 1"] == png_uri(0.5 + 3 * 0.75 * brightest)


def test_losses_stand_beside_directions_of_the_same_length() -> None:
    images = generator("maps").random((12, 1, 4, 4), dtype=np.float32)
    site, features = "encoder.block[0]", dictionary_features(Planted())
    maps = activations(Maps(), images, site)
    assert maps.shape == (12, 4, 4, 3)
    told = (Maps(), images, site)
    effects = exact_effects(*told, features, decibels(images), randoms=1, varying=2)
    rows = effect_rows(effects, UNITS, FEATURES)
    kinds = [r.factors["kind"] for r in rows if r.metric == "loss"]
    assert kinds == ["feature"] * 3 + [ANY] * 3 + [VARYING] * 3
    assert [r.factors["against"] for r in rows if r.metric == "effect_ratio"] == [ANY, VARYING]


def test_the_last_maps_are_wider_than_what_leaves_the_encoder() -> None:
    images = np.zeros((1, 1, 4, 4), np.float32)
    assert last_maps(Maps((5, 5, 3)), images) == "encoder.block[1]"
    assert last_maps(Maps((3, 3)), images) is None


def test_a_site_that_says_the_same_of_all_images_has_no_dictionary() -> None:
    fit = Fit(4, 1, 1000)
    assert fit.dictionary(np.ones((20, 3), np.float32), 0) is None
    rows = generator("rows").random((200, 3), dtype=np.float32)
    fitted = fit.dictionary(rows, 0)
    assert set(live(fitted, rows)) <= set(range(4))
    assert len(live(fitted, rows)) > 0


# Verdicts


def rows_of(
    seed: int, removed: float, gain: float, outline: float, aligned: float, units: float
) -> list[Row]:
    """What one seed measures, with what the hypotheses ask for as told."""

    def row(metric: str, value: float, **factors: Any) -> Row:
        return measured(metric, value + 0.001 * (seed - 12), unit="", n=1, seed=seed, **factors)

    rows = [row("removed", 0.8, arm=arm, of=of) for arm in GROWN for of in (MEAN, UNTRAINED)]
    rows += [row("removed", removed, arm=FEW, of=PCA), row("outline_ratio", outline, arm=FEW)]
    rows += [row("reconstruction", 25.0, arm=TIGHT, coder=AUTOENCODER)]
    rows += [row("reconstruction", 25.0 + gain, arm=ROOMY, coder=AUTOENCODER)]
    for metric in ("alignment", "effect_explained"):
        rows.append(row(metric, 0.5 + aligned, arm=FEW, kind="latent"))
        rows.append(measured(metric, 0.5, unit="", n=1, seed=seed, arm=FEW, kind="random"))
    any_ = {"arm": FEW, "against": ANY, "part": SINGLE}
    rows.append(row("effect_ratio", 0.0, site=LATENT, **any_))
    rows.append(row("effect_ratio", units, site=UNITS, **any_))
    for part in (SINGLE, FEATURES):
        varying = {"arm": FEW, "against": VARYING, "part": part}
        rows.append(row("effect_ratio", units, site=UNITS, **varying))
    return rows


def verdicts(**told: float) -> dict[str, Verdict]:
    rows = [row for seed in SEEDS for row in rows_of(seed, **told)]
    return {v.hypothesis: v for v in judge(HYPOTHESES, rows)}


def test_what_is_planted_is_supported() -> None:
    found = verdicts(removed=0.8, gain=4.0, outline=0.6, aligned=0.3, units=0.3)
    assert {v.verdict for v in found.values()} == {"supported"}


def test_the_contrary_is_contradicted() -> None:
    found = verdicts(removed=0.2, gain=0.5, outline=0.0, aligned=0.0, units=0.0)
    against = {name for name, v in found.items() if v.verdict == "contradicted"}
    assert against == {h.name for h in HYPOTHESES} - {"latents-are-no-basis"}


def test_units_must_beat_directions_in_which_their_maps_vary() -> None:
    rows = [
        row
        for seed in SEEDS
        for row in rows_of(seed, removed=0.8, gain=4, outline=0.6, aligned=0.3, units=0.3)
    ]
    told = {"site": UNITS, "part": SINGLE, "against": VARYING}
    alike = [
        replace(row, value=0.0) if told.items() <= row.factors.items() else row for row in rows
    ]
    found = {v.hypothesis: v.verdict for v in judge(HYPOTHESES, alike)}
    assert found["units-are-a-basis"] == "contradicted"
    assert found["features-matter"] == "supported"


def test_networks_that_learnt_nothing_say_nothing() -> None:
    rows = [
        row
        for seed in SEEDS
        for row in rows_of(seed, removed=0.8, gain=4, outline=0.6, aligned=0.3, units=0.3)
        if not (row.metric == "removed" and row.factors["of"] == MEAN)
    ]
    assert {v.verdict for v in judge(HYPOTHESES, rows)} == {"uninformative"}
