"""Every kind of network and objective travels one road: loop, store, readings, rows, report.

A coordinate network, an autoencoder and a policy-gradient phase go through the very code that
language models go through, so that no later capability needs a second loop.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terrarium.evidence.rows import measured, stamped
from terrarium.evidence.table import read_rows, write_rows
from terrarium.figures.curves import layer_curves
from terrarium.organisms.grow import find, grow
from terrarium.organisms.recipe import (
    AutoencoderModel,
    CoordinateModel,
    Optimizer,
    Phase,
    PolicyGradient,
    Recipe,
    Reconstruction,
    Source,
    TransformerModel,
)
from terrarium.pages.report import render_report
from terrarium.readings.read import read
from terrarium.store import Store
from terrarium.studies.base import Cell, Study
from terrarium.studies.runner import run_study

FIELD = Recipe(
    name="field",
    model=CoordinateModel(inputs=2, outputs=1, width=32, frequencies=16, scale=0.6),
    phases=(
        Phase(
            name="fit",
            sources=(Source(world="field", options={}),),
            objective=Reconstruction(),
            steps=250,
            batch=256,
            optimizer=Optimizer(lr=5e-3, warmup=5, schedule="cosine", final=0.02),
        ),
    ),
)
IMAGES = Recipe(
    name="images",
    model=AutoencoderModel(side=8, width=8, latent=4),
    phases=(
        Phase(
            name="fit",
            sources=(Source(world="patches", options={}),),
            objective=Reconstruction(),
            steps=250,
            batch=64,
            optimizer=Optimizer(lr=5e-3, warmup=5),
        ),
    ),
)
POLICY = Recipe(
    name="policy",
    model=TransformerModel(layers=1, width=32, heads=2, mlp=32),
    phases=(
        Phase(
            name="rl",
            sources=(Source(world="bandit", options={"letters": 2, "arms": 3}),),
            objective=PolicyGradient(samples=8, kl=0.02),
            steps=100,
            batch=32,
            optimizer=Optimizer(lr=3e-3, warmup=2),
        ),
    ),
)


def regret(organism, n=400):
    """Mean regret to the oracle on test rows."""
    batch = organism.world.sample(n, np.random.default_rng(0), "test")
    with torch.no_grad():
        output = organism.network()(torch.from_numpy(batch.inputs)[None])[0].numpy()
    return float(organism.world.regret(batch, output).mean()), batch


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("road") / "store")


@pytest.fixture(scope="module")
def grown(store):
    return {r.name: grow([(r, 0), (r, 1)], store) for r in (FIELD, IMAGES, POLICY)}


@pytest.mark.parametrize(("name", "bound"), [("field", 3e-3), ("images", 1.5)])
def test_regret_to_the_oracle_falls(grown, store, name, bound):
    from terrarium.organisms.build import build

    for organism in grown[name]:
        trained, batch = regret(organism)
        untrained = build(organism.model, [("organism", organism.seed)])
        with torch.no_grad():
            first = untrained(torch.from_numpy(batch.inputs)[None])[0].numpy()
        before = float(organism.world.regret(batch, first).mean())
        assert trained < bound
        assert trained < before / 10


def test_policy_gradient_raises_the_reward(grown):
    for organism in grown["policy"]:
        rewards = [row["reward"] for row in organism.history()]
        assert np.mean(rewards[:5]) < 0.5
        assert np.mean(rewards[-5:]) > 0.9
        assert organism.history()[-1]["kl_nats"] > 0


@pytest.mark.parametrize("recipe", [FIELD, IMAGES, POLICY], ids=lambda r: r.name)
def test_fleet_of_one_equals_member_of_a_fleet(recipe, tmp_path):
    short = recipe.model_copy(
        update={"phases": (recipe.phases[0].model_copy(update={"steps": 5, "batch": 8}),)}
    )
    together = grow([(short, 0), (short, 1)], Store(tmp_path / "two"))
    for seed, member in enumerate(together):
        (alone,) = grow([(short, seed)], Store(tmp_path / f"one{seed}"))
        a, b = member.network().member_state(0), alone.network().member_state(0)
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "site", "axes"),
    [
        ("field", "mlp.act[1]", ("member", "example", "channel")),
        ("images", "encoder.out", ("member", "example", "row", "column", "channel")),
        ("images", "latent", ("member", "example", "channel")),
    ],
)
def test_readings_of_other_modalities_have_their_axes(grown, name, site, axes):
    organism = grown[name][0]
    batch = organism.world.sample(20, np.random.default_rng(1), "test")
    reading = read(organism.network(), batch, [site], None)
    values = reading.activations[site]
    assert values.ndim == len(axes)
    assert values.shape[:2] == (1, 20)
    assert reading.says is not None
    with torch.no_grad():
        out = organism.network()(torch.from_numpy(batch.inputs)[None])
    np.testing.assert_allclose(np.asarray(reading.says).ravel(), out.numpy().ravel(), atol=1e-5)


def measure_toy(cell, store_home, progress):
    """Grow a coordinate network and say how far it is from the truth."""
    recipe = Recipe.model_validate(cell.spec["recipe"])
    (organism,) = grow([(recipe, cell.spec["seed"])], Store(store_home), progress)
    value, batch = regret(organism)
    row = measured("regret", value, unit="squared half sides", n=len(batch))
    return [row.with_factors(seed=cell.spec["seed"], layer=0, quantity="field")]


def toy_figures(rows):
    records = [{**r.factors, "value": r.value} for r in rows]
    return [layer_curves("regret", records, title="Regret", caption="c", y_domain=None)]


def test_rows_and_report_of_a_coordinate_network(store, grown, tmp_path):
    study = Study(
        name="toy-field",
        question="Does the field arise?",
        hypotheses=(),
        defaults={"quick": {"seeds": 2}},
        cells=lambda settings: [
            Cell(f"seed {s}", {"recipe": FIELD.model_dump(mode="json"), "seed": s})
            for s in range(settings["seeds"])
        ],
        measure=measure_toy,
        figures=toy_figures,
        code=("terrarium.organisms.grow",),
    )
    result = run_study(study, "quick", {}, store, workers=0)
    assert [r.status for r in result.rows] == ["ok", "ok"]
    write_rows(result.rows, tmp_path)
    assert read_rows(tmp_path) == list(result.rows)
    html = render_report(study, result.rows, [], [], study.figures(result.rows))
    assert "Does the field arise?" in html
    assert find(FIELD, 0, store) is not None


def test_rows_are_stamped_with_their_study():
    (row,) = stamped([measured("m", 1.0, unit="nats", n=1)], "s", "c")
    assert (row.study, row.cell) == ("s", "c")
