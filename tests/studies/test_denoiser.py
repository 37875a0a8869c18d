"""`denoiser` at a tiny size, its measures on planted denoisers, its verdicts on planted rows."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from terrarium.errors import InputError
from terrarium.evidence.hypotheses import Verdict, judge
from terrarium.evidence.rows import Row, measured
from terrarium.figures.gallery import gallery, png_uri
from terrarium.instruments.site_features import SiteFeatures
from terrarium.organisms.build import build
from terrarium.organisms.recipe import DenoiserModel, Recipe
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.studies.base import Study, studies
from terrarium.studies.denoiser.effects import (
    matched_removals,
    removal_effects,
    site_rows,
    unit_removals,
)
from terrarium.studies.denoiser.features import effect_rows, feature_removals, feature_rows
from terrarium.studies.denoiser.hypotheses import HYPOTHESES
from terrarium.studies.denoiser.laws import (
    DENOISERS,
    EXACT,
    FEW,
    GAUSSIANS,
    LAWS,
    LEVELS,
    LINEAR,
    MANY,
    RANDOM,
    SMALL,
    STANDARD,
    UNTRAINED,
    VARYING,
    noisy_images,
)
from terrarium.studies.denoiser.measure import (
    draws,
    in_nats,
    memorised,
    regret_rows,
    sample_rows,
    unseen_rows,
)
from terrarium.studies.runner import StudyResult, plan, run_study
from terrarium.studies.site_dictionaries import Fit
from terrarium.worlds.images.law import ImageLaw
from terrarium.worlds.images.mixtures import ImageMixture

STUDY: Study = studies.get("denoiser")
TINY = {
    "steps": 3, "batch": 4, "rows": 6, "samples": 20, "effect_rows": 3, "few": 3, "many": 5,
}  # fmt: skip
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
    metrics = {row.metric for row in result.rows}
    assert metrics >= {
        "regret", "regret_nats", "regret_to_linear", "least_error", "undecided", "memorised",
        "frequency_error", "energy_distance", "log_likelihood_gap", "unseen_error",
        "removal_effect", "picture", "parameters", "live", "effect_ratio",
    }  # fmt: skip
    for law in LAWS:
        own = [r for r in result.rows if r.metric == "regret" and r.factors["law"] == law]
        names = {r.factors["denoiser"] for r in own}
        assert names == set(DENOISERS) - (set() if law == GAUSSIANS else {SMALL})
        assert {r.factors["level"] for r in own} == set(LEVELS)


def test_figures_and_checks_come_from_rows(result: StudyResult) -> None:
    figures = {figure.name: figure for figure in STUDY.figures(result.rows)}
    assert set(figures) == {
        "regret", "nats", "undecided", "memorised", "frequencies", "likelihood", "unseen",
        "effects", "units", "feature-effects", "features",
        *(f"{kind}-{law}" for kind in ("denoised", "samples")
                              for law in ("few-images", "many-images", "gaussians")),
    }  # fmt: skip
    assert STUDY.figures([]) == []
    assert len(STUDY.checks(result.rows)) == 10
    assert {check.status for check in STUDY.checks([])} == {"not made"}
    names = {card.name for card in STUDY.cards(result.rows)}
    assert names == {f"{STANDARD}, {law}" for law in LAWS} | {f"{SMALL}, {GAUSSIANS}"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"few": 1}, "'few' expects at least 2"),
        ({"steps": 0}, "'steps' expects at least 1"),
        ({"side": 9}, "cannot be run with these settings: side is 9: Input should be a multiple"),
        ({"active": 9, "features": 8}, "'active' is 9 and a dictionary has 'features' 8"),
    ],
)
def test_settings_are_checked(changes: Mapping[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        plan(STUDY, "smoke", changes, workers=0)


def test_every_seed_has_laws_of_its_own() -> None:
    cells = STUDY.cells(STUDY.defaults["full"])
    assert len({cell.name for cell in cells}) == len(cells) == 15
    seen = set()
    for cell in cells:
        for told in cell.spec["recipes"].values():
            recipe = Recipe.model_validate(told)
            options = recipe.phases[0].sources[0].options
            assert options["law_seed"] == cell.spec["seed"]
            seen.add(options["count"])
    assert seen == {16, 2048, 8}
    assert [cell.spec["pictures"] for cell in cells].count(True) == 3, "one seed is shown"


# What is measured, on planted denoisers

FINITE = ImageMixture(side=8, count=6)
MIXTURE = ImageMixture(kind="gaussian", side=8, count=4)


def values(rows: list[Row], metric: str, **levels: Any) -> list[float]:
    return [
        row.value
        for row in rows
        if row.metric == metric
        and row.value is not None
        and all(row.factors.get(k) == v for k, v in levels.items())
    ]


def test_regret_is_zero_for_the_exact_denoiser_and_known_for_a_shifted_one() -> None:
    law = MIXTURE.law()
    shift = 0.01
    rows = regret_rows(
        {
            "same": law.exact_denoiser,
            "shifted": lambda y, s: law.exact_denoiser(y, s) + shift,
            LINEAR: law.linear_denoiser,
        },
        law, 30, "planted",
    )  # fmt: skip
    assert values(rows, "regret", denoiser="same") == [0.0] * len(LEVELS)
    assert values(rows, "regret_nats", denoiser="same") == [0.0]
    assert values(rows, "regret", denoiser="shifted") == pytest.approx([shift**2] * len(LEVELS))
    total = values(rows, "regret_nats", denoiser="shifted")[0]
    assert total == pytest.approx(in_nats([shift**2] * len(LEVELS), 64))
    missing = [r for r in rows if r.metric == "regret_to_linear" and r.value is None]
    assert {r.factors["denoiser"] for r in missing} == {"same"}


def test_regret_in_nats_is_the_divergence_of_the_laws() -> None:
    """Verdu's identity on white Gaussians of other variance, over the levels that are measured."""
    one, two = (
        ImageLaw((1, 2, 2), np.ones(1), np.zeros((1, 4)), np.zeros((1, 4, 0)), np.zeros((1, 0)), v)
        for v in (0.2**2, 0.3**2)
    )
    fine = np.geomspace(LEVELS[0], LEVELS[-1], 2000)
    # regret per pixel of the wrong Wiener filter, in closed form
    gain = [v / (v + fine**2) for v in (one.floor, two.floor)]
    regret = (gain[0] - gain[1]) ** 2 * (one.floor + fine**2)
    total = np.trapezoid(4 * regret / fine**2, np.log(fine))

    def divergence(sigma: float) -> float:
        a, b = one.floor + sigma**2, two.floor + sigma**2
        return 4 * 0.5 * (a / b - 1 - np.log(a / b))

    assert total == pytest.approx(divergence(LEVELS[0]) - divergence(LEVELS[-1]), rel=1e-3)
    rows = regret_rows({"wrong": two.exact_denoiser, LINEAR: one.linear_denoiser}, one, 4000, 0)
    (found,) = values(rows, "regret_nats", denoiser="wrong")
    assert found == pytest.approx(total, rel=0.15)  # seven levels by trapezoids


