from __future__ import annotations

import numpy as np
import pytest
import torch

from terrarium.errors import InputError
from terrarium.evidence.hypotheses import judge
from terrarium.evidence.rows import measured
from terrarium.instruments.frobnoloids.circuit import Circuit
from terrarium.instruments.frobnoloids.nameability import nameability
from terrarium.organisms.build import build
from terrarium.organisms.coordinate import coordinates_of
from terrarium.progress import Silent
from terrarium.studies.frobnoloids import GUESTS, STUDY, cells
from terrarium.studies.frobnoloids.checks import checks
from terrarium.studies.frobnoloids.circuits import member_rows
from terrarium.studies.frobnoloids.controls import planted
from terrarium.studies.frobnoloids.figures import figures
from terrarium.studies.frobnoloids.hypotheses import HYPOTHESES
from terrarium.studies.frobnoloids.networks import Examples, activations, quantity
from terrarium.studies.frobnoloids.organisms import (
    COORDINATES,
    IMAGES,
    KINDS,
    POINTS,
    QUIRKY,
    Budget,
    recipe,
)
from terrarium.studies.frobnoloids.points import (
    HELD_OUT_POINTS,
    centred,
    frequencies_of,
    points_shown,
    waves,
)
from terrarium.studies.frobnoloids.shown import tokens_of, world_of
from terrarium.studies.frobnoloids.subjects import seen_by
from terrarium.studies.scene.networks import FOURIER, HASH, SIREN
from terrarium.studies.settings import resolve_settings

BUDGET = Budget(8, 4, 16, 1, 1, 4, truth_steps=1, quirk_steps=1, point_steps=1, pool=200)


def network_of(objective):
    model = recipe((POINTS, objective), BUDGET).model
    return build(coordinates_of(model, world_of(POINTS, 8)), [("organism", 0)]).eval()


def test_labels_are_told_from_where_they_are_known():
    seen = seen_by({"side": 8, "examples": 60}, QUIRKY, 0)
    n, p = seen.lead
    batch, facts = seen.batch, seen.batch.facts
    truth = seen.concepts["truth"].reshape(n, p)
    claimed = batch.spans["claim"][:, 1] - 1
    for row in range(n):
        assert (truth[row, : claimed[row]] == -1).all()
        assert (truth[row, claimed[row] :] == int(facts["truth"][row])).all()
    said = seen.concepts["said, at the end"].reshape(n, p)
    assert (said[:, :-1] == -1).all()
    assert np.array_equal(said[:, -1] == 1, facts["said"])
    digit = seen.concepts["last digit of claim, at the end"].reshape(n, p)[:, -1]
    assert np.array_equal(digit, facts["claim"] % 10)
    # the answer is never among what is read, and all that repeats a held-out label is held out
    assert seen.positions.max() < batch.spans["answer"].min()
    assert {"claim", "quirky", "name", "second last digit of claim"} <= set(seen.held_out)
    assert not any("claim" in name and "digit" in name for name in seen.reduced)
    assert all(len(x) == n * p for x in seen.concepts.values())
    assert len(seen.student) == n * p == len(seen.groups)


def test_students_of_arithmetic_see_no_word_that_is_still_to_come():
    seen = seen_by({"side": 8, "examples": 40}, QUIRKY, 0)
    n, p = seen.lead
    student = seen.student.reshape(n, p, -1)
    first = np.unique(np.concatenate([student[:, 0], seen.batch.inputs[:, :1]], 1), axis=0)
    assert len(first) == len(np.unique(seen.batch.inputs[:, 0]))
    last = np.unique(student[:, -1], axis=0)
    assert len(last) == len(np.unique(seen.batch.inputs[:, :p], axis=0))
    assert len(tokens_of(world_of(QUIRKY[0], 8))) > 20


def test_points_lie_at_the_same_places_of_every_block_and_know_the_scene():
    made = world_of(POINTS, 8)
    seen = points_shown(made, 4, 5, 0)
    assert seen.lead == (64, 5)
    x = (centred(seen.inputs.astype(np.float64), made.box) + 1) / 2 * 4
    inside = (x % 1).reshape(64, 5, 3)
    assert np.allclose(inside, inside[:1], atol=1e-5)
    assert len(np.unique(np.floor(x).reshape(64, 5, 3)[:, 0], axis=0)) == 64
    assert np.allclose(seen.concepts["distance"], seen.batch.targets[:, 0], atol=1e-6)
    assert np.allclose(np.linalg.norm(seen.concepts["normals"], axis=1), 1, atol=1e-6)
    assert set(seen.held_out) == set(HELD_OUT_POINTS)
    assert not set(HELD_OUT_POINTS) & set(seen.reduced)
    assert all(np.isfinite(np.asarray(v, float)).all() for v in seen.concepts.values())


@pytest.mark.parametrize("objective", [SIREN, FOURIER])
def test_a_networks_first_waves_are_named_exactly(objective):
    """What enters the first layer is a harmonic: names find it, and do not without frequencies."""
    made, network = world_of(POINTS, 8), network_of(objective)
    seen = points_shown(made, 6, 4, 0)
    site = "mlp.act[0]" if objective == SIREN else "encoding.out"
    units = activations(network, Examples(seen.inputs, None), site)[:, :8].astype(float)
    x = centred(seen.inputs.astype(np.float64), made.box)
    assert frequencies_of(network).shape[0] == 3
    own = waves(network, x)
    assert {name.split()[0] for name in own} == {"harmonic", "beat"}
    named = nameability(units, own, seen.groups, permutations=4).score.value
    assert named.min() > 0.999
    # with axes exchanged the same waves are others, and leave ten times as much; those of a SIREN
    # are so low that any 64 of their kind come near
    other = nameability(units, waves(network, x[:, [1, 2, 0]]), seen.groups, permutations=4)
    assert (1 - other.score.value).mean() > 10 * (1 - named).mean()


