import numpy as np
import pytest
import torch
from torch import nn

from terrarium.errors import InputError
from terrarium.organisms.network import Site
from terrarium.organisms.recipe import TransformerModel
from terrarium.organisms.transformer import Transformer
from terrarium.readings.hooks import capture, edit


def hooks_left(network):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def tokens(members=3):
    return torch.from_numpy(np.random.default_rng(1).integers(0, 11, (members, 4, 6)))


def test_capture_keeps_chosen_positions_alone(fleet):
    x, where = tokens(), np.array([[0, 5], [3, 3], [-1, 2], [1, 4]])
    fleet.eval()
    with capture(fleet, "all", where) as kept:
        fleet(x)
    assert list(kept) == ["embed", "resid.post[0]", "resid.post[1]"]
    stream = torch.stack([fleet.table[m][x[m]] for m in range(3)])
    for site, block in zip(kept, [None, *fleet.blocks], strict=True):
        stream = stream if block is None else block(stream)[0]
        assert kept[site].shape == (3, 4, 2, 6)
        for row, (a, b) in enumerate(where):
            torch.testing.assert_close(kept[site][:, row, 1], stream[:, row, b])
            if a >= 0:
                torch.testing.assert_close(kept[site][:, row, 0], stream[:, row, a])
    assert kept["embed"][:, 2, 0].isnan().all()
    assert hooks_left(fleet) == 0


def test_captured_values_are_copies_with_gradients(fleet):
    x = tokens()
    with capture(fleet, "embed", np.zeros((4, 1), np.int64)) as kept:
        fleet(x)
    kept["embed"].sum().backward()
    counts = torch.stack([torch.bincount(x[m, :, 0], minlength=11) for m in range(3)]).float()
    torch.testing.assert_close(fleet.table.grad, counts[..., None].expand(3, 11, 6))


def test_hooks_go_even_after_exceptions(fleet):
    where = np.zeros((4, 1), np.int64)

    def use():
        with capture(fleet, "all", where), edit(fleet, "embed", lambda v: v, where):
            assert hooks_left(fleet) == 4
            raise KeyError

    with pytest.raises(KeyError):
        use()
    with pytest.raises(InputError), capture(fleet, ["embed", "none"], where):
        pass
    assert hooks_left(fleet) == 0


def test_edit_changes_named_positions_of_every_member(fleet):
    fleet.eval()
    x, where = tokens(), np.array([[1, 3], [2, -1], [-1, -1], [5, 0]])
    everywhere = np.tile(np.arange(6), (4, 1))
    seen = []

    def fn(v):
        seen.append(v.clone())
        return v * torch.arange(1, 4)[:, None, None]  # each member its own strength

    with torch.no_grad():
        with capture(fleet, "resid.post[0]", everywhere) as before:
            clean = fleet(x)
        with (
            edit(fleet, "resid.post[0]", fn, where),
            capture(fleet, "resid.post[0]", everywhere) as after,
        ):
            fleet(x)
        with edit(fleet, "resid.post[0]", lambda v: v, where):
            assert torch.equal(fleet(x), clean)
    assert [v.shape for v in seen] == [(3, 4, 6)] * 2
    factor = torch.ones(3, 4, 6, 1)
    for row, columns in enumerate(where):
        for column in columns[columns >= 0]:
            factor[:, row, column, 0] = torch.arange(1, 4)
    old = before["resid.post[0]"]
    torch.testing.assert_close(after["resid.post[0]"], old * factor)


def test_edit_can_be_trained_through(fleet):
    fleet.eval()
    direction = torch.zeros(6, requires_grad=True)
    with edit(fleet, "embed", lambda v: v + direction, np.full((4, 1), 5)):
        fleet(tokens())[:, :, 5, 0].sum().backward()
    assert direction.grad.abs().sum() > 0


def test_misfits_get_one_sentence(fleet):
    x = tokens()
    where = np.zeros((4, 1), np.int64)
    with pytest.raises(InputError, match="up to token 6"), capture(fleet, "embed", where + 6):
        fleet(x)
    with pytest.raises(InputError, match="for 2 examples"), capture(fleet, "embed", where[:2]):
        fleet(x)
    with pytest.raises(InputError, match="needs positions"), edit(fleet, "embed", lambda v: v):
        fleet(x)
    with (
        pytest.raises(ValueError, match="must keep the shape"),
        edit(fleet, "embed", lambda v: v[..., :2], where),
    ):
        fleet(x)
    with (
        pytest.raises(InputError, match=r"'resid\.post' names 2"),
        edit(fleet, "resid.post", lambda v: v, where),
    ):
        pass
    with pytest.raises(ValueError, match=r"\(n, p\)"), capture(fleet, "embed", where[:, 0]):
        pass
    assert hooks_left(fleet) == 0


def test_edit_of_coordinates_sees_the_whole_activation():
    class Field(nn.Module):
        members = 2

        def __init__(self):
            super().__init__()
            self.hidden = nn.Linear(2, 4)

        def forward(self, x):
            return self.hidden(x).relu()

        def sites(self):
            return {"mlp.act[0]": Site(self.hidden)}

    field, x = Field(), torch.randn(2, 5, 2)
    with edit(field, "mlp.act[0]", torch.zeros_like):
        assert torch.equal(field(x), torch.zeros(2, 5, 4))
    with capture(field, "mlp.act[0]") as kept:
        torch.testing.assert_close(field(x), kept["mlp.act[0]"].relu())
    with (
        pytest.raises(InputError, match="no positions"),
        capture(field, "mlp.act[0]", np.zeros((5, 1), np.int64)),
    ):
        field(x)


def test_own_transformer_follows_the_same_grammar():
    spec = TransformerModel(layers=2, width=16, heads=2, mlp=24, vocabulary=11)
    network = Transformer(spec, [("a",), ("b",)])
    x, everywhere = tokens(2), np.tile(np.arange(6), (4, 1))
    with torch.no_grad():
        with capture(network, "all", everywhere) as kept:
            logits = network(x)
        stream = kept["embed"]
        for i in range(2):
            stream = stream + kept[f"attn.out[{i}]"] + kept[f"mlp.out[{i}]"]
            torch.testing.assert_close(stream, kept[f"resid.post[{i}]"])
            down = network.matrix(f"blocks.{i}.down")
            out = torch.einsum("mnth,mhc->mntc", kept[f"mlp.act[{i}]"], down)
            torch.testing.assert_close(out, kept[f"mlp.out[{i}]"])
        torch.testing.assert_close(network.unembed(kept["resid.post[1]"]), logits)
        where = np.array([[4], [1], [-1], [0]])
        for site in network.sites():
            with edit(network, site, lambda v: v, where):
                assert torch.equal(network(x), logits)
            with edit(network, site, lambda v: v + 1, where):
                changed = network(x)
            assert torch.equal(changed[:, 2], logits[:, 2])
            torch.testing.assert_close(changed[:, 0, :4], logits[:, 0, :4])
            assert not torch.allclose(changed[:, 0, 4], logits[:, 0, 4], atol=1e-3)
