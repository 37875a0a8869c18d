"""Reading: run a network over a batch once, keep what it says and chosen activations."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from terrarium.errors import InputError, ModelError
from terrarium.organisms.network import Network
from terrarium.progress import Progress, Silent
from terrarium.readings.hooks import Edit, capture, choose_sites, edit
from terrarium.readings.positions import MISSING, is_sequence, resolve, token_lengths
from terrarium.readings.reading import Reading
from terrarium.readings.sink import Sink
from terrarium.worlds.base import Batch

_TASK = "read"
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def read(
    network: Network,
    batch: Batch,
    sites: str | Sequence[str] = "resid.post",
    positions: str | Sequence[str] | None = ("prompt_end",),
    *,
    answers: Sequence[int] | NDArray[np.int64] | None = None,
    edits: Sequence[Edit] = (),
    batch_tokens: int | None = None,
    memory_limit_bytes: int = 2 * 2**30,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    model: str = "",
) -> Reading:
    """Return what ``network`` says and its activations on ``batch``.

    Examples run sorted by length, each only as far as the last position that is asked for (to its
    end where the network has ``whole_rows``), padded on the right.  Attention is causal, so
    neither padding nor what follows can reach a position that is read; results do not depend on
    how examples fall into batches (up to rounding), and come back in the batch's order.

    Parameters
    ----------
    network, batch:
        A fleet, and examples; all members are given the same inputs.
    sites:
        Names, streams or ``"all"``; see `terrarium.readings.hooks.choose_sites`.
    positions:
        Names; see `terrarium.readings.positions`.  None for networks without sequences.
    answers:
        Token ids of the answers, ``(k,)`` or ``(n, k)``.  ``says`` then holds ``(member, n, k)``
        log-probabilities at the token before the answer, renormalised over them, and
        ``notes["answer_mass"]`` each member's mean probability of saying any of them.  Networks
        without sequences say their raw output.
    edits:
        Changes made during the forward pass; what is captured at the same site is after them.
        (Examples run sorted, so `terrarium.readings.hooks.edit` around ``read`` would meet other
        rows than its positions were resolved for.)
    batch_tokens:
        Tokens (coordinates, pixels) per forward pass, all members together; found by itself if
        None.  Halved whenever memory runs out.
    memory_limit_bytes, folder:
        Above this size the reading is streamed to the new ``folder`` and comes back
        memory-mapped; without a folder that is an ``InputError``.
    progress, model:
        What to report to, and what to call the model (its own name if empty).

    Raises ``InputError`` for unknown sites or positions and tokens that the network cannot take,
    ``ModelError`` if one example does not fit in memory or all members' activations are NaN or
    infinite.  ``notes["not_finite"]`` lists the members that are so at a site.
    """
    plan = _plan(network, batch, sites, positions, answers)
    changes = [(e, _edited(batch, e)) for e in edits]
    shown = progress or Silent()
    with ExitStack() as stack:
        sink = Sink(len(batch), plan.where, memory_limit_bytes, folder, stack)
        stack.enter_context(_evaluating(network))
        shown.start(_TASK, len(batch), "examples")
        for rows, found, says, mass in _passes(network, plan, changes, batch_tokens):
            sink.put(rows, found, says, mass)
            shown.advance(_TASK, len(rows))
        shown.finish(_TASK)
        name = model or str(getattr(network, "name", ""))
        return sink.reading(batch.facts, plan.labels, name)


@dataclass(frozen=True)
class _Plan:
    """What is to be read: the sites, where, and how much of each example has to run."""

    inputs: NDArray[Any]
    sites: list[str]
    labels: tuple[str, ...]
    where: NDArray[np.int64] | None  # (n, p)
    stop: NDArray[np.int64]  # (n,) tokens of each example that have to run; work units otherwise
    says_at: NDArray[np.int64] | None  # (n,)
    answers: NDArray[np.int64] | None  # (n, k)


def _plan(
    network: Network,
    batch: Batch,
    sites: str | Sequence[str],
    positions: str | Sequence[str] | None,
    answers: Sequence[int] | NDArray[np.int64] | None,
) -> _Plan:
    chosen = choose_sites(network, sites)
    if not len(batch):
        raise InputError("The batch holds no examples; give at least one.")
    if not is_sequence(batch):
        if positions is not None or answers is not None:
            token_lengths(batch)  # says what is wrong
        units = int(np.prod(batch.inputs.shape[2:])) if batch.inputs.ndim > 2 else 1
        stop = np.full(len(batch), units, np.int64)
        return _Plan(batch.inputs, chosen, (), None, stop, None, None)
    if positions is None:
        raise InputError("Sequences are read at positions; name some, such as 'prompt_end'.")
    labels, where = resolve(batch, (positions,) if isinstance(positions, str) else positions)
    stop = where.max(axis=1) + 1
    at = ids = None
    if answers is not None:
        at = resolve(batch, ("prompt_end",))[1][:, 0]
        ids = _answer_ids(answers, len(batch))
        stop = np.maximum(stop, at + 1)
    if getattr(network, "whole_rows", False):  # what a code says depends on the row's end
        stop = token_lengths(batch)
    stop = np.maximum(stop, 1)
    _check_tokens(network, batch.inputs, stop, ids)
    return _Plan(batch.inputs, chosen, labels, where, stop, at, ids)


def _answer_ids(answers: Sequence[int] | NDArray[np.int64], n: int) -> NDArray[np.int64]:
    ids = np.asarray(answers)
    if not np.issubdtype(ids.dtype, np.integer) or ids.ndim not in (1, 2) or ids.shape[-1] < 2:
        raise InputError(
            f"Answers must be at least two token ids, (k,) or (n, k), got {ids.dtype} of shape "
            f"{ids.shape}; encode them first."
        )
    if ids.ndim == 2 and len(ids) != n:
        raise InputError(f"Answers are given for {len(ids)} examples and there are {n}.")
    if (np.diff(np.sort(ids, axis=-1), axis=-1) == 0).any():
        raise InputError("Two answers are the same token; name answers whose tokens differ.")
    return np.broadcast_to(ids.astype(np.int64), (n, ids.shape[-1]))


def _check_tokens(
    network: Network,
    inputs: NDArray[Any],
    stop: NDArray[np.int64],
    answers: NDArray[np.int64] | None,
) -> None:
    """Refuse tokens outside the vocabulary and examples longer than the network's context."""
    longest = int(stop.max())
    context = getattr(network, "context", None)
    if context is not None and longest > context:
        row = int(stop.argmax())
        raise InputError(
            f"Row {row} needs {longest} tokens and the model was made for {context}; shorten it."
        )
    vocabulary = getattr(network, "vocabulary", None)
    if vocabulary is None:
        return
    used = inputs[:, :longest]
    real = np.arange(longest) < stop[:, None]
    bad = real & ((used < 0) | (used >= vocabulary))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"Row {row} holds token {used[row, column]} and the model's vocabulary has "
            f"{vocabulary}; encode texts with the model's own tokenizer."
        )
    if answers is not None and (answers.min() < 0 or answers.max() >= vocabulary):
        raise InputError(
            f"The answers' token ids reach from {answers.min()} to {answers.max()} and the "
            f"model's vocabulary has {vocabulary}; encode them with its own tokenizer."
        )