def test_samples_of_the_exact_denoiser_pass_and_blends_fail() -> None:
    drawn = draws({LINEAR: FINITE.law().linear_denoiser}, FINITE, FEW, 120, "planted")
    rows = sample_rows(drawn, FINITE.law(), "planted")
    assert values(rows, "memorised", sampler=EXACT)[0] > 0.95
    assert abs(values(rows, "frequency_error", sampler=EXACT)[0]) < 0.1
    assert values(rows, "memorised", sampler="true") == [1.0]
    assert values(rows, "memorised", sampler=LINEAR)[0] < 0.5, "a Gaussian gives blends"
    assert values(rows, "memorised", sampler="unseen images")[0] < 0.35
    mixed = sample_rows(
        draws({LINEAR: MIXTURE.law().linear_denoiser}, MIXTURE, GAUSSIANS, 120, 0),
        MIXTURE.law(), 0,
    )  # fmt: skip
    assert abs(values(mixed, "log_likelihood_gap", sampler=EXACT)[0]) < 0.1
    assert values(mixed, "log_likelihood_gap", sampler=LINEAR)[0] < -0.1


def test_memorised_means_much_nearer_than_the_second_nearest() -> None:
    law = FINITE.law()
    images = law.means.reshape(-1, *law.shape)
    between = (images[:-1] + images[1:]) / 2
    assert memorised(images, law) == 1
    assert memorised(between, law) == 0


