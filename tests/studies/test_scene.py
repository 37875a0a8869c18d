"""`scene` against arithmetic: planted maps, planted units, exact sums, planted verdicts."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from terrarium.errors import InputError
from terrarium.evidence.hypotheses import Verdict, judge
from terrarium.evidence.rows import Row, measured
from terrarium.organisms.coordinate import Coordinate
from terrarium.organisms.lineage import make_world
from terrarium.organisms.recipe import CoordinateModel
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.studies.base import Study, studies
from terrarium.studies.runner import StudyResult, plan, run_study
from terrarium.studies.scene.features import LayerDictionary
from terrarium.studies.scene.hypotheses import HYPOTHESES
from terrarium.studies.scene.layers import points_of
from terrarium.studies.scene.loaded import world_of
from terrarium.studies.scene.measure import FEWEST, Subject, _curvature_rows, polynomial
from terrarium.studies.scene.networks import GATE, GROWN, LOADED, Plan
from terrarium.studies.scene.pictures import diverging, plane, squared
from terrarium.studies.scene.removals import (
    AS_FEATURE,
    FEATURE,
    MATCHED,
    TURNED,
    UNIT,
    changes,
    cost,
    footprint,
    interaction,
    joint_change,
    part_shares,
    says,
    selectivity,
    site_mean,
    size,
    slabs,
    turned_features,
    unit_features,
)
from terrarium.studies.site_dictionaries import Fit
from terrarium.worlds.scenes.world import Scenes

STUDY: Study = studies.get("scene")
TINY = {"steps": 5, "batch": 32, "rows": 200, "points": 40, "effect_points": 16, "side": 6}
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
    assert {row.factors["network"] for row in result.rows} == set(GROWN)
    assert {row.metric for row in result.rows} == {
        "parameters", "error", "right", "worst_error", "removed", "part_error", "curvature_error",
        "curvature_rank", "cost", "size", "size_share", "footprint", "log_footprint",
        "selectivity", "dead", "cost_ratio", "largest_ratio", "locality", "interaction",
        "joint_cost", "unit_cost", "depth_locality", "slice", "picture",
        "live",
    }  # fmt: skip


def test_every_figure_check_and_card_is_there(result: StudyResult) -> None:
    names = [figure.name for figure in STUDY.figures(result.rows)]
    assert len(names) == len(set(names)) == 11 + len(GROWN)
    assert all(figure.data for figure in STUDY.figures(result.rows))
    assert len(STUDY.cards(result.rows)) == len(GROWN)
    assert len(STUDY.checks(result.rows)) == 3 * len(GROWN) + 3
    assert {v.hypothesis for v in judge(HYPOTHESES, result.rows)} == {h.name for h in HYPOTHESES}


def test_no_rows_no_figures() -> None:
    assert list(STUDY.figures([])) == []
    assert list(STUDY.cards([])) == []


def test_networks_have_about_as_many_parameters() -> None:
    sizes = [
        Coordinate(Plan(1, 1, 100).recipe(network, "distance").model, [("size", 0)])
        .parameters_per_member
        for network in GROWN
    ]  # fmt: skip
    assert max(sizes) - min(sizes) < 0.1 * min(sizes)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": 0}, "'steps' expects at least 1"),
        ({"network": "somewhere"}, "name it, too, as scene=PATH"),
        ({"scene": "nowhere.yaml"}, "nowhere.yaml cannot be read"),
    ],
)
def test_impossible_settings_get_one_sentence(
    change: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        plan(STUDY, "smoke", change, Store(tmp_path))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


PATCH = "v 0 0 0\nv 1 0 0\nv 0 1 0.5\n"


@pytest.mark.parametrize(
    ("mesh", "change", "told"),
    [
        (PATCH.replace("0.5", "nan") + "f 1 2 3\n", {}, "coordinates are NaN or infinite"),
        (PATCH, {}, "holds 3 points and no faces"),
        (PATCH + "f 1 2 3\n", {"colour": True}, "to learn its colour, or set colour=no."),
    ],
)
def test_faults_of_a_mesh_are_seen_before_anything_runs(
    mesh: str, change: dict[str, Any], told: str, tmp_path: Path
) -> None:
    pytest.importorskip("trimesh")
    pytest.importorskip("igl")
    (tmp_path / "patch.obj").write_text(mesh, encoding="utf-8")
    with pytest.raises(InputError) as error:
        plan(STUDY, "smoke", {"scene": str(tmp_path / "patch.obj"), **change}, Store(tmp_path))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_network_that_is_none_of_a_scene_is_seen_before_anything_runs(tmp_path: Path) -> None:
    spec = CoordinateModel(inputs=2, outputs=1, layers=1, width=2, encoding="none")
    Coordinate(spec, [("made", 0)]).save(0, tmp_path / "network")
    (tmp_path / "ball.yaml").write_text("shape: {kind: sphere, radius: 1.5}\n", encoding="utf-8")
    told = {"network": str(tmp_path / "network"), "scene": str(tmp_path / "ball.yaml")}
    with pytest.raises(InputError, match="takes 2 coordinates"):
        plan(STUDY, "smoke", told, Store(tmp_path))


def test_too_few_curvatures_are_undefined_and_enough_are_not() -> None:
    curvature, error = np.arange(40.0), np.arange(40.0)[::-1] ** 2
    rows = _curvature_rows(curvature, error, generator("curvature"))
    assert {row.status for row in rows} == {"ok"}
    ranks = {r.factors["order"]: r.value for r in rows if r.metric == "curvature_rank"}
    assert ranks["as it is"] == pytest.approx(-1.0)
    assert sum(row.n for row in rows if row.metric == "curvature_error") == 40
    for n in (0, FEWEST - 1):
        rows = _curvature_rows(curvature[:n], error[:n], generator("curvature"))
        assert {row.metric for row in rows} == {"curvature_error", "curvature_rank"}
        assert {(row.status, row.reason) for row in rows} == {
            ("undefined", f"{n} of the surface's points have a curvature, and 10 are needed")
        }


def test_a_mesh_without_curvature_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    pytest.importorskip("igl")
    (tmp_path / "patch.obj").write_text(PATCH + "f 1 2 3\n", encoding="utf-8")
    spec = CoordinateModel(inputs=3, outputs=1, layers=2, width=6, encoding="none")
    Coordinate(spec, [("made", 0)]).save(0, tmp_path / "network")
    told = {**TINY, "network": str(tmp_path / "network"), "scene": str(tmp_path / "patch.obj")}
    made = run_study(STUDY, "smoke", told, Store(tmp_path / "store"), workers=0)
    assert made.failures == []
    ranks = {r.status for r in made.rows if r.metric.startswith("curvature")}
    assert ranks == {"undefined"}
    assert STUDY.figures(made.rows)


def test_a_network_and_a_scene_from_files_go_the_same_way(tmp_path: Path) -> None:
    spec = CoordinateModel(inputs=3, outputs=1, layers=2, width=6, encoding="none")
    Coordinate(spec, [("made", 0)]).save(0, tmp_path / "network")
    (tmp_path / "ball.yaml").write_text("shape: {kind: sphere, radius: 1.5}\n", encoding="utf-8")
    told = {**TINY, "network": str(tmp_path / "network"), "scene": str(tmp_path / "ball.yaml")}
    made = run_study(STUDY, "smoke", told, Store(tmp_path / "store"), workers=0)
    assert made.failures == []
    assert {row.factors["network"] for row in made.rows} == {LOADED}
    assert {row.factors["scene"] for row in made.rows} == {"ball"}
    parts = [r for r in made.rows if r.metric == "selectivity" and r.factors["layer"] == 1]
    assert {(r.status, r.reason) for r in parts} == {
        ("undefined", "the scene has one part, or every unit is dead")
    }
    # a ball's mean curvature is the same everywhere, and no rank is made up for it
    ranks = [r for r in made.rows if r.metric == "curvature_rank"]
    assert {(r.status, r.reason) for r in ranks} == {
        ("undefined", "the curvature is the same everywhere")
    }
    assert STUDY.figures(made.rows)


def test_a_distance_made_elsewhere_is_right_in_the_scenes_own_units(tmp_path: Path) -> None:
    spec = CoordinateModel(inputs=3, outputs=1, layers=1, width=2, encoding="none")
    network = Coordinate(spec, [("made", 0)])
    state = network.member_state(0)
    state["layers.0.weight"] = torch.tensor([[1.0, -1.0], [0, 0], [0, 0]])
    state["layers.0.bias"] = torch.zeros(2)
    state["head.weight"] = torch.tensor([[1.0], [1.0]])  # |x|
    state["head.bias"] = torch.tensor([-3.0])
    network.load_member_state(0, state)
    network.save(0, tmp_path / "network")
    # a wall 6 thick: |x| - 3 is its distance but beyond its far edges
    (tmp_path / "wall.yaml").write_text(
        "shape: {kind: box, half: [3, 500, 500]}\n", encoding="utf-8"
    )
    told = {**TINY, "points": 400, "network": str(tmp_path / "network"),
            "scene": str(tmp_path / "wall.yaml")}  # fmt: skip
    made = run_study(STUDY, "smoke", told, Store(tmp_path / "store"), workers=0)
    assert made.failures == []
    found = {(r.metric, r.factors.get("region")): r.value for r in made.rows}
    # beyond the far edges lies the margin, a sixth of the box
    assert 0.75 < found["right", "volume"] < 0.95
    assert found["right", "near"] > 0.9
    (on,) = [r.value for r in made.rows if r.metric == "part_error"]
    assert on is not None
    # the diagonal is 1,414: the sides at the far ends are 3 of it wrong, and hardly any of the area
    assert 0 <= on < 0.01


# What is said of maps


def test_footprints_of_known_maps() -> None:
    change = np.zeros((3, 100, 1))
    change[0] = -2.0
    change[1, :25] = 5.0
    change[2, 7] = 1.0
    np.testing.assert_allclose(footprint(change), [1.0, 0.25, 0.01])
    assert np.isnan(footprint(np.zeros((1, 10, 1)))[0])


def test_costs_and_sizes_of_known_changes() -> None:
    error = np.array([[1.0], [-1.0]])
    change = np.array([[[1.0], [-1.0]], [[-2.0], [0.0]], [[-1.0], [0.5]]])
    np.testing.assert_allclose(cost(change, error), [1.0, 0.0, -0.75])
    np.testing.assert_allclose(size(change), [1.0, np.sqrt(2), np.sqrt(0.625)])


def test_selectivity_of_known_changes() -> None:
    parts = np.array([0] * 50 + [1] * 30 + [2] * 20)
    even = np.bincount(parts) / 100
    change = np.zeros((3, 100, 1))
    change[0] = 1.0
    change[1, parts == 2] = -3.0
    change[2, parts != 0] = 1.0
    found = selectivity(part_shares(change, parts, 3), even)
    np.testing.assert_allclose(found, [0.0, 0.8, 0.5], atol=1e-12)


def test_slabs_have_the_sizes_of_parts_and_lie_in_order() -> None:
    points = generator("slabs").standard_normal((1000, 3))
    even = np.array([0.5, 0.3, 0.2])
    cut = slabs(points, even, np.random.default_rng(3))
    np.testing.assert_allclose(np.bincount(cut) / 1000, even, atol=1e-3)
    direction = np.random.default_rng(3).standard_normal(3)
    along = points @ direction
    ranges = sorted((along[cut == p].min(), along[cut == p].max()) for p in range(3))
    assert ranges[0][1] < ranges[1][0]
    assert ranges[1][1] < ranges[2][0]


def test_interaction_of_known_changes() -> None:
    singles = generator("singles").standard_normal((4, 50, 1))
    assert interaction(singles.sum(axis=0), singles) == 0
    assert interaction(2 * singles.sum(axis=0), singles) == pytest.approx(0.5)


def test_polynomials_are_exact_where_the_truth_is_one() -> None:
    x = generator("polynomial").standard_normal((200, 3))
    y = (1 + x[:, 0] - 2 * x[:, 1] * x[:, 2] + x[:, 2] ** 2)[:, None]
    np.testing.assert_allclose(polynomial(x[:100], y[:100], x[100:], 2), y[100:], atol=1e-9)
    assert np.abs(polynomial(x[:100], y[:100], x[100:], 1) - y[100:]).mean() > 0.5


# What removals do


def small(activation: str = "relu") -> Coordinate:
    spec = CoordinateModel(
        inputs=3, outputs=2, layers=2, width=7, encoding="none", activation=activation,  # type: ignore[arg-type]
        omega_first=3.0, omega_hidden=2.0,
    )  # fmt: skip
    return Coordinate(spec, [("small", 1)])


POINTS = generator("points").uniform(-1, 1, (60, 3)).astype(np.float32)


@pytest.mark.parametrize("activation", ["relu", "sine"])
def test_changes_are_those_of_a_network_worked_out_by_hand(activation: str) -> None:
    network = small(activation)
    state = {k: v.double().numpy() for k, v in network.member_state(0).items()}

    def layer(i: int, x: np.ndarray, omega: float) -> np.ndarray:
        z = x @ state[f"layers.{i}.weight"] + state[f"layers.{i}.bias"]
        return np.maximum(z, 0) if activation == "relu" else np.sin(omega * z)

    def rest(hidden: np.ndarray) -> np.ndarray:
        return layer(1, hidden, 2.0) @ state["head.weight"] + state["head.bias"]

    hidden = layer(0, POINTS.astype(np.float64), 3.0)
    mean = site_mean(network, POINTS, "mlp.act[0]")
    np.testing.assert_allclose(mean, hidden.mean(axis=0), atol=1e-6)
    own, matched = changes(network, POINTS, "mlp.act[0]", unit_features(mean), 2, 3, "k")
    for j in range(7):
        without = hidden.copy()
        without[:, j] = mean[j]
        np.testing.assert_allclose(own[j], rest(without) - rest(hidden), atol=2e-5)
    assert matched.shape == (7, 3, 60, 2)
    chosen = np.array([1, 4, 5])
    without = hidden.copy()
    without[:, chosen] = mean[chosen]
    joint = joint_change(network, POINTS, "mlp.act[0]", mean, chosen)
    np.testing.assert_allclose(joint, rest(without) - rest(hidden), atol=2e-5)


def test_the_last_layer_adds_up_and_a_layer_before_does_not() -> None:
    network, missed = small(), []
    for site in ("mlp.act[0]", "mlp.act[1]"):
        mean = site_mean(network, POINTS, site)
        own, _ = changes(network, POINTS, site, unit_features(mean), 2, 0)
        chosen = np.arange(4)
        joint = joint_change(network, POINTS, site, mean, chosen)
        missed.append(interaction(joint, own[chosen]))
    assert missed[0] > 0.05
    assert missed[1] < 1e-5


def test_turned_units_are_a_rotation_and_together_are_the_units() -> None:
    network, site = small(), "mlp.act[1]"
    mean = site_mean(network, POINTS, site)
    features = turned_features(mean, "k")
    np.testing.assert_allclose(features.directions @ features.directions.T, np.eye(7), atol=1e-12)
    turned, _ = changes(network, POINTS, site, features, 2, 0)
    own, _ = changes(network, POINTS, site, unit_features(mean), 2, 0)
    # what follows is linear: all axes out is all units out, whatever the axes
    np.testing.assert_allclose(turned.sum(axis=0), own.sum(axis=0), atol=1e-5)
    assert np.abs(turned - own).max() > 0.01


def test_rotations_are_drawn_evenly() -> None:
    first = np.array([turned_features(np.zeros(3), i).directions for i in range(400)])
    # entries of uniformly drawn rotations have mean 0 and variance 1 / 3
    judge_of = Rotation.random(400, rng=np.random.default_rng(0)).as_matrix()
    for found in (first, judge_of):
        assert np.abs(found.mean(axis=0)).max() < 0.12
        np.testing.assert_allclose(found.var(axis=0), 1 / 3, atol=0.08)


def test_matched_directions_move_as_far_as_the_unit() -> None:
    # one output for each unit of the last layer: the change is the displacement itself
    spec = CoordinateModel(inputs=3, outputs=7, layers=1, width=7, encoding="none")
    network = Coordinate(spec, [("matched", 0)])
    state = network.member_state(0)
    state["head.weight"], state["head.bias"] = torch.eye(7), torch.zeros(7)
    network.load_member_state(0, state)
    mean = site_mean(network, POINTS, "mlp.act[0]")
    own, matched = changes(network, POINTS, "mlp.act[0]", unit_features(mean), 7, 2, "k")
    lengths = np.linalg.norm(own, axis=-1)
    for draw in range(2):
        np.testing.assert_allclose(np.linalg.norm(matched[:, draw], axis=-1), lengths, atol=1e-5)


def planted_subject() -> Subject:
    """A network of three layers that was not trained, and the scene by default."""
    spec = CoordinateModel(inputs=3, outputs=1, layers=3, width=9, encoding="none")
    world = make_world(Plan(1, 1, 100).recipe("ReLU", "distance").phases[0].sources[0]).inner
    points = POINTS[:40]
    return Subject(Coordinate(spec, [("planted", 2)]), None, world, 1, 1.0, points, points)


def test_features_are_those_of_the_middle_layer_and_their_changes_exact() -> None:
    subject = planted_subject()
    found = LayerDictionary(subject, Fit(6, 2, 2000), 0, "key")
    assert (found.site, found.layer) == ("mlp.act[1]", 2)
    at = points_of(subject, 40, ("ball", "box", "torus"), ("key",))
    rows = found.rows(at, [measured("footprint", 0.5, unit="", n=1, kind=UNIT, layer=2)], 2,
                      ("key",))  # fmt: skip
    assert {r.factors["layer"] for r in rows} == {2}
    assert {r.factors["kind"] for r in rows if "kind" in r.factors} == {FEATURE, AS_FEATURE}
    ratios = [r for r in rows if r.metric in ("cost_ratio", "locality")]
    assert {r.factors["part"] for r in ratios} == {"features"}
    state = {k: v.double().numpy() for k, v in subject.network.member_state(0).items()}
    hidden = at.points.astype(np.float64)
    for i in (0, 1):
        weights = state[f"layers.{i}.weight"], state[f"layers.{i}.bias"]
        hidden = np.maximum(hidden @ weights[0] + weights[1], 0)
    coded = found.fitted.encode(hidden.astype(np.float32))

    def rest(x: np.ndarray) -> np.ndarray:
        last = np.maximum(x @ state["layers.2.weight"] + state["layers.2.bias"], 0)
        return last @ state["head.weight"]

    own, matched = found.changes(at.points, found.live.tolist(), 2, "key")
    for place, j in enumerate(found.live):
        without = hidden - coded[:, j, None] * found.fitted.directions[j]
        np.testing.assert_allclose(own[place], rest(without) - rest(hidden), atol=1e-4)
        # where a feature is not active nothing changes, in a matched direction neither
        still = coded[:, j] == 0
        assert np.abs(matched[place][:, still]).max(initial=0) < 1e-5
    np.testing.assert_allclose(found.sizes, size(own))


# Pictures


def test_planes_lie_where_they_are_said_to() -> None:
    box = np.array([[-2.0, -1.0, 0.0], [2.0, 3.0, 2.0]])
    points, across, up = plane(box, 1, 4)
    assert (points[:, 1] == 1.0).all()
    np.testing.assert_allclose(across, [-1.5, -0.5, 0.5, 1.5])
    np.testing.assert_allclose(up, [0.5, 1.5])
    np.testing.assert_allclose(points[1], [-0.5, 1.0, 0.5])
    np.testing.assert_allclose(points[4], [-1.5, 1.0, 1.5])


def test_pictures_are_squares_with_the_image_in_the_middle() -> None:
    made = squared(np.zeros((3, 2, 4)))
    assert made.shape == (3, 4, 4)
    assert (made[:, 1:3] == 0).all()
    assert (made[:, [0, 3]] == 1).all()


def test_colours_run_from_vermillion_to_blue() -> None:
    image = diverging(np.array([[-1.0, 0.0, 1.0, 9.0]]), 1.0) * 255
    want = [(213, 94, 0), (247, 247, 247), (0, 114, 178), (0, 114, 178)]
    np.testing.assert_allclose(image[:, 0].T, want)
    assert np.isfinite(diverging(np.zeros((2, 2)), 0.0)).all()


def test_slices_hold_the_truth(result: StudyResult) -> None:
    (row,) = [
        r for r in result.rows
        if r.metric == "slice" and r.factors["panel"] == "truth" and r.factors["network"] == "ReLU"
    ][1:2]  # fmt: skip
    recipe = Plan(1, 1, 100).recipe("ReLU", "distance")
    world = make_world(recipe.phases[0].sources[0]).inner
    x = np.linspace(row.factors["x_from"], row.factors["x_to"], TINY["side"])
    middle = world.box[:, 1].mean()
    points = np.stack([x, np.full(len(x), middle), np.full(len(x), row.factors["y"])], axis=1)
    want = 100 * world.oracle.distance(points) / world.diagonal
    got = [float(v) for v in str(row.factors["values"]).split()]
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_what_a_network_says_is_its_output() -> None:
    network = small()
    np.testing.assert_allclose(
        says(network, POINTS),
        network(torch.from_numpy(POINTS)[None])[0].detach().numpy(),
        atol=1e-6,
    )


# Verdicts


def rows_of(seed: int, told: dict[str, float], error: float = 0.1) -> list[Row]:
    """What one seed measures, with what the hypotheses ask for as told."""

    def row(metric: str, value: float, **factors: Any) -> Row:
        jitter = 0.001 * (seed - 12)
        return measured(
            metric, value + jitter, unit="", n=1, seed=seed, quantity="distance", **factors
        )

    rows = []
    for place, network in enumerate(GROWN):
        own = {"network": network}
        rows.append(row("worst_error", error, **own))
        for metric in ("cost_ratio", "largest_ratio", "locality"):
            rows.append(row(metric, told[metric], **own, layer="all"))
        rows.append(row("depth_locality", told["depth"], **own))
        rows.append(
            row("log_footprint", -0.5 - told["step"] * place, **own, kind=UNIT, layer="all")
        )
        for kind, partition, value in (
            (UNIT, "parts", 0.3),
            (UNIT, "slabs", 0.3 - told["parts"]),
            (TURNED, "parts", 0.3 - told["turned"]),
            (MATCHED, "parts", 0.3),
        ):
            rows.append(
                row("selectivity", value, **own, kind=kind, partition=partition, layer="all")
            )
        for kind, partition, value in (
            (FEATURE, "parts", 0.4),
            (FEATURE, "slabs", 0.4 - told["features"]),
            (AS_FEATURE, "parts", 0.4 - told["directions"]),
        ):
            own_features = {"kind": kind, "partition": partition, "layer": 2}
            rows.append(row("selectivity", value, **own, **own_features))
        rows.append(row("curvature_rank", told["curvature"], **own, order="as it is"))
        rows.append(row("interaction", told["missed"], **own, layer=1, together="half"))
    return rows


FOR = {"cost_ratio": 0.3, "largest_ratio": 0.3, "locality": 0.3, "depth": 0.3, "step": 0.2,
       "parts": 0.1, "turned": 0.1, "curvature": 0.3, "missed": 0.05,
       "features": 0.1, "directions": 0.1}  # fmt: skip
AGAINST = {"cost_ratio": 0.0, "largest_ratio": 0.0, "locality": 0.0, "depth": 0.0, "step": 0.0,
           "parts": 0.0, "turned": 0.0, "curvature": 0.0, "missed": 0.5,
           "features": 0.0, "directions": 0.0}  # fmt: skip


def verdicts(told: dict[str, float], error: float = 0.1) -> dict[str, Verdict]:
    rows = [row for seed in SEEDS for row in rows_of(seed, told, error)]
    return {v.hypothesis: v for v in judge(HYPOTHESES, rows)}


def test_what_is_planted_is_supported() -> None:
    assert {v.verdict for v in verdicts(FOR).values()} == {"supported"}


def test_the_contrary_is_contradicted() -> None:
    assert {v.verdict for v in verdicts(AGAINST).values()} == {"contradicted"}


def test_features_must_keep_to_parts_more_than_matched_directions() -> None:
    found = verdicts(FOR | {"directions": 0.0})["features-serve-parts"]
    assert found.verdict == "contradicted"


def test_networks_that_did_not_fit_say_nothing() -> None:
    assert {v.verdict for v in verdicts(FOR, 2 * GATE).values()} == {"uninformative"}


def test_an_organism_speaks_in_the_frame_of_the_world_it_was_grown_on(tmp_path: Path) -> None:
    ball = {"kind": "analytic", "shape": {"kind": "sphere", "radius": 1.5}}
    other = {"kind": "analytic", "shape": {"kind": "sphere", "radius": 1.0}}
    grown = {"scene": ball, "normalise": True, "margin": 0.2}

    def told(options: dict[str, Any], world: str = "finite") -> str:
        source: dict[str, Any] = {"world": "scenes", "options": options}
        if world == "finite":
            source = {"world": "finite", "options": {**source, "rows": 100}}
        text = json.dumps({"spec": {"phase": {"sources": [source]}}})
        (tmp_path / "spec.json").write_text(text, encoding="utf-8")
        return str(tmp_path)

    framed = {"scene": ball, "normalise": True, "margin": 0.2}
    assert world_of(told(grown), ball) == framed
    assert world_of(told(grown, "scenes"), ball) == framed
    assert Scenes.model_validate(framed).diagonal < 4 < Scenes(scene=ball, normalise=False).diagonal
    with pytest.raises(InputError, match="another scene"):
        world_of(told(grown), other)
    with pytest.raises(InputError, match="the occupancy of another"):
        world_of(told({**grown, "quantity": "occupancy"}), ball)
    gone = {"scene": {"kind": "mesh", "path": str(tmp_path / "gone.obj")}}
    with pytest.raises(InputError, match="cannot be opened any more"):
        world_of(told(gone), ball)
    # a folder that says nothing of a world is made elsewhere
    assert world_of(str(tmp_path / "nowhere"), ball) == {"scene": ball, "normalise": False}
