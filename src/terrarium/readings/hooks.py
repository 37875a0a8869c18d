"""Plain PyTorch hooks at named sites: look at activations, or change them, at chosen positions.

Hooks fire in the order in which they were put in place: ``capture`` inside ``edit`` sees the
edited values, ``edit`` inside ``capture`` leaves the captured ones as they were at that site.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrarium.errors import InputError, did_you_mean
from terrarium.organisms.network import Network, Site

Where = NDArray[np.int64] | Tensor
"""``(n, p)`` int64 token positions; -1 stands for "this example has none"."""


def choose_sites(network: Network, sites: str | Sequence[str]) -> list[str]:
    """Return full names of sites, in the order of the forward pass.

    Each of ``sites`` is a full name (``"resid.post[2]"``), a name counted from the end
    (``"resid.post[-1]"``), a stream (``"resid.post"``: all its layers) or ``"all"``.
    Raises ``InputError`` with a did-you-mean.
    """
    return _choose(list(network.sites()), sites)


def _choose(known: list[str], sites: str | Sequence[str]) -> list[str]:
    chosen: set[str] = set()
    for name in [sites] if isinstance(sites, str) else sites:
        layers = [s for s in known if s.partition("[")[0] == name]
        backwards = re.fullmatch(r"(.+)\[-(\d+)\]", name)
        if name == "all":
            chosen.update(known)
        elif name in known:
            chosen.add(name)
        elif layers:
            chosen.update(layers)
        elif backwards and (stream := [s for s in known if s.startswith(f"{backwards[1]}[")]):
            if not 1 <= int(backwards[2]) <= len(stream):
                raise InputError(f"There is no site '{name}'; there are {len(stream)} layers.")
            chosen.add(stream[-int(backwards[2])])
        else:
            streams = {s.partition("[")[0] for s in known}
            raise InputError(f"There is no site '{name}'{did_you_mean(name, {*known, *streams})}")
    if not chosen:
        raise InputError("No site is named; name at least one, such as 'resid.post'.")
    return [name for name in known if name in chosen]


@contextmanager
def capture(
    network: Network, sites: str | Sequence[str], positions: Where | None = None
) -> Iterator[dict[str, Tensor]]:
    """Keep activations during forward passes inside the block; each pass replaces the last.

    Parameters
    ----------
    network, sites:
        What to look at; see `choose_sites`.
    positions:
        ``(n, p)``: only these are copied, inside the hook, so that nothing else is kept alive;
        NaN where the position is -1.  None keeps all (and is for networks without sequences).

    Yields site to ``(member, n, p, channel)``, or what the site holds where ``positions`` is
    None, in the model's dtype, on its device, with gradients if they are enabled.  The hooks are
    removed at the end, whatever happens inside.
    """
    kept: dict[str, Tensor] = {}
    found = network.sites()
    index = None if positions is None else _Index(positions)
    with ExitStack() as hooks:
        for name in _choose(list(found), sites):

            def look(value: Tensor, name: str = name, site: Site = found[name]) -> None:
                lifted = _lift(value, site, index, name)
                kept[name] = lifted.clone() if index is None else index.gather(lifted, name)

            hooks.callback(_attach(found[name], look))
        yield kept


@dataclass(frozen=True)
class Edit:
    """An edit by name: `edit` at ``site``, at the named ``position`` (None without sequences).

    ``fn`` must treat all rows alike: `terrarium.readings.read.read` runs examples in an order of
    its own.
    """

    site: str
    fn: Callable[[Tensor], Tensor]
    position: str | None = "prompt_end"


@contextmanager
def edit(
    network: Network,
    site: str,
    fn: Callable[[Tensor], Tensor],
    positions: Where | None = None,
) -> Iterator[None]:
    """Change activations at one site and at exactly the named positions, nowhere else.

    Parameters
    ----------
    network, site:
        Where; one site.
    fn:
        Takes ``(member, n, channel)`` (called once for each column of ``positions``) and returns
        the same shape.  Rows follow the batch; what it returns for an example without the
        position (-1) is ignored.
    positions:
        ``(n, p)``; None for networks without sequences, where ``fn`` sees the whole activation.

    Where ``fn`` is the identity, outputs are the same to the bit.  The hook is removed at the
    end, whatever happens inside.
    """
    found = network.sites()
    (name,) = _one(_choose(list(found), site), site)
    where = found[name]
    index = None if positions is None else _Index(positions)

    def change(value: Tensor) -> Tensor:
        lifted = _lift(value, where, index, name)
        if index is not None:
            new = index.put(lifted, fn, name)
        elif lifted.dim() == 4:
            raise InputError(f"Editing '{name}' of sequences needs positions; name them.")
        else:
            new = _same(fn(lifted), lifted, name)
        return new.reshape(value.shape)

    remove = _attach(where, change)
    try:
        yield
    finally:
        remove()


def _one(names: list[str], asked: str) -> list[str]:
    if len(names) != 1:
        raise InputError(f"An edit is made at one site and '{asked}' names {len(names)}.")
    return names


class _Index:
    """Positions ``(n, p)`` and the indexing they stand for."""

    def __init__(self, positions: Where) -> None:
        where = torch.as_tensor(positions, device="cpu").long()
        if where.dim() != 2:
            raise ValueError(f"positions must be (n, p), got {tuple(where.shape)}")
        self.rows, self.columns = where.shape
        self.largest = int(where.max()) if where.numel() else -1
        self.complete = bool((where >= 0).all())
        self._where = where
        self._moved: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return row and position indices, broadcastable to ``(n, p)``, on ``device``."""
        if device not in self._moved:
            rows = torch.arange(self.rows, device=device)[:, None]
            self._moved[device] = (rows, self._where.to(device))
        return self._moved[device]

    def gather(self, x: Tensor, name: str) -> Tensor:
        """Return ``(member, n, p, channel)`` of ``x`` ``(member, n, t, channel)``."""
        self.check(x, name)
        rows, where = self.on(x.device)
        if self.complete:
            return x[:, rows, where]
        values = x[:, rows, where.clamp_min(0)]
        return values.masked_fill((where < 0)[None, :, :, None], float("nan"))

    def put(self, x: Tensor, fn: Callable[[Tensor], Tensor], name: str) -> Tensor:
        """Return a copy of ``x`` with ``fn`` applied at the positions."""
        self.check(x, name)
        rows, where = self.on(x.device)
        new = x.clone()
        for column in range(self.columns):
            at = where[:, column]
            old = x[:, rows[:, 0], at.clamp_min(0)]
            changed = _same(fn(old), old, name)
            has = at >= 0
            new[:, rows[has, 0], at[has]] = changed[:, has]
        return new

    def check(self, x: Tensor, name: str) -> None:
        """Raise ``InputError`` where ``x`` is not ``(member, n, t, channel)`` with room for all."""
        if x.dim() != 4:
            raise InputError(
                f"The site '{name}' holds {tuple(x.shape)} and has no positions; "
                "use positions=None there."
            )
        if x.shape[1] != self.rows or x.shape[2] <= self.largest:
            raise InputError(
                f"Positions for {self.rows} examples up to token {self.largest} do not fit the "
                f"site '{name}', which holds {x.shape[1]} examples of {x.shape[2]} tokens; "
                "resolve them on the batch that is run (and without a cache)."
            )