def test_a_memoriser_fails_on_unseen_images_and_a_copier_does_not() -> None:
    rows = unseen_rows(lambda y, s: y, FINITE, 40, "planted")
    for sigma in (0.1, 0.2):
        copied = values(rows, "unseen_error", denoiser=STANDARD, level=sigma)[0]
        assert copied == pytest.approx(sigma**2, rel=0.1)
    names = ("exact for the unseen set", "exact for the training set")
    best, blind = (values(rows, "unseen_error", denoiser=n, level=0.1)[0] for n in names)
    assert best < 0.3 * blind


# Effects of features

MODEL = DenoiserModel(side=8, width=4, hidden=6, code=8, centre=0.4, sigma_data=0.05)


def stirred(dead: int) -> Any:
    """A network with drawn weights, in which one unit of the dense block is not read."""
    network = build(MODEL, [("m", 0)])
    rng = generator("stir")
    state = {
        name: torch.from_numpy(0.3 * rng.standard_normal(t.shape, dtype="float32"))
        for name, t in network.member_state(0).items()
    }
    state["blocks.2.out.weight"][dead] = 0
    network.load_member_state(0, state)
    return network.eval()


def test_only_units_that_are_read_have_an_effect_and_matched_directions_move_as_far() -> None:
    network, law = stirred(2), MIXTURE.law()
    _, noisy = noisy_images(law, 0.2, 12, "effects")
    exact = law.exact_denoiser(noisy, 0.2)
    seen = site_rows(network, noisy, 0.2)
    mean = seen.mean(dim=0)
    assert mean.shape == (6,)
    units = unit_removals(mean)
    named = {f"unit {i}": removal for i, removal in enumerate(units)}
    effects = removal_effects(network, noisy, exact, 0.2, named)
    assert effects["unit 2"] == pytest.approx(0, abs=1e-8)
    assert all(abs(effects[f"unit {i}"]) > 1e-2 for i in (0, 1, 3, 4))
    x = torch.from_numpy(generator("x").standard_normal((1, 5, 6), dtype="float32"))
    for i, (unit, random) in enumerate(zip(units, matched_removals(seen, ("key",)), strict=True)):
        assert float(((random(seen) - seen) * seen).sum()) <= 1e-5, "something is taken, not given"
        gone = unit(x)
        torch.testing.assert_close(gone[..., i], mean[i].expand(1, 5))
        far = [(new - x).norm(dim=-1) for new in (gone, random(x))]
        torch.testing.assert_close(far[0], far[1])


