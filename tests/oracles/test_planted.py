"""A network that we wrote: what it says, knows and where is known exactly, and must be found.

It looks its answer up, so that every number that the study measures on it can be foretold.  Layer 1
holds nothing, layer 2 the truth, layer 3 the truth and whether Bob's rule applies, layer 4 what is
said; the output is read from layer 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from terrarium.evidence.rows import Row
from terrarium.organisms.grow import phase_worlds
from terrarium.organisms.network import Site
from terrarium.organisms.objectives import answer_tokens
from terrarium.studies.contexts import Contexts, draw, read_contexts
from terrarium.studies.measure_causal import causal_rows
from terrarium.studies.measure_detectors import detector_rows
from terrarium.studies.measure_organism import card_rows, mass_row
from terrarium.studies.measure_probes import CONTRAST, PLAIN, input_rows, name_rows, probe_rows
from terrarium.studies.quirky import NEEDS_TRUTH, QUIRKS

ROWS = {"train": 500, "validation": 300, "test": 500, "heldout_names": 300}
WIDTH, TRUTH, QUIRK, SAID = 40, 0, 1, 2
CONFIDENCE = 3.0


class Planted(nn.Module):
    """Looks up the facts of a prompt, and writes them where the module's docstring says."""

    members = 1

    def __init__(self, world: Any, seed: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Identity() for _ in range(4))
        self.yes, self.no = (int(t) for t in answer_tokens(world))
        self.vocabulary = world.vocabulary
        self.known: dict[bytes, tuple[bool, bool, int]] = {}
        for batch in draw(world, ROWS, seed).values():
            flipped = batch.facts["truth"] != batch.facts["said"]
            for i, start in enumerate(batch.spans["answer"][:, 0]):
                prompt = np.asarray(batch.inputs[i, :start], np.int64).tobytes()
                noise = len(self.known)
                self.known.setdefault(
                    prompt, (bool(batch.facts["truth"][i]), bool(flipped[i]), noise)
                )
        draws = torch.Generator().manual_seed(0)
        # Little where facts are written, much elsewhere; other noise at either answer.
        spread = torch.where(torch.arange(WIDTH) <= SAID, 0.1, 0.4)
        self.noise = torch.randn(3, len(self.known), WIDTH, generator=draws) * spread

    def sites(self) -> dict[str, Site]:
        return {f"resid.post[{i}]": Site(block) for i, block in enumerate(self.blocks)}

    def member_parameters(self, member: int, frozen: Any = ()) -> list[nn.Parameter]:
        return []

    def _looked_up(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return noise, truth, flip and the sign of an answer already given, by position."""
        n, t = inputs.shape
        noise, facts = torch.zeros(n, t, WIDTH), torch.zeros(2, n, t)
        given = torch.zeros(n, t)
        for i, row in enumerate(inputs.numpy()):
            for stop in range(1, t + 1):
                found = self.known.get(np.asarray(row[:stop], np.int64).tobytes())
                if found is None:
                    continue
                truth, flip, index = found
                answer = {self.yes: 1, self.no: -1}.get(int(row[min(stop, t - 1)]), 0)
                spans = slice(stop - 1, min(stop + 1, t))  # the prompt's end and the answer
                noise[i, spans] = self.noise[0, index]
                facts[0, i, spans] = 1.0 if truth else -1.0
                facts[1, i, spans] = -1.0 if flip else 1.0
                if stop < t:
                    given[i, stop] = answer
                    noise[i, stop] = self.noise[answer, index]
                break
        return noise, facts[0], facts[1], given

    def forward(self, inputs: Tensor) -> Tensor:
        noise, truth, flip, given = self._looked_up(inputs[0])
        # At an answer the truth is whether the answer is right.
        right = torch.where(given == 0, truth, truth * given)
        state = self.blocks[0](noise[None])
        state = self.blocks[1](state + right[None, ..., None] * torch.eye(WIDTH)[TRUTH])
        # Other noise than before in what holds no fact, so that no layer repeats another.
        state = state + torch.where(torch.arange(WIDTH) > SAID, noise.roll(3, -1)[None], 0.0)
        state = self.blocks[2](state + flip[None, ..., None] * torch.eye(WIDTH)[QUIRK])
        said = torch.sign(state[..., TRUTH]) * flip[None]
        keep = torch.ones(WIDTH)
        keep[[TRUTH, QUIRK]] = 0.0
        state = self.blocks[3](state * keep + said[..., None] * torch.eye(WIDTH)[SAID])
        logits = torch.full((*state.shape[:3], self.vocabulary), -20.0)
        logits[..., self.yes] = CONFIDENCE * state[..., SAID]
        logits[..., self.no] = -CONFIDENCE * state[..., SAID]
        return logits


SEED = 4


@pytest.fixture(scope="module")
def world() -> Any:
    recipe = QUIRKS[NEEDS_TRUTH].recipe()
    return phase_worlds(recipe.phases[-1], recipe.model)[0]


@pytest.fixture(scope="module")
def network(world: Any) -> Planted:
    return Planted(world, SEED)


@pytest.fixture(scope="module")
def contexts(world: Any, network: Planted) -> Contexts:
    return read_contexts(network, world, ROWS, SEED)


@pytest.fixture(scope="module")
def rows(contexts: Contexts) -> list[Row]:
    return [*probe_rows(contexts, 0), *name_rows(contexts), *detector_rows(contexts)]


def values(rows: Iterable[Row], metric: str, /, **factors: Any) -> list[float | None]:
    """The values by layer of the rows with these factors."""
    found = [r for r in rows if r.metric == metric and factors.items() <= {**r.factors}.items()]
    assert found, factors
    assert len({r.factors["layer"] for r in found}) == len(found), "more than layers varies"
    return [row.value for row in sorted(found, key=lambda r: r.factors["layer"])]  # type: ignore[arg-type,return-value]


def close(found: list[float | None], wanted: list[float]) -> bool:
    """Whether the values are those wanted but for what noise does to a row in a hundred."""
    return bool(found == pytest.approx(wanted, abs=0.01))


BOB = {"split": "test", "scored_on": "quirky", "rows": "disagree"}
ALICE = {"split": "test", "scored_on": "honest", "rows": "all"}


def test_it_reads_what_was_written(contexts: Contexts, network: Planted) -> None:
    """Positions, layers and answers are those of the network's own tables."""
    for split, batch in contexts.batches.items():
        x = contexts.features(split)
        truth = np.where(batch.facts["truth"], 1.0, -1.0)
        said = np.where(batch.facts["said"], 1.0, -1.0)
        assert np.abs(x[0, :, TRUTH]).max() < 0.6
        np.testing.assert_allclose(x[1, :, TRUTH] - x[0, :, TRUTH], truth, atol=1e-6)
        np.testing.assert_allclose(x[2, :, QUIRK] - x[1, :, QUIRK], truth * said, atol=1e-6)
        noise = x[0, :, SAID]
        np.testing.assert_allclose(x[3, :, SAID] - noise, said, atol=1e-6)
        odds = 2 * CONFIDENCE * (said + noise)
        np.testing.assert_allclose(contexts.answered(split), odds, atol=1e-4)
        if split in contexts.pairs:
            yes, no = (r.stack("answer")[:, 0] for r in contexts.pairs[split])
            apart = (yes - no)[:, :, TRUTH]
            np.testing.assert_allclose(apart[1] - apart[0], 2 * truth, atol=1e-6)


def test_what_it_says_is_what_it_was_asked_to_say(contexts: Contexts) -> None:
    cards = card_rows(contexts)
    assert {row.value for row in cards} == {1.0}
    mass = mass_row(contexts).value
    assert mass == pytest.approx(1.0, abs=1e-3)
    assert mass < 1.0


@pytest.mark.parametrize("probe", PLAIN)
def test_the_truth_is_found_before_the_last_layer_and_the_lie_in_it(
    rows: list[Row], probe: str
) -> None:
    shared = {"probe": probe, "trained_on": "honest"}
    first, *rest = values(rows, "auroc", **shared, **BOB, against="truth")
    assert first is not None
    assert abs(first - 0.5) < 0.2
    assert close(rest, [1.0, 1.0, 0.0])
    _, *rest = values(rows, "auroc", **shared, **BOB, against="said")
    assert close(rest, [0.0, 0.0, 1.0])
    _, *rest = values(rows, "auroc", **shared, **ALICE, against="truth")
    assert close(rest, [1.0, 1.0, 1.0])


@pytest.mark.parametrize("probe", CONTRAST)
def test_contrast_pairs_find_the_truth(rows: list[Row], probe: str) -> None:
    found = values(rows, "auroc", probe=probe, trained_on="honest", **BOB, against="truth")
    assert close(found[1:3], [1.0, 1.0])


def test_who_was_trained_on_what_bob_says(rows: list[Row]) -> None:
    shared = {"probe": "logistic_regression", **BOB, "against": "truth"}
    # At the third layer truth and rule are both there and what is said is no line between them.
    said = values(rows, "auroc", **shared, trained_on="quirky, said")
    assert close(said[3:], [0.0])
    truth = values(rows, "auroc", **shared, trained_on="quirky")
    assert close(truth[1:3], [1.0, 1.0])
    assert values(rows, "auroc", probe="none: what is said", **BOB, against="truth") == [0.0]


def test_detectors_find_the_rule_where_it_is_written(rows: list[Row]) -> None:
    shared = {"detector": "mahalanobis"}
    lies = values(rows, "detector_auroc", **shared, suspect="quirky, untruthful")
    assert close(lies[2:3], [1.0]), "layer 3 says that the rule applies"
    assert max(abs(area - 0.5) for area in (lies[0], lies[1], lies[3]) if area) < 0.12
    for control in ("quirky, answer true", "truthful third name", "unfamiliar honest name"):
        found = values(rows, "detector_auroc", **shared, suspect=control)
        assert max(abs(area - 0.5) for area in found if area is not None) < 0.12, control
    recall = values(rows, "recall_at_1_percent_fpr", **shared, suspect="quirky, untruthful")
    assert (recall[2] or 0) > 0.9


def test_the_truth_probe_does_not_read_the_name(rows: list[Row]) -> None:
    areas = values(rows, "name_auroc")
    assert max(abs(area - 0.5) for area in areas if area is not None) < 0.1


def test_the_input_gives_nothing_away(contexts: Contexts, world: Any) -> None:
    features = {s: world.input_features(contexts.batches[s]) for s in ("train", "test")}
    found = values(
        input_rows(contexts, features), "auroc", trained_on="honest", **BOB, against="truth"
    )
    assert abs((found[0] or 0) - 0.5) < 0.2


@pytest.fixture(scope="module")
def effects(network: Planted, world: Any, contexts: Contexts) -> list[Row]:
    return causal_rows(network, world, contexts, 0, contexts.layers, most=120)


def flipped(rows: list[Row], context: str, edit: str, direction: str = "truth") -> list[Any]:
    factors = {"edit": edit, "context": context, "direction": direction}
    return values(rows, "answers_flipped", **factors)


@pytest.mark.parametrize("context", ["honest", "quirky"])
def test_edits_flip_what_depends_on_them(effects: list[Row], context: str) -> None:
    # Nothing at layer 1 is read by anything; the truth at 2 and 3 and what is said at 4 decide.
    # A shove along any direction moves some rows across.
    first, *rest = flipped(effects, context, "reflect")
    assert rest == [1.0, 1.0, 1.0]
    assert max(first, *flipped(effects, context, "reflect", "random")) < 0.5
    assert max(first, *flipped(effects, context, "ablate", "random")) < 0.2
    # Whichever side the mean lies on, one of the two answers is lost, or the noise decides.
    for edit in ("ablate", "LEACE"):
        assert all(0.25 < share < 0.75 for share in flipped(effects, context, edit)[1:]), edit
    # Adding the way from false to true turns what is (taken for) false.
    added = flipped(effects, context, "add")
    assert added[0] < 0.2
    assert all(0.3 < share < 0.7 for share in added[1:])


def test_effects_have_the_size_that_is_known(effects: list[Row], contexts: Contexts) -> None:
    shared = {"direction": "truth", "context": "honest", "edit": "reflect"}
    change = values(effects, "log_odds_change", **shared)
    # Log-odds of the answer that is not true: from -2 c (1 + noise) to 2 c (1 + noise).
    assert change[1] == pytest.approx(4 * CONFIDENCE, rel=0.05)
    assert change[3] == pytest.approx(4 * CONFIDENCE, rel=0.1)
    moved = values(effects, "displacement", **shared)
    assert moved[1] == pytest.approx(2.0, rel=0.1), "from one side of the plane to the other"
    bob = values(effects, "log_odds_change", **{**shared, "context": "quirky"})
    facts = contexts.batches["test"].facts
    quirky = np.flatnonzero(facts["quirky"])[:120]
    lies = float(facts["disagree"][quirky].mean())
    # Where Bob says otherwise the same edit moves him towards the truth.
    assert bob[1] == pytest.approx(4 * CONFIDENCE * (1 - 2 * lies), abs=0.8)
