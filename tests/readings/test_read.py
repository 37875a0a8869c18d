import copy

import numpy as np
import pytest
import torch
from torch import nn

from terrarium.errors import InputError, ModelError
from terrarium.organisms.network import Site
from terrarium.organisms.recipe import TransformerModel
from terrarium.organisms.transformer import Transformer
from terrarium.readings.hooks import Edit, edit
from terrarium.readings.read import read
from terrarium.readings.stored import load_reading
from terrarium.worlds.base import Batch


def own_transformer():
    spec = TransformerModel(layers=2, width=16, heads=2, mlp=24, vocabulary=11)
    return Transformer(spec, [("a",), ("b",), ("c",)])


@pytest.fixture(params=["stub", "own"])
def network(request, fleet):
    return fleet if request.param == "stub" else own_transformer()


def expected(network, batch, row, answers):
    """One example alone, with nothing behind it."""
    x = torch.from_numpy(batch.inputs[row, : batch.lengths[row]])
    network.eval()
    with torch.no_grad():
        logits = network(x.expand(network.members, 1, -1))
    end = batch.spans["answer"][row, 0] - 1
    return logits[:, 0, end, answers].log_softmax(-1).numpy(), logits[:, 0, end].softmax(-1)


def test_says_is_the_law_over_the_answers_before_the_answer(network, batch):
    reading = read(network, batch, answers=[2, 7, 4])
    assert reading.says.shape == (3, 5, 3)
    assert reading.says.dtype == np.float32
    mass = torch.zeros(3)
    for row in range(5):
        says, whole = expected(network, batch, row, [2, 7, 4])
        np.testing.assert_allclose(reading.says[:, row], says, atol=1e-5)
        mass += whole[:, [2, 7, 4]].sum(-1) / 5
    np.testing.assert_allclose(reading.notes["answer_mass"], mass.numpy(), atol=1e-5)
    np.testing.assert_allclose(np.exp(reading.says).sum(-1), 1, atol=1e-5)
    each = np.stack([np.roll([2, 7, 4], i) for i in range(5)])  # answers of each row's own
    again = read(network, batch, answers=each)
    for row in range(5):
        np.testing.assert_allclose(
            again.says[:, row], np.roll(reading.says[:, row], row, axis=-1), atol=1e-6
        )


def test_shape_facts_and_repr(network, batch):
    reading = read(network, batch, positions=("prompt_end", "last"), model="mine")
    assert reading.activations["resid.post[1]"].shape[:3] == (3, 5, 2)
    assert (reading.members, reading.n, reading.says) == (3, 5, None)
    assert reading.facts["row"].tolist() == [0, 1, 2, 3, 4]
    assert "mine: member=3, n=5, position=2; sites resid.post[0], resid.post[1]" in repr(reading)
    assert reading.at("resid.post[1]", "last").shape[:2] == (3, 5)
    with pytest.raises(InputError, match="'lst' was not read; did you mean 'last'"):
        reading.at("resid.post[1]", "lst")
    with pytest.raises(InputError, match=r"did you mean 'resid\.post"):
        reading.at("resid.past[1]", "last")


def test_batches_padding_fleet_and_what_follows_change_nothing(network, batch):
    options = {"sites": "all", "positions": ("prompt_end", "last"), "answers": [2, 7]}
    whole = read(network, batch, **options)
    wide = np.concatenate([batch.inputs, np.full((5, 4), -7)], axis=1)
    wide[np.arange(13) >= batch.lengths[:, None]] = 99  # no tokens of this vocabulary
    padded = Batch(wide, wide, batch.facts, batch.spans, batch.lengths)
    for other in (
        read(network, batch, batch_tokens=1, **options),
        read(network, batch, batch_tokens=40, **options),
        read(network, padded, **options),
    ):
        same(whole, other)
    rows = np.array([4, 0, 2, 3, 1])
    same(whole.take(rows), read(network, batch.take(rows), **options))
    if hasattr(network, "select"):
        alone = read(network.select([1]), batch, **options)
        for site in alone.sites:
            np.testing.assert_allclose(
                alone.activations[site][0], whole.activations[site][1], atol=1e-5
            )


