from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from terrarium.errors import InputError
from terrarium.evidence.hypotheses import judge
from terrarium.evidence.rows import measured
from terrarium.instruments.effects import exact_effects
from terrarium.instruments.frobnoloids.scoring import Scoring
from terrarium.instruments.frobnoloids.students import QuickStudent, Student
from terrarium.instruments.site_features import units
from terrarium.organisms.build import build
from terrarium.progress import Silent
from terrarium.studies.frobnoloids import STUDY, cells
from terrarium.studies.frobnoloids.circuits import _judged
from terrarium.studies.frobnoloids.controls import bars, control_rows
from terrarium.studies.frobnoloids.figures import figures
from terrarium.studies.frobnoloids.hypotheses import HYPOTHESES
from terrarium.studies.frobnoloids.measure import measure_cell, share_of_rows
from terrarium.studies.frobnoloids.networks import (
    activations,
    examples,
    quantity,
    untrained,
)
from terrarium.studies.frobnoloids.organisms import (
    AUTOENCODE,
    CLASSIFY,
    DENOISE,
    IMAGES,
    KINDS,
    SITES,
    TEXT,
    Budget,
    recipe,
)
from terrarium.studies.frobnoloids.shown import HELD_OUT, pooled, retina, shown, world_of
from terrarium.studies.settings import resolve_settings

BUDGET = Budget(8, 4, 16, 1, 1, 4)
QUICK = Scoring(
    points=600, draws=5, knots=3, student=Student(hidden=24), neighbour=QuickStudent(hidden=8)
)


def test_pooling_is_the_mean_over_a_place_and_the_retina_keeps_outlines():
    maps = np.arange(2 * 8 * 8, dtype=float).reshape(2, 8, 8)
    assert pooled(maps)[1, 1, 0] == pytest.approx(maps[1, 4:8, :4].mean())
    images = np.zeros((1, 3, 8, 8))
    images[:, :, :, :2] = 1.0  # the left half of the left places
    seen = retina(images)
    assert seen.shape == (1, 7, 2, 2)
    assert np.allclose(seen[0, :3, :, 0], 0.5)
    assert np.allclose(seen[0, 3:, 0, 0], [0.5, -0.5, 0.5, -0.5])
    assert np.allclose(seen[0, 3:, 0, 1], 0)


def test_concepts_fit_what_is_read_and_the_same_images_are_shown_to_all():
    clean, noisy = (shown((IMAGES, objective), 8, 6, 0) for objective in (CLASSIFY, DENOISE))
    assert np.array_equal(clean.batch.inputs, noisy.batch.inputs)
    assert 0.1 < np.std(noisy.inputs - clean.inputs) < 0.3
    assert set(clean.held_out) == set(HELD_OUT)
    assert not set(clean.reduced) & set(HELD_OUT)
    assert all(np.shape(x)[:3] == (6, 2, 2) for x in clean.concepts.values())
    texts = shown((TEXT, CLASSIFY), 8, 6, 0)
    rows = 6 * texts.positions.shape[1]
    assert len(texts.student) == len(texts.groups) == rows
    assert all(len(x) == rows for x in texts.concepts.values())
    said = texts.concepts["number said"].reshape(6, -1)
    first = world_of(TEXT, 8).texts(texts.batch)[0].split(": ")[1].split("/")[0]
    assert said[0][said[0] >= 0][0] == float(first)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_at_places_that_concepts_have(kind):
    model = recipe(kind, BUDGET).model
    world = world_of(kind[0], 8)
    if kind[0] == TEXT:
        model = model.model_copy(
            update={"vocabulary": int(world.sample(200, np.random.default_rng(0)).inputs.max()) + 9}
        )
        model = model.model_copy(update={"context": 64}) if hasattr(model, "context") else model
    network = build(model, [("organism", 0)]).eval()
    seen = shown(kind, 8, 6, 0)
    given = examples(kind, seen.batch, "shown", 0)
    assert np.array_equal(given.inputs, seen.inputs[:, : given.inputs.shape[1]])
    x = activations(network, given, SITES[kind][1])
    expected = (6, 2, 2) if kind[0] == IMAGES else seen.positions.shape
    assert x.shape[:-1] == expected
    with torch.no_grad():
        out = network(torch.from_numpy(given.inputs)[None])[0].double().numpy()
    loss = quantity(kind, seen.batch)(out)
    assert len(loss) == 6
    if kind[1] == CLASSIFY:  # by scratch
        at = 0 if kind[0] == IMAGES else int(seen.batch.spans["answer"][0, 0])
        logits = out[0] if kind[0] == IMAGES else out[0, at - 1]
        right = seen.batch.facts["label"] if kind[0] == IMAGES else seen.batch.inputs[:, at]
        p = np.exp(logits - logits.max())
        assert loss[0] == pytest.approx(-np.log(p[right[0]] / p.sum()))


def test_a_random_denoiser_uses_what_is_inside():
    model = recipe((IMAGES, DENOISE), BUDGET).model
    network = untrained(SimpleNamespace(model=model, seed=0))
    seen = shown((IMAGES, DENOISE), 8, 4, 0)
    given = examples((IMAGES, DENOISE), seen.batch, "shown", 0)
    effects = exact_effects(
        network, given.inputs, "act[1]", units(8, [0, 1]), quantity((IMAGES, DENOISE), seen.batch)
    )
    assert np.abs(effects.change).max(-1).min() > 0
    assert not torch.equal(
        network.member_state(0)["head.kernel"],
        untrained(SimpleNamespace(model=model, seed=1)).member_state(0)["head.kernel"],
    )


