import json

import numpy as np
import pytest
import torch

from terrarium.errors import InputError
from terrarium.evidence.hypotheses import judge
from terrarium.evidence.rows import measured
from terrarium.organisms.recipe import Recipe
from terrarium.progress import Silent
from terrarium.studies.across_modalities import STUDY, cells
from terrarium.studies.across_modalities.hypotheses import HYPOTHESES
from terrarium.studies.across_modalities.instruments import (
    FAMILIES,
    UNITS,
    Split,
    facts_of,
    instrument_rows,
)
from terrarium.studies.across_modalities.measure import measure_cell, rank_correlation
from terrarium.studies.across_modalities.performance import share_rows
from terrarium.studies.across_modalities.tasks import (
    AUTOENCODE,
    BASE,
    CLASSIFY,
    IMAGES,
    MODALITIES,
    OBJECTIVES,
    TEXT,
    Budget,
    recipe,
)
from terrarium.studies.settings import resolve_settings
from terrarium.worlds.images.captions import Captions
from terrarium.worlds.images.factors import Images


class Perfect(torch.nn.Module):
    """An organism that gives its input back, or a constant."""

    parameters_per_member = 0

    def __init__(self, made):
        super().__init__()
        self.made = made

    def forward(self, x):
        return self.made(x)


@pytest.fixture(scope="module")
def images():
    world = Images(side=24, vary=7)
    rng = np.random.default_rng(0)
    return world, {split: world.sample(300, rng, split) for split in ("train", "test")}


def share(rows):
    return next(r.value for r in rows if r.metric == "share_of_oracle")


def test_share_is_one_at_the_oracle_and_zero_for_a_blind_output(images):
    world, batches = images
    mean = torch.from_numpy(batches["train"].inputs.mean(axis=0))
    oracle, blind = Perfect(lambda x: x), Perfect(mean.expand_as)
    assert share(share_rows(oracle, world, batches, (IMAGES, AUTOENCODE))) == pytest.approx(1)
    assert share(share_rows(blind, world, batches, (IMAGES, AUTOENCODE))) == pytest.approx(
        0, abs=1e-5
    )
    even = Perfect(lambda x: torch.zeros(1, x.shape[1], 4))
    assert share(share_rows(even, world, batches, (IMAGES, CLASSIFY))) == pytest.approx(0, abs=0.02)


def test_share_of_text_is_zero_for_the_law_of_each_place():
    world = Captions(vary=7, corners=8, side=24, grid=32)
    rng = np.random.default_rng(0)
    batches = {split: world.sample(400, rng, split) for split in ("train", "test")}
    vocabulary = int(max(b.inputs.max() for b in batches.values())) + 1
    counts = np.stack(
        [np.bincount(c, minlength=vocabulary) + 0.5 for c in batches["train"].inputs.T]
    )
    logits = torch.from_numpy(np.log(counts)).float()

    class Blind(Perfect):
        members = 1

        def member_parameters(self, member):
            return [torch.zeros(1)]

    blind = Blind(lambda x: logits.expand(*x.shape, vocabulary))
    rows = share_rows(blind, world, batches, (TEXT, AUTOENCODE))
    assert share(rows) == pytest.approx(0, abs=1e-3)


def planted(n, noise, seed):
    """Activations whose first channels are the facts themselves, under noise."""
    rng = np.random.default_rng(seed)
    facts = rng.random((3, n)) < 0.5
    x = rng.standard_normal((n, 6)).astype(np.float32)
    x[:, :3] = facts.T * 2.0 - 1 + noise * rng.standard_normal((n, 3))
    return Split(x, x.copy(), facts)


def test_instruments_find_planted_facts_and_the_null_does_not():
    splits = {"train": planted(600, 0.2, 0), "test": planted(600, 0.2, 1)}
    rows = instrument_rows(splits, ("a", "b", "c"), 0, 20_000)
    mean = {r.factors["instrument"]: r.value for r in rows if r.metric == "instrument_auroc"}
    assert set(mean) == {*sum(FAMILIES.values(), ()), "input only", "shuffled labels"}
    assert mean["logistic_regression"] > 0.99
    assert mean[UNITS] > 0.99
    assert mean["input only"] > 0.99
    assert mean["shuffled labels"] == pytest.approx(0.5, abs=0.2)
    assert mean["shuffled labels"] < 0.8
    each = [r for r in rows if r.metric == "fact_auroc" and r.factors["instrument"] == UNITS]
    assert np.mean([r.value for r in each]) == pytest.approx(mean[UNITS])


def test_facts_are_the_same_questions_of_both_modalities():
    told, shown = Captions(vary=7, side=24), Images(vary=7, side=24)
    batches = [w.sample(3000, np.random.default_rng(5), "train") for w in (told, shown)]
    (names, text), (others, image) = (facts_of(b, 24) for b in batches)
    assert names == others
    np.testing.assert_array_equal(text, image)  # one generator draws the same shapes for both
    assert np.abs(image[4:].mean(axis=1) - 0.5).max() < 0.06