def test_edits_find_their_rows_and_positions(network, batch):
    """Every example alone, edited by hand, against all of them sorted and padded."""
    network.eval()
    last = list(network.sites())[-1]
    options = {"sites": last, "answers": [2, 7]}
    for position in ("prompt_end", "first:answer", "last"):
        change = Edit("embed", lambda v: v * -2, position)
        whole = read(network, batch, edits=[change], **options)
        small = read(network, batch, edits=[change], batch_tokens=1, **options)
        same(whole, small)
        for row in range(5):
            length = batch.lengths[row]
            x = torch.from_numpy(batch.inputs[row : row + 1, :length])
            at = length - 2 if position == "prompt_end" else length - 1
            with torch.no_grad(), edit(network, "embed", change.fn, np.array([[at]])):
                logits = network(x.expand(network.members, 1, -1))
            says = logits[:, 0, length - 2, [2, 7]].log_softmax(-1)
            np.testing.assert_allclose(whole.says[:, row], says, atol=1e-5)
    plain = read(network, batch, **options)
    same(plain, whole)  # what follows the answer's prompt cannot change it
    moved = read(network, batch, edits=[Edit("embed", lambda v: v * -2)], **options)
    assert (np.abs(moved.says - plain.says).max(axis=(0, 2)) > 1e-3).all()
    unchanged = read(network, batch, edits=[Edit(last, lambda v: v)], **options)
    np.testing.assert_array_equal(unchanged.says, plain.says)
    with pytest.raises(InputError, match="no site 'embe'; did you mean 'embed'"):
        read(network, batch, edits=[Edit("embe", lambda v: v)])


def test_runs_only_as_far_as_it_must(fleet, batch):
    read(fleet, batch, positions=("first:answer",), batch_tokens=10**6)
    assert [tuple(s) for s in fleet.tokens_seen] == [(3, 5, 9)]
    fleet.tokens_seen.clear()
    first = Batch(batch.inputs, batch.targets, {}, {"x": np.tile([0, 1], (5, 1))}, batch.lengths)
    read(fleet, first, positions=("first:x",))
    assert [tuple(s) for s in fleet.tokens_seen] == [(3, 5, 1)]
    fleet.tokens_seen.clear()
    read(fleet, batch, positions=("last",), batch_tokens=54)  # 54 = 3 members x 18 tokens
    assert [tuple(s) for s in fleet.tokens_seen] == [(3, 2, 9), (3, 2, 7), (3, 1, 3)]


def test_all_positions_are_nan_beyond_the_length(network, batch):
    reading = read(network, batch, positions="all")
    values = reading.activations["resid.post[1]"]
    beyond = np.arange(9) >= batch.lengths[:, None]
    assert np.isnan(values[:, beyond]).all()
    assert np.isfinite(values[:, ~beyond]).all()
    assert "not_finite" not in reading.notes
    last = read(network, batch, positions=("last",)).at("resid.post[1]")
    np.testing.assert_allclose(values[:, np.arange(5), batch.lengths - 1], last, atol=1e-5)


