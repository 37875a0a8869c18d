"""A fleet that needs nothing from the organisms: a causal toy whose activations are known."""

import numpy as np
import pytest
import torch
from torch import nn

from terrarium.organisms.network import Site
from terrarium.worlds.base import Batch

V, WIDTH = 11, 6


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tensors of this size are ten times slower when threads of several workers meet."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Mix(nn.Module):
    """Adds the running mean of the past, member by member, and passes a tuple on."""

    def __init__(self, members):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(members, WIDTH, WIDTH) / 2)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        steps = torch.arange(1, x.shape[2] + 1)[:, None]
        past = x.cumsum(2) / steps
        return x + self.dropout(torch.einsum("mntc,mcd->mntd", past, self.weight)), "extra"


class Fleet(nn.Module):
    """A stub `Network` of (member, n, t) tokens; the unembedding is its own transposed table."""

    def __init__(self, members=3, layers=2):
        super().__init__()
        self.members, self.vocabulary, self.name = members, V, "stub"
        self.table = nn.Parameter(torch.randn(members, V, WIDTH))
        self.blocks = nn.ModuleList(Mix(members) for _ in range(layers))
        self.entry = nn.Identity()
        self.tokens_seen = []

    def forward(self, inputs):
        self.tokens_seen.append(inputs.shape)
        x = torch.stack([t[i] for t, i in zip(self.table, inputs, strict=True)])
        x = self.entry(x)
        for block in self.blocks:
            x, _ = block(x)
        return torch.einsum("mntc,mvc->mntv", x, self.table)

    def sites(self):
        found = {"embed": Site(self.entry)}
        found |= {f"resid.post[{i}]": Site(b) for i, b in enumerate(self.blocks)}
        return found

    def member_parameters(self, member):
        return [self.table]


@pytest.fixture
def fleet():
    torch.manual_seed(0)
    return Fleet()


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    lengths = np.array([5, 9, 3, 7, 9])
    inputs = rng.integers(0, V, (5, 9))
    spans = {
        "answer": np.stack([lengths - 1, lengths], axis=1),
        "name": np.array([[0, 2], [3, 5], [1, 1], [2, 3], [4, 8]]),
    }
    return Batch(inputs, np.full_like(inputs, -100), {"row": np.arange(5)}, spans, lengths)