def test_rank_correlation():
    assert rank_correlation(np.array([[1, 10], [2, 20], [3, 30]])) == pytest.approx(1)
    assert rank_correlation(np.array([[1, 1], [2, 1], [3, 1]])) is None


def test_text_has_more_parameters_at_the_size_compared():
    from terrarium.organisms.build import build, resolved
    from terrarium.organisms.grow import make_world

    for objective in OBJECTIVES:
        count = {}
        for modality in MODALITIES:
            how = recipe(modality, objective, BASE, Budget(1, 4))
            model = resolved(how.model, make_world(how.phases[0].sources[0]))
            count[modality] = build(model, [("organism", 0)]).parameters_per_member
        assert count[TEXT] > count[IMAGES]


def test_cells_wait_for_the_organisms_they_compare():
    settings = resolve_settings(STUDY, "quick", {})
    made = {cell.name: cell for cell in cells(settings)}
    assert len(made) == 5 * 2 * (2 * 2 + 1)
    for cell in made.values():
        json.dumps(cell.spec)
        for need in cell.needs:
            assert made[need].spec["size"] == BASE
    with pytest.raises(InputError, match="XL"):
        cells({**settings, "sizes": ["XL"]})


def test_one_cell_of_each_kind(tmp_path):
    made = cells(resolve_settings(STUDY, "smoke", {"rows": 100, "steps": 2, "shown": 1000}))
    chosen = [c for c in made if c.spec["objective"] == AUTOENCODE]
    rows = [r for c in chosen for r in measure_cell(c.spec, str(tmp_path), Silent())]
    found = {
        (r.factors["variant"], r.factors["family"]) for r in rows if r.metric == "rank_agreement"
    }
    assert found == {
        (v, f) for v in ("trained", "untrained") for f in ("detectors", "dictionaries")
    }
    assert not [r for r in rows if r.metric == "cell"]
    assert Recipe.model_validate(chosen[0].spec["recipe"]).phases[0].steps == 2


def told(agreement, gain):
    """Rows of five seeds in which ranks agree so much, and images come so much nearer."""
    rows = []
    for seed in range(10, 15):
        jitter = 0.01 * (seed - 12)
        for objective in OBJECTIVES:
            for modality in MODALITIES:
                factors = {"modality": modality, "objective": objective, "seed": seed}
                value = 0.4 + jitter + (gain if modality == IMAGES else 0)
                grown = {**factors, "size": BASE, "variant": "trained"}
                rows.append(measured("share_of_oracle", value, unit="", n=1, **grown))
                size = 100.0 if modality == TEXT else 10.0
                rows.append(measured("parameters", size, unit="", n=1, **grown))
            for family in ("dictionaries", "detectors"):
                for variant, value in (("trained", agreement), ("untrained", 0.0)):
                    levels = {"objective": objective, "family": family, "variant": variant}
                    made = measured(
                        "rank_agreement", value + jitter, unit="", n=9, seed=seed, **levels
                    )
                    rows.append(made)
    return rows


@pytest.mark.parametrize(("sign", "standing"), [(1, "supported"), (-1, "contradicted")])
def test_verdicts_follow_the_rows(sign, standing):
    verdicts = {v.hypothesis: v.verdict for v in judge(HYPOTHESES, told(0.7 * sign, 0.15 * sign))}
    assert verdicts["dictionaries-carry-over"] == standing
    assert verdicts["images-come-nearer"] == standing
    assert verdicts["easier-in-images"] == "undecided"  # it was not measured


def test_what_did_not_arise_is_uninformative():
    rows = told(0.7, -0.35)
    verdicts = {v.hypothesis: v.verdict for v in judge(HYPOTHESES, rows)}
    assert verdicts["dictionaries-carry-over"] == "uninformative"


def test_choosing_in_the_other_modality_loses_what_it_loses():
    scores = {TEXT: {"pca": 0.9, "ica": 0.8, "nmf": 0.5}, IMAGES: {"pca": 0.6, "ica": 0.7}}
    rows = [
        measured(
            "instrument_auroc",
            value,
            unit="",
            n=1,
            objective=CLASSIFY,
            modality=modality,
            instrument=name,
            family="dictionaries",
            variant="trained",
            seed=seed,
        )
        for modality, members in scores.items()
        for name, value in members.items()
        for seed in (0, 1)
    ]
    (figure,) = [f for f in STUDY.figures(rows) if f.name == "choosing"]
    found = {(r["label"].split(", ")[1], r["group"]): r["value"] for r in figure.data}
    assert found["chosen on images", "chosen in the other modality"] == 0.8  # ica, though pca is
    assert found["chosen on images", "best there"] == 0.9
    assert found["chosen on text", "chosen in the other modality"] == 0.6
    assert found["chosen on text", "best there"] == 0.7
    # nmf, which images lack, is in neither mean
    assert found["chosen on images", "mean of the family"] == pytest.approx(0.85)
    assert "loses 0.100 of AUROC on average, most for" in figure.title