def test_effects_are_differences_of_regrets() -> None:
    """Removing all that the block adds, by hand and by removals that set every unit to its mean."""
    network, law = stirred(0), MIXTURE.law()
    _, noisy = noisy_images(law, 0.2, 8, "by hand")
    exact = law.exact_denoiser(noisy, 0.2)
    seen = site_rows(network, noisy, 0.2)
    mean = seen.mean(dim=0)
    found = removal_effects(
        network, noisy, exact, 0.2, {"all": mean.expand_as, "none": lambda x: x}
    )
    assert found["none"] == pytest.approx(0, abs=1e-8)
    state = network.member_state(0)
    flat = build(MODEL, [("m", 0)])
    constant = state["blocks.2.out.bias"] + mean @ state["blocks.2.out.weight"]
    flat.load_member_state(
        0, {**state, "blocks.2.out.weight": 0 * state["blocks.2.out.weight"],
            "blocks.2.out.bias": constant},
    )  # fmt: skip
    images = torch.from_numpy(noisy.astype(np.float32))[None]
    with torch.no_grad():
        regrets = [
            float((one(images, 0.2)[0].double() - torch.from_numpy(exact)).square().mean())
            for one in (network, flat)
        ]
    assert found["all"] == pytest.approx(regrets[1] - regrets[0], rel=1e-3)


def test_effect_rows_name_units_and_directions() -> None:
    rows = effect_rows(stirred(2), MIXTURE.law(), 4, "rows")
    names = {row.factors["feature"] for row in rows if row.metric == "removal_effect"}
    assert names == {f"{kind} {i}" for kind in ("unit", "random") for i in range(6)}


def test_a_feature_is_taken_out_and_directions_beside_it_move_as_far() -> None:
    directions = generator("features").standard_normal((3, 6))

    def coefficients(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x[..., :3])

    features = SiteFeatures(("a", "b", "c"), directions, coefficients)
    rows = generator("rows").standard_normal((50, 6), dtype=np.float32)
    rows[:, 4:] = 0
    found = feature_removals(features, rows, ("key",))
    x = torch.from_numpy(generator("x").standard_normal((1, 5, 6), dtype="float32"))
    for place in range(3):
        moved = {kind: (removals[place](x) - x).double() for kind, removals in found.items()}
        part = torch.relu(x[..., place, None]).double() * torch.from_numpy(directions[place])
        torch.testing.assert_close(moved["feature"], -part, atol=1e-5, rtol=1e-4)
        for other in ("as a feature", VARYING):
            far = moved[other].norm(dim=-1)
            torch.testing.assert_close(far, part.norm(dim=-1), atol=1e-5, rtol=1e-4)
        assert moved[VARYING][..., 4:].abs().max() == 0, "nothing varies there"


def test_feature_rows_name_features_and_both_kinds_of_directions() -> None:
    rows = feature_rows(stirred(2), MIXTURE.law(), Fit(5, 2, 2000), 4, True, "rows", 0)
    effects = [row for row in rows if row.metric == "removal_effect"]
    (live,) = values(rows, "live")
    assert len(effects) == 3 * 5 * live
    ratios = [row for row in rows if row.metric == "effect_ratio"]
    assert {(r.factors["part"], r.factors["against"]) for r in ratios} == {
        ("features", "as a feature"), ("features", VARYING),
    }  # fmt: skip
    assert len(values(rows, "picture")) == 6 * live


# Galleries


def test_pictures_are_pngs_of_their_pixels() -> None:
    images = pytest.importorskip("PIL.Image")
    for shape in ((5, 7), (1, 5, 7), (3, 5, 7)):
        pixels = np.random.default_rng(0).random(shape)
        file = base64.b64decode(png_uri(pixels, 3).partition(",")[2])
        read = np.asarray(images.open(io.BytesIO(file)), np.float64) / 255
        wanted = pixels.transpose(1, 2, 0) if shape[0] == 3 else pixels.reshape(5, 7)
        assert read[1::3, 1::3] == pytest.approx(wanted, abs=0.003)
        assert read.shape[:2] == (15, 21)
    with pytest.raises(InputError, match="1 or 3 channels"):
        png_uri(np.zeros((2, 5, 5)))
    with pytest.raises(InputError, match="finite"):
        png_uri(np.full((5, 5), np.nan))