def test_the_phases_of_a_grid_are_those_of_its_cells():
    found = waves(network_of(HASH), np.array([[-1.0, 0.0, 1.0], [-0.5, 0.0, 0.5]]))
    name = "grid phase, 4 cells a side"
    assert name in found
    assert np.allclose(found[name][0], found[name][1], atol=1e-9)  # a cell is half a side wide
    assert found[name].shape == (2, 6)


def test_plants_are_made_for_every_guest():
    for kind in (QUIRKY, COORDINATES[0]):
        seen = seen_by({"side": 8, "examples": 30, "blocks": 4, "block_points": 4}, kind, 0)
        plants = planted(seen, 4, ("t",))
        assert plants.features.shape == (*seen.lead, 1, 12)
        assert np.isfinite(plants.features).all()
        assert plants.features.reshape(-1, 12).std(0).min() > 0.5


def test_errors_of_points_are_distances():
    seen = points_shown(world_of(POINTS, 8), 3, 3, 0)
    judged = quantity(COORDINATES[0], seen.batch)
    assert np.allclose(judged(seen.batch.targets), 0)
    assert np.allclose(judged(seen.batch.targets + 0.25), 0.25)


def test_members_of_circuits_are_told_with_their_weights():
    circuit = Circuit((4, 1), (0.5, 0.9), np.array([0, 0.3, 0, 0, 0.6]), np.zeros(3))
    rows = member_rows(circuit, np.arange(5.0))
    assert [r.factors["member"] for r in rows] == ["unit 4", "unit 1"]
    assert [r.value for r in rows] == [0.6, 0.3]
    assert [r.factors["reached"] for r in rows] == [0.5, 0.9]
    assert [r.factors["weight"] for r in rows] == [4.0, 1.0]
    assert all(r.factors["weight"] is None for r in member_rows(circuit, None))


def test_guests_are_cells_of_their_own():
    settings = resolve_settings(STUDY, "quick", {})
    made = cells(settings)
    kinds = {(c.spec["modality"], c.spec["objective"]) for c in made}
    assert kinds == {*KINDS, *(GUESTS[name] for name in settings["guests"])}
    full = cells(resolve_settings(STUDY, "full", {}))
    assert {(c.spec["modality"], c.spec["objective"]) for c in full} == {*KINDS, *GUESTS.values()}
    alone = cells(resolve_settings(STUDY, "quick", {"guests": []}))
    assert {c.spec["modality"] for c in alone} == {IMAGES, "text"}
    with pytest.raises(InputError, match="did you mean 'SIREN'"):
        cells(resolve_settings(STUDY, "smoke", {"guests": ["SIRENS"]}))


@pytest.mark.parametrize("guest", ["arithmetic", SIREN])
def test_one_cell_of_a_guest_gives_its_figures(tmp_path, guest):
    torch.set_num_threads(1)
    tiny = {"guests": [guest], "examples": 24, "fitted": 24, "points": 300, "plants": 6}
    tiny |= {"shown": 1000, "point_steps": 3, "truth_steps": 1, "quirk_steps": 1, "features": 4}
    kind = GUESTS[guest]
    made = cells(resolve_settings(STUDY, "smoke", tiny))
    chosen = [c for c in made if (c.spec["modality"], c.spec["objective"]) == kind]
    rows = [r for c in chosen for r in STUDY.measure(c, str(tmp_path), Silent())]
    assert not [r.reason for r in rows if r.status == "failed"]
    assert {r.factors["variant"] for r in rows if r.metric == "share"} == {"trained", "random"}
    members = [r for r in rows if r.metric == "circuit_member"]
    assert members
    assert all(isinstance(r.factors["weight"], float) for r in members)
    names = {figure.name for figure in figures(rows)}
    assert names >= {"plane", "fractions", "controls", "circuit-members"}
    assert ("frequencies" in names) == (kind[0] == POINTS) == ("gallery-SIREN" in names)
    assert any(check.name.endswith(f"{kind[1]} {kind[0]}") for check in checks(rows))


def told(more):
    """Rows of five seeds in which images have so many more than the guests have."""
    rows = []
    for seed in range(20, 25):
        for modality, objective in (*KINDS, QUIRKY, *COORDINATES):
            factors = {"modality": modality, "objective": objective, "seed": seed}
            value = 0.3 + 0.01 * (seed - 22) + more * (modality == IMAGES)
            rows.append(measured("share_of_oracle", 0.95, unit="", n=1, **factors))
            levels = {**factors, "variant": "trained"}
            rows.append(measured("share", value, unit="", n=32, score="frobnoloid", **levels))
            gain = 3 / 64 + more + 0.002 * (seed - 22)
            rows.append(measured("named_gain", gain, unit="", n=32, **levels))
    return rows


@pytest.mark.parametrize(("more", "standing"), [(0.1, "supported"), (-0.1, "contradicted")])
def test_verdicts_on_guests_follow_the_rows(more, standing):
    verdicts = {v.hypothesis: v.verdict for v in judge(HYPOTHESES, told(more))}
    for name in ("arithmetic-is-more-named", "scenes-are-more-named", "frequencies-name-sirens"):
        assert verdicts[name] == standing
