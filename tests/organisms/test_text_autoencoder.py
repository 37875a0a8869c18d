"""Autoencoders of text: one code a row, which alone decides what the decoder writes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terrarium.errors import InputError
from terrarium.organisms.build import build, load
from terrarium.organisms.grow import grow
from terrarium.organisms.objectives import Step, losses
from terrarium.organisms.recipe import (
    Optimizer,
    Phase,
    Recipe,
    Source,
    TextAutoencoderModel,
    TextReconstruction,
)
from terrarium.organisms.text_autoencoder import row_lengths
from terrarium.organisms.text_reconstruction import text_errors
from terrarium.readings.hooks import capture, edit
from terrarium.readings.read import read
from terrarium.store import Store
from terrarium.worlds.arithmetic import Arithmetic

SPEC = TextAutoencoderModel(layers=1, width=16, heads=2, mlp=16, latent=6, vocabulary=40)
TOKENS = torch.tensor([[[3, 5, 9, 4, 0, 0], [7, 3, 8, 8, 2, 6], [4, 0, 0, 0, 0, 0]]])


@pytest.fixture
def network():
    return build(SPEC, [("a", 0)])


def test_padding_changes_nothing(network):
    longer = torch.nn.functional.pad(TOKENS, (0, 3))
    with torch.no_grad():
        torch.testing.assert_close(network(longer)[:, :, :6], network(TOKENS))
        alone = network(TOKENS[:, :1, :4])
        torch.testing.assert_close(network(TOKENS)[:, :1, :4], alone)
    assert row_lengths(TOKENS).tolist() == [[4, 6, 1]]


def test_a_pad_inside_a_row_is_a_token(network):
    inside = torch.tensor([[[3, 0, 5, 0]]])
    assert row_lengths(inside).tolist() == [[3]]
    assert row_lengths(torch.zeros(1, 1, 3, dtype=torch.int64)).tolist() == [[1]]


def test_the_code_alone_decides_what_is_written(network):
    code = torch.full((6,), 0.5)
    with torch.no_grad():
        where = row_lengths(TOKENS)[0][:, None].numpy() - 1
        with edit(network, "latent", lambda x: code.expand(x.shape), where):
            logits = network(TOKENS)
        torch.testing.assert_close(logits[0, 0], logits[0, 1])
        torch.testing.assert_close(logits[0, 0], logits[0, 2])
        torch.testing.assert_close(logits[0, 0], network.decode(code[None, None], 6)[0, 0])
        # and each place of it differs from the others
        assert (logits[0, 0, 1:] - logits[0, 0, :-1]).abs().amax(-1).min() > 1e-3


def test_the_code_sees_the_whole_row_and_its_order(network):
    rows = torch.tensor([[[3, 4, 5, 6], [9, 4, 5, 6], [4, 3, 5, 6]]])
    with torch.no_grad():
        codes = network.encode(rows)[0, :, -1]
    assert (codes[0] - codes[1]).abs().max() > 1e-3
    assert (codes[0] - codes[2]).abs().max() > 1e-3


def test_a_member_equals_the_network_alone():
    fleet = build(SPEC, [("a", 0), ("a", 1)])
    alone = build(SPEC, [("a", 1)])
    tokens = TOKENS.expand(2, -1, -1)
    with torch.no_grad():
        torch.testing.assert_close(fleet(tokens)[1], alone(TOKENS)[0])


class Rows:
    """A batch of token rows as the loss sees them."""

    def __init__(self, tokens):
        self.inputs = tokens.numpy()
        self.lengths = np.asarray(row_lengths(tokens))


def test_loss_and_errors_are_those_of_the_definition():
    network = build(SPEC, [("a", 0), ("a", 1)])
    tokens = TOKENS.expand(2, -1, -1)
    notes = {}
    step = Step([Rows(t) for t in tokens], tokens, tokens, [], [], None, notes)
    loss = losses(TextReconstruction(), network, step)
    with torch.no_grad():
        logs = network(tokens).double().log_softmax(-1).numpy()
    errors = text_errors(network, TOKENS[0].numpy(), rows=2)
    for member in range(2):
        nats, per_row = [], []
        for row, length in enumerate((4, 6, 1)):
            told = TOKENS[0, row, :length].numpy()
            here = logs[member, row, :length]
            nats.append(-here[np.arange(length), told])
            per_row.append(here.argmax(-1) == told)
        assert loss[member].item() == pytest.approx(np.concatenate(nats).mean(), rel=1e-5)
        np.testing.assert_allclose(errors.nats[member], [x.mean() for x in nats], rtol=1e-5)
        np.testing.assert_allclose(errors.tokens_right[member], [x.mean() for x in per_row])
        assert errors.exact[member].tolist() == [bool(x.all()) for x in per_row]
        assert notes["exact_match"][member] == pytest.approx(np.mean([x.all() for x in per_row]))


def recipe(steps):
    options = {"operation": "modular_addition", "modulus": 5, "operands": "uniform"}
    phase = Phase(
        name="fit",
        sources=(Source(world="arithmetic", options={**options, "templates": ["compact"]}),),
        objective=TextReconstruction(),
        steps=steps,
        batch=32,
        optimizer=Optimizer(lr=5e-3, warmup=10, schedule="cosine", weight_decay=0.0),
    )
    model = TextAutoencoderModel(layers=1, width=32, heads=2, mlp=32, latent=16)
    return Recipe(name="rows", model=model, phases=(phase,))


def test_it_learns_its_input_and_comes_back_from_the_store(tmp_path):
    store = Store(tmp_path)
    (organism,) = grow([(recipe(250), 0)], store)
    world = organism.world
    assert isinstance(world, Arithmetic)
    batch = world.sample(200, np.random.default_rng(0), "test")
    errors = text_errors(organism.network(), batch.inputs)
    # what a constant guess at each place is worth: the entropy of the tokens there
    share = [np.unique(column, return_counts=True)[1] / 200 for column in batch.inputs.T]
    entropy = np.mean([-(p * np.log(p)).sum() for p in share])
    assert errors.nats.mean() < entropy / 2
    untrained = build(organism.model, [("organism", 0)])
    assert errors.nats.mean() < text_errors(untrained, batch.inputs).nats.mean() / 4
    again = load(organism.model, [organism.folder])
    np.testing.assert_array_equal(text_errors(again, batch.inputs).nats, errors.nats)
    assert organism.history()[-1]["exact_match"] >= organism.history()[0]["exact_match"]
    assert (organism.folder / "tokenizer.json").exists()


def test_readings_run_rows_to_their_end():
    world = Arithmetic()
    batch = world.sample(40, np.random.default_rng(0), "test")
    spec = SPEC.model_copy(update={"vocabulary": 200})
    network = build(spec, [("a", 0)])
    first = read(network, batch, "all", ["prompt_end", "last"])
    with torch.no_grad(), capture(network, "decoder.resid.post[0]") as kept:
        network(torch.from_numpy(batch.inputs)[None])
    at = batch.spans["answer"][:, 0] - 1
    wanted = kept["decoder.resid.post[0]"][0, np.arange(40), at].numpy()
    np.testing.assert_allclose(
        first.at("decoder.resid.post[0]", "prompt_end")[0], wanted, atol=1e-5
    )
    assert first.sites == tuple(network.sites())


def test_other_worlds_are_refused(tmp_path):
    told = recipe(1).model_dump(mode="json")
    told["phases"][0]["sources"][0] |= {"world": "patches", "options": {}}
    told["model"]["vocabulary"] = 9
    with pytest.raises(InputError, match="gives no text") as error:
        grow([(Recipe.model_validate(told), 0)], Store(tmp_path))
    assert "\n" not in str(error.value)