_Changes = list[tuple[Edit, NDArray[np.int64] | None]]
_Pass = tuple[NDArray[np.int64], dict[str, NDArray[np.float32]], NDArray[np.float32] | None, Any]


def _edited(batch: Batch, change: Edit) -> NDArray[np.int64] | None:
    """Return ``(n, 1)`` positions of an edit."""
    return None if change.position is None else resolve(batch, (change.position,))[1]


def _passes(
    network: Network, plan: _Plan, changes: _Changes, batch_tokens: int | None
) -> Iterator[_Pass]:
    """Run the forward passes, the longest examples first, so that memory runs out early."""
    device = _device(network)
    budget = batch_tokens or (4096 if device.type == "cpu" else 65536)
    order = np.argsort(-plan.stop, kind="stable")
    sliced = "columns" in inspect.signature(_forward_of(network)).parameters
    done = 0
    while done < len(order):
        each = int(plan.stop[order[done]]) * network.members
        rows = order[done : done + max(1, budget // each)]
        try:
            result = _one_pass(network, plan, changes, rows, device, sliced)
        except RuntimeError as error:
            if not any(words in str(error) for words in _NO_MEMORY):
                raise
            result = None
        if result is None:  # outside the handler, whose traceback keeps tensors alive
            if len(rows) == 1:
                raise ModelError(
                    f"One example of {each} tokens does not fit in the memory of {device}; use "
                    "dtype bfloat16, device_map auto, fewer positions or shorter examples."
                )
            budget = each * (len(rows) // 2)
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        yield (rows, *result)
        done += len(rows)


def _one_pass(
    network: Network,
    plan: _Plan,
    changes: _Changes,
    rows: NDArray[np.int64],
    device: torch.device,
    sliced: bool,
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32] | None, Any]:
    where = None if plan.where is None else plan.where[rows]
    options: dict[str, Any] = {}
    columns = np.zeros(1, np.int64)  # without answers one column is the least that can be asked
    if where is None:
        examples = np.ascontiguousarray(plan.inputs[rows])
    else:
        # tokens that need not run are replaced: padding may be no token at all, such as -1
        length = int(plan.stop[rows].max())
        real = np.arange(length) < plan.stop[rows][:, None]
        examples = np.where(real, plan.inputs[rows, :length], 0).astype(np.int64)
        if plan.says_at is not None:
            columns = np.unique(plan.says_at[rows])
        if sliced:
            options["columns"] = torch.from_numpy(columns).to(device)
    inputs = torch.from_numpy(examples).to(device)
    # no_grad and not inference_mode: networks keep tables (rotary angles) from one call to the
    # next, and a table made in inference mode cannot take part in later training
    with torch.no_grad(), ExitStack() as hooks:
        for change, positions in changes:
            at = None if positions is None else positions[rows]
            if at is not None:  # what lies behind the last position read cannot reach it
                at = np.where(at < examples.shape[1], at, MISSING)
            hooks.enter_context(edit(network, change.site, change.fn, at))
        kept = hooks.enter_context(capture(network, plan.sites, where))
        output = network(inputs.expand(network.members, *inputs.shape), **options)
    for site in plan.sites:
        if site not in kept:
            raise InputError(f"The site '{site}' took no part in the forward pass; leave it out.")
    found = {site: _numpy(kept[site]) for site in plan.sites}
    if where is None:
        return found, _numpy(output), None
    if plan.says_at is None or plan.answers is None:
        return found, None, None
    at = np.searchsorted(columns, plan.says_at[rows]) if sliced else plan.says_at[rows]
    return found, *_say(output, at, plan.answers[rows])


def _say(
    logits: Tensor, at: NDArray[np.int64], answers: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return ``(member, n, k)`` log-probabilities and ``(member, n)`` mass of the answers."""
    n = len(at)
    here = logits[:, torch.arange(n, device=logits.device), torch.from_numpy(at).to(logits.device)]
    here = here.float()
    ids = torch.from_numpy(np.ascontiguousarray(answers)).to(here.device)
    chosen = here.gather(2, ids.expand(here.shape[0], *ids.shape))
    mass = (chosen.logsumexp(-1) - here.logsumexp(-1)).exp()
    return _numpy(chosen.log_softmax(-1)), mass.double().cpu().numpy()


@contextmanager
def _evaluating(network: Any) -> Iterator[None]:
    """Switch dropout and the like off; every module gets its own mode back."""
    if not isinstance(network, nn.Module):
        network.train(False)
        yield
        return
    modes = [(module, module.training) for module in network.modules()]
    network.train(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _forward_of(network: Any) -> Any:
    return network.forward if isinstance(network, nn.Module) else network.__call__


def _device(network: Any) -> torch.device:
    device = getattr(network, "device", None)
    if isinstance(device, torch.device):
        return device
    parameters = network.member_parameters(0)
    return parameters[0].device if parameters else torch.device("cpu")


def _numpy(x: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = x.detach().cpu().float().numpy()
    return array
