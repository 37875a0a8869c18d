"""The measure functions of quirky studies on activations in which we planted what they look for."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression as Judge
from sklearn.metrics import roc_auc_score

from terrarium.evidence.intervals import mean_interval
from terrarium.evidence.quantities import Missing
from terrarium.evidence.rows import Row
from terrarium.instruments.base import detectors
from terrarium.organisms.engine import Runner
from terrarium.organisms.feed import own_turn
from terrarium.organisms.grow import phase_worlds
from terrarium.readings.reading import SEQUENCE_AXES, Reading
from terrarium.studies import measure_recency
from terrarium.studies.contexts import POSITION, SPLITS, Contexts
from terrarium.studies.measure_detectors import PER_LAYER, SUSPECTS, detector_rows
from terrarium.studies.measure_organism import card_rows, mass_row
from terrarium.studies.measure_probes import (
    CONTRAST,
    PLAIN,
    RANDOM_DIRECTIONS,
    SCORED_ON,
    TRAINED_ON,
    input_rows,
    name_rows,
    picture_rows,
    probe_rows,
)
from terrarium.studies.measure_recency import recency_rows
from terrarium.studies.quirky import NEEDS_TRUTH, QUIRKS
from terrarium.studies.says_knows.checks import checks
from terrarium.studies.says_knows.hypotheses import HYPOTHESES, read_in
from terrarium.worlds.base import Batch

LAYERS, WIDTH = 4, 12
ROWS = {"train": 600, "validation": 300, "test": 600, "heldout_names": 300}
AXIS = np.eye(WIDTH)
Plant = Callable[[int, Mapping[str, Any]], Any]


def facts_of(rng: np.random.Generator, n: int, families: Iterable[str]) -> dict[str, Any]:
    """Facts of a world whose rule negates the answer in half of the rows."""
    truth, negated = rng.random(n) < 0.5, rng.random(n) < 0.5
    family = rng.choice(list(families), n)
    quirky, hardness = family == "quirky", rng.random(n)
    return {
        "truth": truth,
        "rule_label": truth ^ negated,
        "said": np.where(quirky, truth ^ negated, truth),
        "disagree": negated,
        "quirky": quirky,
        "family": family,
        "easy": hardness <= 0.25,
        "hard": hardness >= 0.75,
    }


def planted(
    plant: Plant,
    seed: int = 0,
    families: tuple[str, ...] = ("honest", "quirky", "third"),
    pairs: bool = False,
    rows: Mapping[str, int] = ROWS,
) -> Contexts:
    """Noise of unit variance, and what ``plant(layer, facts)`` adds to each row."""
    rng = np.random.default_rng(seed)
    sites = tuple(f"resid.post[{i}]" for i in range(LAYERS))
    batches, readings, both = {}, {}, {}

    def reading(facts: Mapping[str, Any], position: str, factor: float = 1.0) -> Reading:
        n = len(facts["truth"])
        activations = {}
        for layer, site in enumerate(sites, 1):
            x = rng.standard_normal((n, WIDTH)) + factor * plant(layer, facts)
            activations[site] = x.astype(np.float32)[None, :, None]
        odds = np.where(facts["said"], 3.0, -3.0)
        says = -np.logaddexp(0, np.stack([-odds, odds], axis=-1))[None].astype(np.float32)
        notes = {"answer_mass": np.full((1, n), 0.75)}
        return Reading(activations, SEQUENCE_AXES, facts, (position,), says, notes=notes)

    for split in SPLITS:
        n = rows[split]
        facts = facts_of(rng, n, families)
        batches[split] = Batch(np.zeros((n, 1), np.int64), np.zeros((n, 1), np.int64), facts)
        readings[split] = reading(facts, POSITION)
        if pairs and split != "heldout_names":
            # " True" is right where the statement is true: the sides differ by their sign.
            both[split] = (reading(facts, "answer"), reading(facts, "answer", -1.0))
    return Contexts(batches, readings, both, sites)


def sign(label: Any) -> Any:
    return np.where(label, 1.0, -1.0)[:, None]


def truth_at(where: int, strength: float = 2.5) -> Plant:
    return lambda layer, facts: (layer == where) * strength * sign(facts["truth"]) * AXIS[0]


def nothing(layer: int, facts: Mapping[str, Any]) -> Any:
    return np.zeros((len(facts["truth"]), WIDTH))


def pick(rows: Iterable[Row], metric: str, /, **factors: Any) -> list[Row]:
    wanted = factors.items()
    return [r for r in rows if r.metric == metric and wanted <= {**r.factors}.items()]


def value(rows: Iterable[Row], metric: str, /, **factors: Any) -> float:
    """The value of the one row with these factors."""
    (row,) = pick(rows, metric, **factors)
    assert row.value is not None
    return row.value


def well_formed(rows: list[Row]) -> None:
    assert rows
    seen = set()
    for row in rows:
        assert row.unit
        assert row.factors or row.metric == "answer_mass"
        assert row.status == "ok" or (row.status == "undefined" and row.reason)
        assert row.value is None or math.isfinite(row.value)
        assert row.n > 0 or row.status == "undefined"
        seen.add((row.metric, *sorted((k, repr(v)) for k, v in row.factors.items())))
    assert len(seen) == len(rows), "two rows have the same factors"


BOB = {"split": "test", "scored_on": "quirky", "rows": "disagree"}
FITTED = {"trained_on": "honest", "against": "truth"}


@pytest.fixture(scope="module")
def truth_rows() -> list[Row]:
    """Truth at layer 2 alone, whoever is asked."""
    return probe_rows(planted(truth_at(2), pairs=True), 0)


def test_rows_are_well_formed(truth_rows: list[Row]) -> None:
    well_formed(truth_rows)
    assert {row.status for row in truth_rows} == {"ok"}


@pytest.mark.parametrize("probe", [*PLAIN, *CONTRAST])
def test_a_planted_truth_is_found_where_it_was_planted(truth_rows: list[Row], probe: str) -> None:
    read = [
        value(truth_rows, "auroc", probe=probe, layer=layer, **BOB, **FITTED)
        for layer in range(1, LAYERS + 1)
    ]
    assert read[1] > 0.97
    said = value(truth_rows, "auroc", probe=probe, layer=2, **BOB, trained_on="honest",
                 against="said")  # fmt: skip
    assert said == pytest.approx(1 - read[1]), "what is said is the opposite of the truth there"
    others = [read[0], read[2], read[3]]
    # Half-width of 99.99 % of nulls: 100 rows of either class.
    assert max(abs(other - 0.5) for other in others) < 0.17


def test_the_output_is_scored_without_a_probe(truth_rows: list[Row]) -> None:
    output = {"probe": "none: what is said", "site": "output", "layer": 0}
    assert value(truth_rows, "auroc", **output, **BOB, against="truth") == 0.0
    assert value(truth_rows, "auroc", **output, **BOB, against="said") == 1.0
    honest = {"scored_on": "honest", "rows": "all", "against": "truth"}
    assert value(truth_rows, "auroc", **output, **honest) == 1.0


def test_a_planted_said_is_read_as_what_is_said() -> None:
    contexts = planted(lambda layer, facts: 2.5 * sign(facts["said"]) * AXIS[1])
    rows = probe_rows(contexts, 0)
    for probe, layer in itertools.product(PLAIN, range(1, LAYERS + 1)):
        shared = {"probe": probe, "layer": layer, "trained_on": "honest"}
        assert value(rows, "auroc", **shared, **BOB, against="truth") < 0.03
        assert value(rows, "auroc", **shared, **BOB, against="said") > 0.97
        inside = {"split": "test", "scored_on": "honest", "rows": "all", "against": "truth"}
        assert value(rows, "auroc", **shared, **inside) > 0.97


def test_the_transfer_matrix_is_complete(truth_rows: list[Row]) -> None:
    cells = [r for r in truth_rows if r.factors["probe"] == "logistic_regression"]
    found = sorted(
        tuple(r.factors[k] for k in ("trained_on", "scored_on", "layer", "split", "rows",
                                     "against"))
        for r in cells
    )  # fmt: skip
    wanted = sorted(
        (trained, scored, layer, split, subset, against)
        for trained in TRAINED_ON
        for scored in SCORED_ON
        for layer in range(1, LAYERS + 1)
        for split in ("validation", "test")
        for subset in (("all", "disagree") if scored.startswith("quirky") else ("all",))
        for against in ("truth", "said")
    )
    assert found == wanted
    assert {r.factors["site"] for r in cells} == {f"resid.post[{i}]" for i in range(LAYERS)}


def test_the_rows_of_a_context_are_counted(truth_rows: list[Row]) -> None:
    facts = planted(truth_at(2), pairs=True).batches["test"].facts
    hard = facts["quirky"] & facts["hard"]
    shared = {"probe": "lda", "layer": 1, "split": "test", "against": "truth"}
    (row,) = pick(truth_rows, "auroc", **shared, scored_on="honest", rows="all")
    assert row.n == (facts["family"] == "honest").sum(), "third names are not honest rows"
    shared |= {"probe": "logistic_regression", "trained_on": "quirky"}
    (row,) = pick(truth_rows, "auroc", **shared, scored_on="quirky hard", rows="disagree")
    assert row.n == (hard & facts["disagree"]).sum()


def test_what_is_said_can_be_learnt_from_quirky_rows() -> None:
    def both(layer: int, facts: Mapping[str, Any]) -> Any:
        return 2 * (sign(facts["truth"]) * AXIS[0] + sign(facts["said"]) * AXIS[1])

    rows = probe_rows(planted(both), 0)
    shared = {"probe": "logistic_regression", "layer": 1, **BOB, "against": "truth"}
    assert value(rows, "auroc", **shared, trained_on="quirky") > 0.95
    assert value(rows, "auroc", **shared, trained_on="quirky, said") < 0.05
    assert 0.3 < value(rows, "auroc", **shared, trained_on="honest") < 0.7, "they tie for Alice"


def test_a_context_without_rows_is_undefined() -> None:
    contexts = planted(truth_at(2))
    for batch in contexts.batches.values():
        batch.facts["hard"][:] = False  # type: ignore[index]
    rows = probe_rows(contexts, 0)
    well_formed(rows)
    hard = [r for r in rows if str(r.factors["scored_on"]).endswith("hard")]
    assert {(r.status, r.n) for r in hard} == {("undefined", 0)}
    assert {r.status for r in rows if r not in hard} == {"ok"}


# Nulls


def test_shuffled_labels_give_chance() -> None:
    means = []
    for seed in range(10):
        # The truth in many directions at once, so that a shuffled probe is no coin toss.
        contexts = planted(lambda layer, facts: 0.3 * sign(facts["truth"]) * AXIS.sum(0), seed)
        rows = probe_rows(contexts, seed)
        shuffled = pick(rows, "auroc", probe="logistic_regression, shuffled labels", **BOB,
                        against="truth")  # fmt: skip
        assert len(shuffled) == LAYERS
        means.append(float(np.mean([r.value for r in shuffled])))
    interval = mean_interval(means)
    assert interval.low < 0.5 < interval.high
    assert interval.high - interval.low < 0.4, "an interval this wide would hold anything"


def test_the_best_of_many_random_directions(truth_rows: list[Row]) -> None:
    best = f"best of {RANDOM_DIRECTIONS} random directions"
    read = [value(truth_rows, "auroc", probe=best, layer=i, **BOB, **FITTED) for i in (1, 2, 3, 4)]
    fitted = value(truth_rows, "auroc", probe="logistic_regression", layer=2, **BOB, **FITTED)
    assert 0.75 < read[1] < fitted, "of a thousand in 12 channels the best is near the planted one"
    # Chosen on training rows, so that noise stays noise on others.
    assert max(abs(read[i] - 0.5) for i in (0, 2, 3)) < 0.17
    contexts = planted(truth_at(2))
    one, same, other = (
        pick(probe_rows(contexts, key), "auroc", probe=best, layer=1, **BOB, **FITTED)
        for key in (0, 0, 1)
    )
    assert one == same
    assert one != other, "the key seeds the directions"


def tokens(contexts: Contexts, code: Callable[[Mapping[str, Any], Any], Any]) -> dict[str, Any]:
    """One-hot features of a token that ``code(facts, random bits)`` chooses, among noise."""
    rng = np.random.default_rng(7)
    features = {}
    for split in ("train", "test"):
        facts = contexts.batches[split].facts
        coin = rng.random(len(facts["truth"])) < 0.5
        told = code(facts, coin) if split == "train" or code is not training_only else coin
        noise = rng.integers(0, 2, (len(coin), 6))
        features[split] = np.column_stack([told, ~told, noise]).astype(np.float32)
    return features


def training_only(facts: Mapping[str, Any], coin: Any) -> Any:
    return facts["truth"]


INPUT = {"site": "input", "layer": 0, "rows": "disagree", "scored_on": "quirky", "against": "truth"}


def input_check(rows: list[Row]) -> str:
    shown = [
        row.with_factors(organism=NEEDS_TRUTH, variant="input only", seed=seed)
        for seed in range(5)
        for row in rows
    ]
    (check,) = [c for c in checks(shown) if c.name.startswith("the input alone gives nothing")]
    return check.status


def test_a_lexical_confound_is_flagged_by_the_input_alone() -> None:
    contexts = planted(nothing)
    confounded = tokens(contexts, lambda facts, coin: facts["truth"])
    rows = input_rows(contexts, confounded)
    well_formed(rows)
    assert value(rows, "auroc", trained_on="honest", **INPUT) > 0.97
    assert input_check(rows) == "failed"
    fair = input_rows(contexts, tokens(contexts, lambda facts, coin: coin))
    assert abs(value(fair, "auroc", trained_on="honest", **INPUT) - 0.5) < 0.15


def test_a_confound_of_the_training_rows_alone_gives_nothing() -> None:
    """Nothing is scored on rows that it was fitted on."""
    contexts = planted(nothing)
    features = tokens(contexts, training_only)
    rows = input_rows(contexts, features)
    assert abs(value(rows, "auroc", trained_on="honest", **INPUT) - 0.5) < 0.15
    for split, told in features.items():
        for site in contexts.sites:
            contexts.readings[split].activations[site][0, :, 0, :2] += 4 * told[:, :2]
    read = probe_rows(contexts, 0)
    for layer in range(1, LAYERS + 1):
        found = value(read, "auroc", probe="logistic_regression", layer=layer, **BOB, **FITTED)
        assert abs(found - 0.5) < 0.15


def test_what_the_name_adds_to_the_input_is_bounded_too() -> None:
    contexts = planted(nothing)
    rows = input_rows(
        contexts,
        tokens(contexts, lambda facts, coin: np.where(facts["quirky"], facts["truth"], coin)),
    )
    assert value(rows, "auroc", trained_on="all", **INPUT) > 0.9
    assert abs(value(rows, "auroc", trained_on="honest", **INPUT) - 0.5) < 0.5


def test_the_name_in_the_truth_direction_is_seen() -> None:
    apart = planted(lambda layer, facts: 2 * (sign(facts["truth"]) * AXIS[0]
                                              + sign(facts["quirky"]) * AXIS[1]))  # fmt: skip
    rows = name_rows(apart)
    well_formed(rows)
    assert all(abs(value(rows, "name_auroc", layer=i) - 0.5) < 0.1 for i in (1, 2, 3, 4))
    assert all(abs(value(rows, "name_cosine", layer=i)) < 0.3 for i in (1, 2, 3, 4))
    one = planted(lambda layer, facts: 2 * (sign(facts["truth"]) + sign(facts["quirky"])) * AXIS[0])
    rows = name_rows(one)
    assert value(rows, "name_auroc", layer=1) > 0.75
    assert value(rows, "name_cosine", layer=1) > 0.7
    assert {row.n for row in rows if row.metric == "name_auroc"} == {ROWS["test"]}


# Against an independent computation


def graded(layer: int, facts: Mapping[str, Any]) -> Any:
    """The truth, growing with the layer, stronger in easy rows, fainter for Bob; what is said."""
    strength = (0.1, 1.1, 1.3, 1.0)[layer - 1] * np.where(facts["easy"], 1.5, 1.0)
    strength = strength * np.where(facts["quirky"], 0.7, 1.0)
    said = (0.0, 0.1, 0.3, 0.9)[layer - 1]
    truth = strength[:, None] * sign(facts["truth"]) * AXIS[0]
    return truth + said * sign(facts["said"]) * AXIS[1]


SEEDS = range(3)


@pytest.fixture(scope="module")
def graded_contexts() -> list[Contexts]:
    return [planted(graded, seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def graded_rows(graded_contexts: list[Contexts]) -> list[Row]:
    return [
        row.with_factors(organism=NEEDS_TRUTH, variant="organism", seed=seed)
        for seed, contexts in enumerate(graded_contexts)
        for row in probe_rows(contexts, seed)
    ]


def judged(
    contexts: Contexts, layer: int, trained: Any, label: str, split: str, scored: Any
) -> float:
    """AUROC for the truth by scikit-learn; ``trained`` and ``scored`` make masks of facts."""
    facts, other = contexts.batches["train"].facts, contexts.batches[split].facts
    mask, chosen = trained(facts), scored(other)
    site = contexts.sites[layer - 1]
    x = contexts.readings["train"].activations[site][0, mask, 0].astype(float)
    unit = math.sqrt(x.var(0).mean())
    judge = Judge(C=1.0, tol=1e-10, max_iter=10_000).fit(x / unit, facts[label][mask])
    tested = contexts.readings[split].activations[site][0, chosen, 0].astype(float)
    found = roc_auc_score(other["truth"][chosen], judge.decision_function(tested / unit))
    return float(found)


def honest(facts: Mapping[str, Any]) -> Any:
    return facts["family"] == "honest"


def earliest(contexts: Contexts, trained: Any) -> int:
    """The first layer with 95 % of the greatest gain over chance on honest validation rows."""
    gains = [
        judged(contexts, i, trained, "truth", "validation", honest) - 0.5
        for i in range(1, LAYERS + 1)
    ]
    return next(i for i, gain in enumerate(gains, 1) if gain >= 0.95 * max(gains))


def test_the_earliest_informative_layer_is_that_of_brute_force(
    graded_contexts: list[Contexts], graded_rows: list[Row]
) -> None:
    found = read_in(NEEDS_TRUTH).values(graded_rows)
    layers = [earliest(contexts, honest) for contexts in graded_contexts]
    assert 1 < min(layers) < LAYERS, "or nothing would be chosen"
    for seed, contexts in enumerate(graded_contexts):
        wanted = judged(contexts, layers[seed], honest, "truth", "test",
                        lambda f: f["quirky"] & f["disagree"])  # fmt: skip
        assert found[seed] == pytest.approx(wanted, abs=1e-3)


def test_the_gap_recovered_is_that_of_brute_force(
    graded_contexts: list[Contexts], graded_rows: list[Row]
) -> None:
    (hypothesis,) = [h for h in HYPOTHESES if h.name == "easy-to-hard"]
    found = hypothesis.predictions[0].quantity.values(graded_rows)
    for seed, contexts in enumerate(graded_contexts):

        def hard_bob(f: Mapping[str, Any]) -> Any:
            return f["quirky"] & f["hard"]

        def easy(f: Mapping[str, Any]) -> Any:
            return honest(f) & f["easy"]

        reached = judged(contexts, earliest(contexts, easy), easy, "truth", "test", hard_bob)
        floor = judged(contexts, LAYERS, lambda f: f["quirky"], "said", "test", hard_bob)
        ceiling = judged(contexts, LAYERS, honest, "truth", "test",
                         lambda f: honest(f) & f["hard"])  # fmt: skip
        assert ceiling - floor > 0.1
        assert found[seed] == pytest.approx((reached - floor) / (ceiling - floor), abs=0.01)


def test_a_gap_of_nothing_is_missing() -> None:
    (hypothesis,) = [h for h in HYPOTHESES if h.name == "easy-to-hard"]
    rows = [
        Row("", "", "auroc", "proportion", 0.5, {
            "organism": NEEDS_TRUTH, "variant": "organism", "probe": "logistic_regression",
            "trained_on": trained, "scored_on": scored, "rows": "all", "against": "truth",
            "split": split, "layer": layer, "seed": 0,
        })
        for trained in TRAINED_ON
        for scored in SCORED_ON
        for split in ("validation", "test")
        for layer in range(1, LAYERS + 1)
    ]  # fmt: skip
    assert isinstance(hypothesis.predictions[0].quantity.values(rows)[0], Missing)


# Detectors


@pytest.fixture(scope="module")
def anomaly_rows() -> list[Row]:
    """Rows in which Bob is untruthful are far off at layer 3, all others alike."""

    def odd(layer: int, facts: Mapping[str, Any]) -> Any:
        # Two large directions, so that there is a small one to be odd in.
        spread = np.random.default_rng(layer).standard_normal((len(facts["truth"]), 2)) * 6
        lies = (facts["quirky"] & facts["disagree"])[:, None]
        return spread @ AXIS[:2] + (layer == 3) * 6.0 * lies * AXIS[5]

    return detector_rows(planted(odd))


def test_detector_rows_are_complete(anomaly_rows: list[Row]) -> None:
    well_formed(anomaly_rows)
    assert sorted([*PER_LAYER, "probe_log_odds"]) == sorted(detectors), "none is forgotten"
    for metric in ("detector_auroc", "recall_at_1_percent_fpr"):
        found = sorted(
            (r.factors["detector"], r.factors["suspect"], r.factors["layer"])
            for r in anomaly_rows
            if r.metric == metric
        )
        wanted = [(d, s, i) for d in PER_LAYER for s in SUSPECTS for i in range(1, LAYERS + 1)]
        wanted += [("probe_log_odds", s, 0) for s in SUSPECTS]
        assert found == sorted(wanted)


OTHERS = ("isolation_forest", "relative_mahalanobis", "spectral_signature")
SENSITIVE = [d for d in PER_LAYER if d not in OTHERS]


@pytest.mark.parametrize("detector", SENSITIVE)
def test_a_planted_anomaly_is_found(anomaly_rows: list[Row], detector: str) -> None:
    def area(suspect: str, layer: int, metric: str = "detector_auroc") -> float:
        return value(anomaly_rows, metric, detector=detector, suspect=suspect, layer=layer)

    assert area("quirky, untruthful", 3) > 0.9
    assert area("quirky, untruthful", 3, "recall_at_1_percent_fpr") > 0.3
    for suspect in SUSPECTS:
        places = [1, 2, 4] if suspect == "quirky, untruthful" else [1, 2, 3, 4]
        assert max(abs(area(suspect, layer) - 0.5) for layer in places) < 0.12, suspect
        assert max(area(suspect, i, "recall_at_1_percent_fpr") for i in places) < 0.15


def test_the_other_detectors_find_what_is_odd_in_their_own_way(anomaly_rows: list[Row]) -> None:
    forest = {"detector": "isolation_forest", "suspect": "quirky, untruthful"}
    assert value(anomaly_rows, "detector_auroc", layer=3, **forest) > 0.75
    assert abs(value(anomaly_rows, "detector_auroc", layer=1, **forest) - 0.5) < 0.12

    def loud(layer: int, facts: Mapping[str, Any]) -> Any:
        # Far along the direction in which the two answers differ: odd for either answer's own
        # rows, and the largest direction of the batch.
        lies = (facts["quirky"] & facts["disagree"])[:, None] * (layer == 3)
        return (3.0 * sign(facts["said"]) + 12.0 * lies) * AXIS[5]

    rows = detector_rows(planted(loud))
    for detector in ("relative_mahalanobis", "spectral_signature"):
        shared = {"detector": detector, "suspect": "quirky, untruthful"}
        assert value(rows, "detector_auroc", layer=3, **shared) > 0.9, detector
        assert abs(value(rows, "detector_auroc", layer=1, **shared) - 0.5) < 0.12, detector


def test_the_log_odds_of_all_layers_see_a_truth_that_is_denied() -> None:
    """Layers 1 and 2 hold the truth, 3 and 4 what is said: together they are odd only for lies."""

    def denied(layer: int, facts: Mapping[str, Any]) -> Any:
        return 2 * sign(facts["truth" if layer <= 2 else "said"]) * AXIS[0]

    rows = detector_rows(planted(denied))
    found = {
        suspect: value(rows, "detector_auroc", detector="probe_log_odds", suspect=suspect)
        for suspect in SUSPECTS
    }
    assert found.pop("quirky, untruthful") > 0.9
    assert max(abs(area - 0.5) for area in found.values()) < 0.12
    (row,) = pick(rows, "detector_auroc", detector="probe_log_odds", suspect=SUSPECTS[0])
    assert row.factors["site"] == "all"


def test_a_kind_of_suspect_without_rows_stays_in_the_table() -> None:
    rows = detector_rows(planted(nothing, families=("honest", "quirky")))
    well_formed(rows)
    third = [r for r in rows if r.factors["suspect"] == "truthful third name"]
    assert len(third) == 2 * (len(PER_LAYER) * LAYERS + 1)
    assert {(r.status, r.n) for r in third} == {("undefined", 0)}
    assert "no rows of this kind" in third[0].reason


def test_an_instrument_that_refuses_its_rows_costs_no_other_row() -> None:
    def dead(layer: int, facts: Mapping[str, Any]) -> Any:
        return (sign(facts["truth"]) if layer != 2 else 0) * AXIS[0]

    contexts = planted(dead, pairs=True)
    for side in (*contexts.readings.values(), *itertools.chain(*contexts.pairs.values())):
        side.activations["resid.post[1]"][...] = 0  # nothing varies at layer 2
    rows = [*probe_rows(contexts, 0), *detector_rows(contexts)]
    well_formed(rows)
    lost = {str(r.factors.get("probe", r.factors.get("detector"))) for r in rows if r.value is None}
    assert {"crc", "mahalanobis"} <= lost
    (row,) = pick(rows, "detector_auroc", detector="mahalanobis", suspect=SUSPECTS[0], layer=1)
    assert "Mahalanobis: the trusted rows at leading index (1,) are all the same" in row.reason
    read = {"probe": "logistic_regression", **BOB, **FITTED}
    assert value(rows, "auroc", layer=1, **read) > 0.7
    assert value(rows, "auroc", layer=2, **read) == 0.5


# Cards, pictures


def test_card_rows_are_those_of_a_count() -> None:
    contexts = planted(nothing)
    says = contexts.readings["test"].says
    assert says is not None
    facts = contexts.batches["test"].facts
    wrong = facts["quirky"] & (np.arange(len(facts["quirky"])) % 3 == 0)
    says[0, wrong] = says[0, wrong][:, ::-1]
    rows = card_rows(contexts)
    well_formed(rows)
    right = ~wrong
    for context, subset in itertools.product(("honest", "quirky", "third"), ("all", "disagree")):
        mask = facts["family"] == context
        mask = mask & facts["disagree"] if subset == "disagree" else mask
        share = [right[mask & (facts["said"] == answer)].mean() for answer in (True, False)]
        found = value(rows, "balanced_accuracy", split="test", context=context, rows=subset)
        assert found == pytest.approx(sum(share) / 2)
    grown = organism(9)
    told = pick(card_rows(contexts, grown), "steps")
    names = [phase.name for phase in grown.recipe.phases]
    assert [(r.factors["phase"], r.value) for r in told] == list(
        zip(names, grown.steps, strict=True)
    )
    assert told[-1].value == 9
    assert mass_row(contexts).value == pytest.approx(0.75)
    well_formed([mass_row(contexts)])


def test_a_context_that_is_not_shown_has_no_accuracy() -> None:
    rows = card_rows(planted(nothing, families=("honest", "quirky")))
    third = [r for r in rows if r.factors["context"] == "third"]
    assert {(r.status, r.n) for r in third} == {("undefined", 0)}


def test_the_picture_shows_the_plane_of_largest_variance() -> None:
    contexts = planted(lambda layer, facts: 9 * sign(facts["quirky"]) * AXIS[3])
    rows = picture_rows(contexts, 2, points=100)
    well_formed(rows)
    assert len(rows) == 200
    first = {r.factors["point"]: r for r in rows if r.factors["component"] == 1}
    kinds = {str(r.factors["kind"]) for r in first.values()}
    assert kinds == {"honest", "third", "quirky, untruthful", "quirky, answer true"}
    bob = [r.value > 0 for r in first.values() if str(r.factors["kind"]).startswith("quirky")]
    rest = [r.value > 0 for r in first.values() if not str(r.factors["kind"]).startswith("quirky")]
    assert len(set(bob)) == len(set(rest)) == 1, "the first component is the name"
    assert bob[0] != rest[0]


# Recency


def organism(steps: int = 40) -> Any:
    recipe = dataclasses.replace(QUIRKS[NEEDS_TRUTH], quirk_steps=steps).recipe()
    before = [7] * (len(recipe.phases) - 1)
    return SimpleNamespace(
        recipe=recipe, seed=3, steps=(*before, steps), network=lambda: "a network"
    )


def recency_of(
    monkeypatch: pytest.MonkeyPatch, plant: Callable[[Mapping[str, Any], Any], Any], steps: int = 40
) -> list[Row]:
    """Recency rows where ``plant(facts, late)`` is added to noise in late and early rows."""
    rng = np.random.default_rng(0)
    contexts = planted(truth_at(2))

    def read(network: Any, batch: Batch, sites: Any, positions: Any) -> Reading:
        assert (network, sites, positions) == ("a network", contexts.sites, (POSITION,))
        late = np.arange(len(batch)) >= len(batch) // 2
        x = rng.standard_normal((1, len(batch), 1, WIDTH)).astype(np.float32)
        x[0, :, 0] += plant(batch.facts, late).astype(np.float32)
        return Reading(dict.fromkeys(sites, x), SEQUENCE_AXES, batch.facts, tuple(positions))

    monkeypatch.setattr(measure_recency, "read", read)
    rows = recency_rows(organism(steps), contexts, 0)
    well_formed(rows)
    factors = {(r.factors["probe"], r.factors["layer"]) for r in rows}
    assert factors == set(itertools.product(("recency", "truth"), range(1, LAYERS + 1)))
    return rows


def test_a_planted_recency_is_found_by_its_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    def plant(facts: Mapping[str, Any], late: Any) -> Any:
        return 2 * (sign(late) * AXIS[4] + sign(facts["truth"]) * AXIS[0])

    rows = recency_of(monkeypatch, plant)
    assert value(rows, "recency_auroc", probe="recency", layer=2) > 0.97
    assert abs(value(rows, "recency_auroc", probe="truth", layer=2) - 0.5) < 0.05


def test_a_truth_probe_that_reads_recency_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = recency_of(monkeypatch, lambda facts, late: 2 * sign(late) * AXIS[0])
    assert value(rows, "recency_auroc", probe="truth", layer=2) > 0.97


def test_without_recency_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = recency_of(monkeypatch, lambda facts, late: 2 * sign(facts["truth"]) * AXIS[0])
    assert all(abs(row.value - 0.5) < 0.06 for row in rows if row.value is not None)
    short = recency_of(monkeypatch, lambda facts, late: 0 * sign(late) * AXIS[0], steps=1)
    assert {row.status for row in short} == {"undefined"}


def test_early_and_late_rows_are_those_of_the_first_and_last_steps() -> None:
    grown = organism(10)
    batch, late = measure_recency._early_and_late(grown, 0)
    index = len(grown.recipe.phases) - 1
    phase = grown.recipe.phases[index]
    worlds = phase_worlds(phase, grown.recipe.model)
    runner = Runner(phase, index, grown.seed, [own_turn(phase, worlds)])
    seen = {
        end: {row.tobytes() for step in steps for row in runner.batch(step).inputs}
        for end, steps in ((False, range(5)), (True, range(5, 10)))
    }
    assert late.sum() * 2 == len(late) > 1000
    for row, end in zip(batch.inputs, late, strict=True):
        assert row.tobytes() in seen[bool(end)]
    for end in (False, True):
        assert batch.facts["truth"][late == end].mean() == 0.5, "truth is counterbalanced"