@pytest.mark.parametrize("kind", [(IMAGES, AUTOENCODE), (TEXT, AUTOENCODE)])
def test_planted_unnamed_features_are_found_and_named_ones_are_not(kind):
    seen = shown(kind, 16, 60, 0)
    thresholds = bars(seen, QUICK, 8, 0)
    rows = control_rows(seen, QUICK, thresholds, 8, 0.2, 0)
    found = {r.factors.get("plant", "auroc"): r.value for r in rows}
    assert found["auroc"] >= 0.9
    assert found["unnamed and important"] > 0.5
    assert found["named"] <= 0.25
    assert found["noise"] == 0.0


def test_circuits_are_judged_on_the_variance_they_keep():
    a = np.random.default_rng(0).normal(size=(400, 6))
    w = np.array([2.0, 0, 1.0, 0, 0, 0.1])
    found = _judged(lambda m: m.astype(float) @ (a * w).T, (0, 2), w**2, ("t",))
    assert found["circuit"] == pytest.approx(1 - 0.01 / 5.01, abs=2e-3)
    assert found["random"] < found["circuit"]


def test_shares_count_features():
    import pandas as pd

    frame = pd.DataFrame(
        {
            "structure": [0.9, 0.9, 0.1, 0.9],
            "structure_p": [0.01, 0.01, 0.01, 0.2],
            "importance_sd": [5.0, 1.0, 5.0, 5.0],
            "importance_p": [0.01] * 4,
            "nameless_p": [0.01, 0.01, 0.9, 0.01],
            "nameability": [0.3, 0.3, 0.9, 0.3],
            "frobnoloid": [True, False, False, False],
        }
    )
    bar = SimpleNamespace(structure=0.5, importance=2.0)
    found = {r.factors.get("score"): r for r in share_of_rows(frame, bar)}
    values = {name: r.value for name, r in found.items()}
    assert values["structure"] == 0.5
    assert values["importance"] == 0.75
    assert values["nameless"] == 0.75
    assert values["frobnoloid"] == values["half"] == 0.25
    assert found["frobnoloid"].interval.low < 0.25 < found["frobnoloid"].interval.high


def test_cells_hold_five_initialisations():
    made = cells(resolve_settings(STUDY, "quick", {"guests": []}))
    assert len(made) == len(KINDS) * 6
    assert {cell.spec["seed"] for cell in made if cell.needs} == {30, 31, 32, 33, 34}
    for cell in made:
        json.dumps(cell.spec)
        assert len(set(cell.spec["seeds"])) == 5
        if cell.needs:
            assert cell.spec["seeds"][0] == cell.spec["seed"]
    few = cells(resolve_settings(STUDY, "smoke", {}))
    assert all(len(set(cell.spec["seeds"])) == 5 for cell in few)
    with pytest.raises(InputError, match="draws"):
        cells(resolve_settings(STUDY, "smoke", {"draws": 1}))


def test_one_cell_gives_every_figure(tmp_path):
    tiny = {"steps": 2, "examples": 24, "fitted": 24, "points": 300, "plants": 4, "shown": 1000}
    made = cells(resolve_settings(STUDY, "smoke", tiny))
    chosen = [c for c in made if c.spec["objective"] == AUTOENCODE and IMAGES in c.name]
    rows = [r for c in chosen for r in measure_cell(c.spec, str(tmp_path), Silent())]
    assert {r.factors["variant"] for r in rows if r.metric == "share"} == {"trained", "random"}
    names = {figure.name for figure in figures(rows)}
    assert names >= {"plane", "fractions", "scores", "gallery-autoencode", "controls"}


def told(more, random=0.0):
    """Rows of five seeds in which images and those who make them have so many more."""
    rows = []
    for seed in range(10, 15):
        for modality, objective in KINDS:
            factors = {"modality": modality, "objective": objective, "seed": seed}
            value = 0.3 + 0.01 * (seed - 12) + more * (modality == IMAGES)
            value += more * (objective != CLASSIFY)
            rows.append(measured("share_of_oracle", 0.9, unit="", n=1, **factors))
            levels = {**factors, "variant": "trained", "score": "frobnoloid"}
            rows.append(measured("share", value, unit="", n=32, **levels))
            rows.append(measured("any", random, unit="", n=32, variant="random", **factors))
            if objective == AUTOENCODE and modality == TEXT:
                for circuit, kept in (("circuit", 0.5 + more), ("random", 0.4)):
                    levels = {"frobnoloid": True, "variant": "trained", "circuit": circuit}
                    value = kept + 0.01 * (seed - 12) * (circuit == "circuit")
                    rows.append(measured("faithfulness", value, unit="", n=9, **levels, **factors))
    return rows


@pytest.mark.parametrize(("sign", "standing"), [(1, "supported"), (-1, "contradicted")])
def test_verdicts_follow_the_rows(sign, standing):
    rows = told(0.1 * sign, 0.0 if sign > 0 else 0.5)
    verdicts = {v.hypothesis: v.verdict for v in judge(HYPOTHESES, rows)}
    assert verdicts["making-images-needs-the-nameless"] == standing
    assert verdicts["images-are-less-named"] == standing
    assert verdicts["random-networks-have-none"] == standing
    assert verdicts["circuits-are-faithful-text"] == standing
    assert verdicts["circuits-are-faithful-images"] == "undecided"  # there were none