def test_goes_to_disk_past_the_limit(network, batch, tmp_path):
    options = {"sites": "all", "positions": ("prompt_end", "last"), "answers": [2, 7]}
    whole = read(network, batch, **options)
    with pytest.raises(InputError, match="name a folder"):
        read(network, batch, memory_limit_bytes=100, **options)
    small = {"memory_limit_bytes": 100, "batch_tokens": 20, "folder": tmp_path / "out"}
    streamed = read(network, batch, **small, **options)
    assert isinstance(streamed.activations["embed"], np.memmap)
    same(whole, streamed)
    same(whole, load_reading(tmp_path / "out"))
    assert streamed.notes["answer_mass"] == pytest.approx(whole.notes["answer_mass"])
    assert streamed.positions == whole.positions
    with pytest.raises(InputError, match="holds something already"):
        read(network, batch, **small, **options)
    read(network, batch, folder=tmp_path / "unused", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_interrupted_reading_leaves_nothing_on_disk(fleet, batch, tmp_path):
    class Interrupt:
        def start(self, *_):
            pass

        def advance(self, *_):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read(fleet, batch, memory_limit_bytes=1, folder=tmp_path / "out", progress=Interrupt())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_halves_the_batch_when_memory_runs_out(fleet, batch, monkeypatch, kind):
    whole = read(fleet, batch, answers=[1, 2])
    plain, sizes = fleet.forward, []

    def tight(inputs):
        sizes.append(inputs.shape[1])
        if inputs.shape[1] * inputs.shape[2] > room:
            if kind == "cuda":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return plain(inputs)

    monkeypatch.setattr(fleet, "forward", tight)
    room = 16
    same(whole, read(fleet, batch, answers=[1, 2]))
    assert sizes[:3] == [5, 2, 2] or sizes[:3] == [5, 2, 1]
    room = 4
    with pytest.raises(ModelError, match="does not fit in the memory of cpu"):
        read(fleet, batch, answers=[1, 2])

    def broken(inputs):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(fleet, "forward", broken)
    with pytest.raises(RuntimeError, match="multiplied"):
        read(fleet, batch)


def test_progress_counts_examples(fleet, batch):
    log = []

    class Log:
        def start(self, task, total, unit="steps"):
            log.append((total, unit))

        def advance(self, task, amount=1.0, note=""):
            log.append(amount)

        def finish(self, task):
            log.append("done")

    read(fleet, batch, batch_tokens=30, progress=Log())
    assert log[0] == (5, "examples")
    assert sum(log[1:-1]) == 5
    assert log[-1] == "done"


def test_dropout_is_off_and_every_module_gets_its_mode_back(fleet, batch):
    fleet.train()
    fleet.blocks[0].eval()
    one, two = read(fleet, batch), read(fleet, batch)
    same(one, two)
    assert fleet.training
    assert not fleet.blocks[0].dropout.training
    assert fleet.blocks[1].dropout.training


def test_own_transformer_computes_only_the_logits_asked_for(batch, monkeypatch):
    network, shapes = own_transformer(), []
    plain = network.unembed
    monkeypatch.setattr(network, "unembed", lambda x: shapes.append(x.shape[2]) or plain(x))
    read(network, batch, batch_tokens=10**6)
    read(network, batch, batch_tokens=10**6, answers=[1, 2])
    assert shapes == [1, 4]  # none needed; four different prompt ends


def test_training_after_reading(batch):
    """Tables that a network keeps between calls must still be fit for training."""
    network = own_transformer()
    read(network, batch)
    network(torch.from_numpy(batch.inputs[:, :8]).expand(3, -1, -1)).sum().backward()


def test_members_that_are_not_finite_are_named(fleet, batch):
    sick = copy.deepcopy(fleet)
    with torch.no_grad():
        sick.table[1] = float("nan")
    reading = read(sick, batch, positions="all", answers=[1, 2])
    assert reading.notes["not_finite"]["resid.post[1]"] == [1]
    assert reading.notes["not_finite"]["says"] == [1]
    assert np.isfinite(reading.at("resid.post[0]", "0")[[0, 2]]).all()
    with torch.no_grad():
        sick.table[:] = float("inf")
    with pytest.raises(ModelError, match="in every member"):
        read(sick, batch)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"positions": None}, "read at positions"),
        ({"answers": [3]}, "at least two"),
        ({"answers": [3.0, 4.0]}, "token ids"),
        ({"answers": [3, 3]}, "same token"),
        ({"answers": np.zeros((2, 2), np.int64)}, "for 2 examples and there are 5"),
        ({"answers": [3, 11]}, "vocabulary has 11"),
        ({"sites": "resid.pre"}, "no site 'resid.pre'; did you mean"),
        ({"sites": []}, "No site is named"),
    ],
)
def test_refusals(fleet, batch, options, match):
    with pytest.raises(InputError, match=match):
        read(fleet, batch, **options)