def _same(new: Tensor, old: Tensor, name: str) -> Tensor:
    if new.shape != old.shape:
        raise ValueError(
            f"an edit at '{name}' must keep the shape {tuple(old.shape)}, got {tuple(new.shape)}"
        )
    return new.to(old.dtype)


def _lift(x: Tensor, site: Site, index: _Index | None, name: str) -> Tensor:
    """Return ``x`` with the member axis, whatever the site's layout."""
    if site.layout == "fleet":
        return x
    if site.layout == "flat" and x.dim() == 2:
        if index is None:
            raise InputError(f"The site '{name}' holds flattened tokens; name positions to read.")
        if not index.rows or x.shape[0] % index.rows:
            raise InputError(
                f"The site '{name}' holds {x.shape[0]} tokens, which {index.rows} examples "
                "cannot share; resolve positions on the batch that is run."
            )
        x = x.view(index.rows, -1, x.shape[-1])
    return x.unsqueeze(0)


def _attach(site: Site, see: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
    """Hook ``see`` to a site; what it returns, unless None, takes the activation's place."""

    def output_hook(_module: Any, _inputs: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return see(output)
        new = see(output[site.index])
        return None if new is None else _replaced(output, site.index, new)

    def input_hook(_module: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        if len(args) > site.index:
            new = see(args[site.index])
            return None if new is None else (_replaced(args, site.index, new), options)
        name = "hidden_states" if "hidden_states" in options else next(iter(options))
        new = see(options[name])
        return None if new is None else (args, {**options, name: new})

    if site.side == "input":
        return site.module.register_forward_pre_hook(input_hook, with_kwargs=True).remove
    return site.module.register_forward_hook(output_hook).remove


def _replaced(values: Any, index: int, new: Tensor) -> Any:
    changed = list(values)
    changed[index] = new
    return tuple(changed) if isinstance(values, tuple) else changed