def test_a_gallery_keeps_its_order_and_its_pixels_out_of_the_table() -> None:
    image = png_uri(np.zeros((4, 4)))
    rows = [{"row": r, "column": c, "image": image} for r in "ba" for c in "zy"]
    figure = gallery("g", rows, title="t", caption="c")
    (layer,) = figure.spec["layer"]
    assert layer["encoding"]["y"]["sort"] == ["b", "a"]
    assert layer["encoding"]["x"]["sort"] == ["z", "y"]
    assert figure.data == [{"row": r, "column": c} for r in "ba" for c in "zy"]
    assert "image/png" in str(figure.spec["data"])
    with pytest.raises(InputError, match="no column 'image'"):
        gallery("g", [{"row": 1, "column": 2}], title="t", caption="c")


# Planted rows


def planted(**ends: float) -> list[Row]:
    """Rows in which every gate is passed; ``ends`` change what hypotheses speak of."""
    rows: list[Row] = []

    def put(metric: str, value: float, **factors: Any) -> None:
        for seed in SEEDS:
            own = value * (1 + 0.01 * (seed - 12))
            rows.append(measured(metric, own, unit="", n=100, seed=seed, **factors))

    for law in LAWS:
        put("regret_nats", 10.0, denoiser=STANDARD, law=law)
        put("regret_nats", 1000.0, denoiser=UNTRAINED, law=law)
    put("regret_nats", ends.get("linear", 40.0), denoiser=LINEAR, law=GAUSSIANS)
    for seed in SEEDS:
        small = 10.0 * ends.get("small", 2.0) * (1 + 0.02 * (seed - 12))
        rows.append(
            measured("regret_nats", small, unit="", n=9, denoiser=SMALL, law=GAUSSIANS, seed=seed)
        )
    for level, value in ((0.05, 1.0), (0.4, 3.0), (0.8, 3.0), (1.6, ends.get("loud", 1.0))):
        for seed in SEEDS:
            own = value * (1 + 0.01 * (seed - 12) * (level == 0.4))
            told = {"denoiser": STANDARD, "law": FEW, "level": level, "seed": seed}
            rows.append(measured("regret", own, unit="", n=9, **told))
    put("memorised", 0.99, sampler=EXACT, law=FEW)
    put("memorised", ends.get("few", 0.97), sampler=STANDARD, law=FEW)
    put("memorised", ends.get("many", 0.1), sampler=STANDARD, law=MANY)
    put("frequency_error", ends.get("frequency", 0.01), sampler=STANDARD, law=FEW)
    put("unseen_error", ends.get("unseen", 0.002), denoiser=STANDARD, law=MANY, level=0.2)
    for seed in SEEDS:
        rows.append(
            measured(
                "unseen_error", 0.004, unit="", n=9, denoiser="exact for the training set",
                law=MANY, level=0.2, seed=seed,
            )
        )  # fmt: skip
    for part, against in (("units", RANDOM), ("features", VARYING)):
        put("effect_ratio", ends.get("ratio", 0.3), law=GAUSSIANS, part=part, against=against)
    return rows


def verdicts(**ends: float) -> dict[str, Verdict]:
    return {verdict.hypothesis: verdict for verdict in judge(HYPOTHESES, planted(**ends))}


def test_every_hypothesis_can_be_supported() -> None:
    found = verdicts()
    assert {name: v.verdict for name, v in found.items()} == dict.fromkeys(found, "supported")


def test_every_hypothesis_can_be_contradicted() -> None:
    found = verdicts(
        linear=11.0, small=1.0, loud=9.0, few=0.3, many=0.2, frequency=0.3, unseen=0.01, ratio=0.01
    )
    assert {name: v.verdict for name, v in found.items()} == dict.fromkeys(found, "contradicted")


def test_a_network_that_did_not_learn_says_nothing() -> None:
    rows = [
        measured("regret_nats", 900.0, unit="", n=1, **row.factors)
        if row.metric == "regret_nats" and row.factors["denoiser"] == STANDARD
        else row
        for row in planted()
    ]
    found = {v.verdict for v in judge(HYPOTHESES, rows)}
    assert found == {"uninformative"}
