"""Exact effects: what a unit, a feature or a direction does to a quantity whose truth is known.

A feature at a site is a coefficient ``c(a)`` of the activation and a direction: the network gets
``a`` with ``c(a)`` times the direction taken out (or put in) and runs on; nothing is linearised.
Beside each feature stand random directions of the same displacement at every example and place
(Marks & Tegmark 2023, arXiv 2310.06824, and MacDiarmid et al. 2024 use norm-matched controls): any
large enough shove changes an output.  For dictionaries the reconstruction error stays in, as in
Marks et al. 2024, *Sparse feature circuits*, arXiv 2403.19647, sec. 2.

Many features share one forward pass: their changed copies are stacked along the example axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from terrarium.errors import InputError, did_you_mean
from terrarium.instruments.control_directions import ROWS
from terrarium.instruments.effect_inputs import check_images, like_weights
from terrarium.instruments.site_features import SiteFeatures
from terrarium.organisms.network import Network
from terrarium.progress import Progress, Silent
from terrarium.readings.hooks import capture, choose_sites, edit

Float = NDArray[np.float64]
Quantity = Callable[[NDArray[Any]], NDArray[Any]]
"""Takes one member's outputs of all examples ``(n, ...)``; returns ``(n,)`` or one number at each
place, ``(n, rows, columns)``; see `terrarium.instruments.quantities`."""
How = Literal["zero", "mean", "add"]
_PASS = 2**22  # numbers of inputs and activations that one pass holds, all members together


@dataclass(frozen=True, eq=False)
class Effects:
    """What features do to a quantity, in its units.

    Attributes
    ----------
    names:
        The ``k`` features.
    before:
        ``(member, n)`` the quantity of each example, untouched (over places: its mean).
    change:
        ``(member, k, n)`` how much it rises when the feature is taken out (or put in).
    maps:
        ``(member, k, rows, columns)`` the same over places, mean over the examples; None where
        the quantity is one number for an example.
    displacement:
        ``(member, k, n)`` Euclidean length of the change at the site, all places together.
    random:
        ``(member, k, draws, n)`` as ``change``, for random directions of the same displacement.
    varying:
        The same for random directions in which the site varies.
    """

    names: tuple[str, ...]
    before: Float = field(repr=False)
    change: Float = field(repr=False)
    maps: Float | None = field(repr=False)
    displacement: Float = field(repr=False)
    random: Float = field(repr=False)
    varying: Float = field(repr=False)

    def __repr__(self) -> str:
        """Say how many features, examples and random directions there are."""
        members, k, n = self.change.shape
        return f"Effects({members} x {k} features, {n} examples, {self.random.shape[2]} random)"

    @property
    def mean(self) -> Float:
        """``(member, k)`` mean change over the examples."""
        return np.asarray(self.change.mean(-1))

    @property
    def random_mean(self) -> Float:
        """``(member, k, draws)`` mean change over the examples, random directions."""
        return np.asarray(self.random.mean(-1))


def exact_effects(
    network: Network,
    inputs: Any,
    site: str,
    features: SiteFeatures,
    quantity: Quantity,
    *,
    how: How = "zero",
    amount: float = 1.0,
    randoms: int = 0,
    varying: int = 0,
    positions: NDArray[np.int64] | None = None,
    extra: Mapping[str, Any] | None = None,
    key: Sequence[str | int] = (),
    pass_values: int = _PASS,
    progress: Progress | None = None,
) -> Effects:
    """Return what each feature's removal or addition does to ``quantity``.

    Parameters
    ----------
    network:
        A fleet of any architecture, as trained.
    inputs:
        ``(n, ...)`` array or tensor: tokens, coordinates or images, the same for all members;
        real numbers are turned to the network's own precision.
    site, features:
        One site, and the features at it (`units`, `along`, `dictionary_features`).
    quantity:
        See `Quantity`; called once for each member and feature with the outputs ``(n, ...)``.
    how, amount:
        ``"zero"`` takes the coefficient out, ``"mean"`` sets it to its mean over examples and
        places, ``"add"`` adds ``amount`` of its standard deviations everywhere.
    randoms:
        So many random directions for each feature.  A random direction moves each example at
        each place as far as the feature does (and with the same sign pattern over examples and
        places); its own sign is such that what is taken from the activations is taken, too.
    varying:
        So many more with the covariance of the site's activations, where channels differ much.
    positions:
        ``(n, p)`` token positions for networks over sequences, else None.
    extra:
        Further arguments of the network by name, ``(n, ...)`` each (noise levels, say).
    key:
        Decides the random directions, with each feature's name.
    pass_values:
        Numbers that one stacked pass holds; more is faster until memory runs short.
    progress:
        Told of each feature and random direction.

    Raises ``InputError`` for unknown sites and ways, shapes that do not fit, numbers of random
    directions below 0, and quantities that hold NaN.
    """
    if (least := min(randoms, varying)) < 0:
        raise InputError(f"Effects: {least} random directions are asked for; give 0 or more.")
    runner = _Runner(network, inputs, site, features, positions, extra or {}, pass_values)
    plain = runner.plain(how, amount)
    k, draws = len(features.names), randoms + varying
    vectors = features.with_random(plain.along, plain.rows, randoms, varying, key)
    before = np.stack([_checked(quantity, out, runner.n) for out in plain.outputs])
    spatial = before.ndim > 2
    change = np.empty((runner.members, k, 1 + draws, runner.n))
    maps = np.zeros((runner.members, k, *before.shape[2:])) if spatial else None
    shown = progress or Silent()
    shown.start("effects", k * (1 + draws), "directions")
    jobs = [(feature, draw) for feature in range(k) for draw in range(1 + draws)]
    for chunk, outputs in runner.changed(jobs, vectors, plain):
        for place, (feature, draw) in enumerate(chunk):
            for member in range(runner.members):
                now = _checked(quantity, outputs[member, place], runner.n) - before[member]
                change[member, feature, draw] = now.reshape(runner.n, -1).mean(1)
                if maps is not None and draw == 0:
                    maps[member, feature] = now.mean(0)
        shown.advance("effects", len(chunk))
    shown.finish("effects")
    level = before.reshape(*before.shape[:2], -1).mean(-1)
    return Effects(
        features.names,
        level,
        change[:, :, 0],
        maps,
        plain.displacement,
        change[:, :, 1 : 1 + randoms],
        change[:, :, 1 + randoms :],
    )


def what_it_adds(
    network: Network,
    inputs: Any,
    site: str,
    features: SiteFeatures,
    *,
    how: Literal["zero", "mean"] = "zero",
    positions: NDArray[np.int64] | None = None,
    extra: Mapping[str, Any] | None = None,
    pass_values: int = _PASS,
) -> NDArray[np.float64]:
    """Return the output with each feature less the output without: ``(member, k, n, ...)``.

    A picture of what a feature adds, in the output's own units; arguments as in `exact_effects`.
    Ask for few features and examples: all outputs are kept.
    """
    runner = _Runner(network, inputs, site, features, positions, extra or {}, pass_values)
    plain = runner.plain(how, 1.0)
    vectors = features.with_random(plain.along, plain.rows, 0, 0, ())
    added = np.empty((runner.members, len(features.names), *plain.outputs.shape[1:]))
    jobs = [(feature, 0) for feature in range(len(features.names))]
    for chunk, outputs in runner.changed(jobs, vectors, plain):
        for place, (feature, _) in enumerate(chunk):
            added[:, feature] = plain.outputs - outputs[:, place]
    return added


@dataclass(frozen=True, eq=False)
class _Plain:
    """What one untouched pass holds: all that decides the changes."""

    outputs: NDArray[np.float64]  # (member, n, ...)
    along: Float  # (member, k, d): sum over examples and places of change times activation
    displacement: Float  # (member, k, n)
    shift: Tensor  # (member, k): what is added to scale * coefficient
    scale: float
    rows: Float  # (member, r, d): activations, some of them


class _Runner:
    """Runs a network over all examples with several changed copies in one pass."""

    def __init__(
        self,
        network: Network,
        inputs: Any,
        site: str,
        features: SiteFeatures,
        positions: NDArray[np.int64] | None,
        extra: Mapping[str, Any],
        pass_values: int,
    ) -> None:
        names = choose_sites(network, site)
        if len(names) != 1:
            raise InputError(f"Effects are measured at one site and '{site}' names {len(names)}.")
        self.network, self.site, self.features = network, names[0], features
        self.members = network.members
        parameters = network.member_parameters(0)
        self.device = parameters[0].device if parameters else torch.device("cpu")
        real = bool(parameters) and parameters[0].is_floating_point()
        like = parameters[0] if real else torch.zeros((), device=self.device)
        self.inputs = like_weights(inputs, like)
        self.extra = {name: like_weights(value, like) for name, value in extra.items()}
        self.n = len(self.inputs)
        self.positions = None if positions is None else np.asarray(positions, np.int64)
        self.pass_values, self.each = pass_values, 0
        check_images(network, self.inputs)
        sizes = {name: len(value) for name, value in self.extra.items()}
        if self.positions is not None:
            sizes["positions"] = len(self.positions)
        wrong = [name for name, size in sizes.items() if size != self.n]
        if not self.n or wrong:
            what = f"'{wrong[0]}' has {sizes[wrong[0]]} rows" if wrong else "there are no rows"
            raise InputError(f"Effects: {what} and the inputs {self.n}; give one row for each.")

    def plain(self, how: How, amount: float) -> _Plain:
        """Run untouched; coefficients and their statistics decide the changes."""
        if how not in get_args(How):
            raise InputError(f"Effects: there is no way '{how}'{did_you_mean(how, get_args(How))}")
        outputs, states = [], []
        first = 1
        at = 0
        while at < self.n:
            rows = np.arange(at, min(at + first, self.n))
            with capture(self.network, self.site, self._where(rows, 1)) as kept:
                out = self._run(rows, 1)
            if self.site not in kept:
                raise InputError(f"The site '{self.site}' took no part; choose another.")
            # float32 halves the memory of what is kept; sums are made in float64
            states.append(_channels_last(kept[self.site]).float().cpu())
            outputs.append(out.cpu())
            at += len(rows)
            self.each = self.members * max(
                self.inputs[0].numel(),
                kept[self.site][0, 0].numel(),
                out[0, 0].numel(),
            )
            first = max(1, self.pass_values // self.each)
        state = torch.cat(states, 1)
        if state.shape[-1] != self.features.width:
            raise InputError(
                f"The features live in {self.features.width} channels and the site '{self.site}' "
                f"has {state.shape[-1]}; give features of that site."
            )
        found = np.asarray(torch.cat(outputs, 1).double().numpy())
        return self._statistics(found, state, how, amount)

    def _statistics(self, outputs: Any, state: Tensor, how: How, amount: float) -> _Plain:
        missing = torch.isnan(state).any(-1, keepdim=True)
        state = torch.where(missing, 0.0, state)
        value = self.features.coefficients(state).double()
        keep = (~missing).double()
        k = value.shape[-1]
        weight = keep.expand(*value.shape[:-1], 1).reshape(self.members, -1, 1)
        flat = value.reshape(self.members, -1, k)
        count = weight.sum(1)
        mean = (flat * weight).sum(1) / count
        sd = (((flat - mean[:, None]) ** 2 * weight).sum(1) / count).sqrt()
        scale = 0.0 if how == "add" else -1.0
        nothing = torch.zeros_like(mean)
        shift = {"zero": nothing, "mean": mean, "add": amount * sd}[how]
        moved = (scale * flat + shift[:, None]) * weight
        a = state.double().reshape(self.members, -1, state.shape[-1])
        lengths = self.features.lengths(self.members)
        per_example = moved.reshape(self.members, self.n, -1, k).norm(dim=2).transpose(1, 2)
        return _Plain(
            outputs,
            np.asarray((moved.transpose(1, 2) @ a).numpy()),
            np.asarray(per_example.numpy()) * lengths[..., None],
            shift.float().to(self.device),
            scale,
            self._some(a, weight),
        )

    def _some(self, a: Tensor, weight: Tensor) -> Float:
        """Return at most `ROWS` of the activations ``(member, rows, d)`` that are there."""
        there = np.flatnonzero((weight[..., 0] > 0).all(0).numpy())
        spread = np.linspace(0, len(there) - 1, min(ROWS, len(there))).astype(int)
        return np.asarray(a[:, there[spread]].numpy())

    def changed(
        self, jobs: list[tuple[int, int]], vectors: NDArray[np.float32], plain: _Plain
    ) -> Iterator[tuple[list[tuple[int, int]], NDArray[np.float64]]]:
        """Yield jobs (feature, draw) and their outputs ``(member, job, n, ...)``."""
        together = max(1, self.pass_values // (self.each * self.n))
        rows_each = max(1, min(self.n, self.pass_values // self.each))
        for start in range(0, len(jobs), together):
            chunk = jobs[start : start + together]
            index = torch.tensor([feature for feature, _ in chunk], device=self.device)
            vector = torch.from_numpy(
                np.stack([vectors[:, feature, draw] for feature, draw in chunk], 1)
            ).to(self.device)
            parts = []
            for at in range(0, self.n, rows_each):
                rows = np.arange(at, min(at + rows_each, self.n))
                fn = self._change(len(chunk), len(rows), index, vector, plain)
                where = self._where(rows, len(chunk))
                with edit(self.network, self.site, fn, where):
                    out = self._run(rows, len(chunk))
                shape = (self.members, len(chunk), len(rows), *out.shape[2:])
                parts.append(out.reshape(shape).cpu())
            yield chunk, np.asarray(torch.cat(parts, 2).double().numpy())

    def _change(
        self, jobs: int, rows: int, index: Tensor, vector: Tensor, plain: _Plain
    ) -> Callable[[Tensor], Tensor]:
        """Return the edit that gives each stacked copy its own feature's change."""

        def change(x: Tensor) -> Tensor:
            last = _channels_last(x)
            blocks = last.reshape(self.members, jobs, rows, *last.shape[2:])
            # the copies are alike before the change, so that one of them tells the coefficients
            value = self.features.coefficients(blocks[:, 0].float())[..., index]
            between = (1,) * (value.dim() - 2)
            moved = plain.scale * value + plain.shift[:, index].view(self.members, *between, jobs)
            delta = moved.movedim(-1, 1)[..., None] * vector.view(
                self.members, jobs, *between, vector.shape[-1]
            )
            new = (blocks + delta).reshape(last.shape)
            return new.movedim(-1, 2) if x.dim() == 5 else new

        return change

    def _where(self, rows: NDArray[np.int64], copies: int) -> NDArray[np.int64] | None:
        return None if self.positions is None else np.tile(self.positions[rows], (copies, 1))

    def _run(self, rows: NDArray[np.int64], copies: int) -> Tensor:
        def stacked(x: Tensor) -> Tensor:
            tiled = x[torch.from_numpy(rows).to(x.device)]
            tiled = tiled.repeat(copies, *(1,) * (x.dim() - 1))
            return tiled.expand(self.members, *tiled.shape)

        options = {name: stacked(value) for name, value in self.extra.items()}
        with torch.no_grad(), _evaluating(self.network):
            out: Tensor = self.network(stacked(self.inputs), **options)
        return out.float() if out.dtype in (torch.float16, torch.bfloat16) else out


def _channels_last(x: Tensor) -> Tensor:
    """Return ``(member, n, ..., channel)`` of what a site holds."""
    return x.movedim(2, -1) if x.dim() == 5 else x


def _checked(quantity: Quantity, output: NDArray[Any], n: int) -> Float:
    value = np.asarray(quantity(output), np.float64)
    if not value.ndim or len(value) != n:
        raise InputError(
            f"The quantity returned shape {value.shape} for {n} examples; return (n,) or "
            "(n, rows, columns)."
        )
    if not np.isfinite(value).all():
        raise InputError("The quantity holds NaN or infinity; effects on it are not defined.")
    return value


@contextmanager
def _evaluating(network: Any) -> Iterator[None]:
    """Switch dropout and the like off; every module gets its own mode back."""
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    modes = [module.training for module in modules]
    network.train(False)
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