def test_refuses_foreign_tokens_long_texts_and_nothing(fleet, batch):
    bad = batch.inputs.copy()
    bad[3, 2] = 11
    changed = Batch(bad, bad, {}, batch.spans, batch.lengths)
    with pytest.raises(InputError, match="Row 3 holds token 11"):
        read(fleet, changed)
    fleet.context = 6
    with pytest.raises(InputError, match="Row 1 needs 8 tokens and the model was made for 6"):
        read(fleet, batch)
    with pytest.raises(InputError, match="no examples"):
        read(fleet, batch.take(np.zeros(5, bool)))


class Unused(nn.Module):
    members = 1

    def __init__(self):
        super().__init__()
        self.spare, self.table = nn.Identity(), nn.Parameter(torch.randn(1, 11, 2))

    def forward(self, inputs):
        return self.table[0][inputs]

    def sites(self):
        return {"resid.post[0]": Site(self.spare)}

    def member_parameters(self, member):
        return [self.table]


def test_refuses_a_site_without_part_in_the_forward_pass(batch):
    with pytest.raises(InputError, match="took no part"):
        read(Unused(), batch)


class Field(nn.Module):
    members = 2

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3, 5))
        self.hidden = nn.ReLU()

    def forward(self, x):
        return self.hidden(torch.bmm(x, self.weight)).sum(-1, keepdim=True)

    def sites(self):
        return {"mlp.act[0]": Site(self.hidden)}

    def member_parameters(self, member):
        return [self.weight]


def test_coordinates_have_no_positions():
    field, x = Field(), np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    batch = Batch(x, np.zeros((7, 1)), {"row": np.arange(7)})
    with pytest.raises(InputError, match="positions=None"):
        read(field, batch, sites="all")
    reading = read(field, batch, sites="all", positions=None)
    hidden = np.maximum(np.einsum("nd,mdh->mnh", x, field.weight.detach().numpy()), 0)
    np.testing.assert_allclose(reading.at("mlp.act[0]"), hidden, atol=1e-5)
    np.testing.assert_allclose(reading.says, hidden.sum(-1, keepdims=True), atol=1e-5)
    assert reading.axes == ("member", "n", "channel")
    small = read(field, batch, sites="all", positions=None, batch_tokens=4)
    np.testing.assert_allclose(small.says, reading.says, atol=1e-6)


class Pictures(nn.Module):
    members = 2

    def __init__(self):
        super().__init__()
        self.early, self.latent = nn.Identity(), nn.Identity()

    def forward(self, x):
        scale = torch.tensor([1.0, 2.0])[:, None, None, None, None]
        x = self.early(x * scale)
        return x + self.latent(x.mean((3, 4)))[..., None, None]

    def sites(self):
        return {"early": Site(self.early), "latent": Site(self.latent)}

    def member_parameters(self, member):
        return []


def test_images_come_with_the_channel_last():
    x = np.random.default_rng(0).random((5, 3, 4, 6), np.float32)
    reading = read(Pictures(), Batch(x, x, {}), sites="all", positions=None)
    assert reading.axes == ("member", "n", "row", "column", "channel")
    assert reading.activations["early"].shape == (2, 5, 4, 6, 3)
    np.testing.assert_allclose(reading.activations["early"][1], 2 * x.transpose(0, 2, 3, 1))
    latent = reading.activations["latent"]  # a vector is an image of one pixel
    np.testing.assert_allclose(latent[0, :, 0, 0], x.mean((2, 3)), atol=1e-6)
    assert reading.says.shape == (2, 5, 3, 4, 6)
    assert "row=4, column=6" in repr(reading)


def same(one, other):
    assert one.sites == other.sites
    for site in one.sites:
        np.testing.assert_allclose(
            one.activations[site], other.activations[site], atol=1e-5, rtol=1e-5
        )
    if one.says is not None:
        np.testing.assert_allclose(one.says, other.says, atol=1e-5)
    np.testing.assert_array_equal(one.facts["row"], other.facts["row"])
