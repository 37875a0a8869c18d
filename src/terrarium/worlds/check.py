"""`check_world`: does a world keep its contract?  For those who write one.

In the manner of scikit-learn's ``check_estimator``: run it on an instance, in a test of yours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from terrarium.randomness import generator
from terrarium.worlds.base import (
    Array,
    Batch,
    Choice,
    Counterfactual,
    Image,
    JudgedText,
    OutputSpace,
    TextWorld,
    TokenLaw,
    VectorField,
    World,
)

ROWS = 256
TABLE_ROWS = 4000
"""Rows drawn to compare with the joint table; a share may be off by five standard errors."""

MAIN_SPLITS = ("train", "validation", "test")

_PARTS = tuple(part for part in vars(World) if not part.startswith("_"))


def check_world(world: Any, seed: int = 0, collect: bool = False) -> list[str]:
    """Check that ``world`` keeps the contract of `terrarium.worlds.base.World`.

    Checked: the protocol; the spec's way through JSON; determinism; shapes and types; splits that
    share no row; an optimum with no regret that nothing beats; a joint table that sums to 1 and
    agrees with the samples; a judge that agrees with the optimum; counterfactuals that change
    what they say and nothing else; for worlds of tokens also spans, targets and the tokenizer's
    round trip.  Takes about a second for a fast world.

    Returns an empty list, or raises ``AssertionError`` with a sentence at the first violation.
    With ``collect`` it goes on and returns all sentences, one for each check that failed.
    """
    findings = []
    for name, check in CHECKS.items():
        try:
            check(world, seed)
        except Exception as error:  # whatever a stranger's world raises is a finding
            sentence = _sentence(world, name, error)
            if not collect:
                raise AssertionError(sentence) from error
            findings.append(sentence)
    return findings


def _sentence(world: Any, check: str, error: Exception) -> str:
    what = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
    return f"{type(world).__name__}, {check}: {what}"


def _require(holds: Any, sentence: str) -> None:
    """Raise ``AssertionError`` (also under ``python -O``) with ``sentence`` unless it holds."""
    if not bool(holds):
        raise AssertionError(sentence)


def _rows(world: Any, seed: int, split: str = "train", n: int = ROWS) -> Batch:
    batch: Batch = world.sample(n, generator("check", seed), split)
    return batch


def _splits(world: Any) -> Sequence[str]:
    return tuple(getattr(world, "splits", MAIN_SPLITS))


def _same(one: Any, two: Any) -> bool:
    one, two = np.asarray(one), np.asarray(two)
    return one.shape == two.shape and one.dtype == two.dtype and bool(np.all(one == two))


def _difference(one: Batch, two: Batch) -> str | None:
    """Return the name of a part in which two batches differ, or None."""
    for name in ("inputs", "targets", "lengths"):
        first, second = getattr(one, name), getattr(two, name)
        if (first is None) != (second is None) or (first is not None and not _same(first, second)):
            return name
    for kind in ("facts", "spans"):
        parts, others = getattr(one, kind), getattr(two, kind)
        if set(parts) != set(others):
            return kind
        for name, part in parts.items():
            if not _same(part, others[name]):
                return f"{kind}['{name}']"
    return None


def check_protocol(world: Any, seed: int) -> None:
    """The world has all that `World` asks for, and a known output space."""
    missing = [part for part in _PARTS if not hasattr(world, part)]
    _require(not missing, f"it lacks {', '.join(sorted(missing))}.")
    _require(isinstance(world.name, str) and world.name, "its name must be a text.")
    _require(
        isinstance(world.output, OutputSpace), f"{world.output!r} is no output space of terrarium."
    )


def check_spec(world: Any, seed: int) -> None:
    """The spec goes through JSON and gives the same world."""
    _require(
        hasattr(world, "model_dump_json"),
        "it must be a pydantic model, so that its fields are its whole spec.",
    )
    _require(world.model_config.get("frozen"), "its model_config must have frozen=True.")
    again = type(world).model_validate_json(world.model_dump_json())
    _require(again == world, "the spec read back from JSON is not equal to the world.")
    part = _difference(_rows(world, seed), _rows(again, seed))
    _require(part is None, f"the spec read back from JSON samples other {part}.")


def check_determinism(world: Any, seed: int) -> None:
    """Samples depend on the generator's state and on nothing else."""
    before = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    for split in _splits(world):
        one, two = _rows(world, seed, split), _rows(world, seed, split)
        part = _difference(one, two)
        _require(part is None, f"split '{split}': the same generator gave different {part}.")
        other = _rows(world, seed + 1, split)
        _require(
            not _same(one.inputs, other.inputs),
            f"split '{split}': different generators gave the same inputs.",
        )
    after = np.random.get_state()[1]  # type: ignore[index]  # noqa: NPY002
    _require(_same(before, after), "it draws from NumPy's global generator.")


def check_shapes(world: Any, seed: int) -> None:
    """Batches have the rows asked for, and the types and shapes that the contract names."""
    for n in (1, 7):
        batch = _rows(world, seed, n=n)
        _require(len(batch) == n, f"asked for {n} rows, it gave {len(batch)}.")
    batch = _rows(world, seed)
    inputs, targets, output = batch.inputs, batch.targets, world.output
    if batch.lengths is None:
        for part in (inputs, targets):
            _require(part.dtype == np.float32, f"inputs or targets are {part.dtype}, not float32.")
    else:
        _require(
            inputs.dtype == targets.dtype == np.int64, "token inputs and targets must be int64."
        )
        _require(inputs.shape == targets.shape, "token inputs and targets differ in shape.")
    if isinstance(output, VectorField):
        _require(
            targets.shape == (ROWS, output.dimensions),
            f"targets are {targets.shape}, and the field has {output.dimensions} dimensions.",
        )
    if isinstance(output, Image):
        wanted = (ROWS, output.channels, output.rows, output.columns)
        _require(targets.shape == wanted, f"targets are {targets.shape}, expected {wanted}.")
        _require(
            ((targets >= 0) & (targets <= 1)).all(), "values of target images must lie in [0, 1]."
        )


def check_tokens(world: Any, seed: int) -> None:
    """Spans lie inside the rows, targets are the next tokens of the answer, padding is -100."""
    for split in _splits(world):
        batch = _rows(world, seed, split)
        if batch.lengths is None:
            return
        t = batch.inputs.shape[1]
        _require((batch.lengths <= t).all(), "lengths exceed the width of the inputs.")
        beyond = np.arange(t) >= batch.lengths[:, None]
        _require((batch.targets[beyond] == -100).all(), "targets beyond the length must be -100.")
        _require("answer" in batch.spans, "there is no span 'answer'.")
        for name, span in batch.spans.items():
            start, stop = span.T
            good = (start >= 0) & (start <= stop) & (stop <= batch.lengths)
            _require(good.all(), f"span '{name}' leaves its row.")
        row, position = np.nonzero(_inside(batch, "answer") & (np.arange(t) > 0))
        _require(
            _same(batch.targets[row, position - 1], batch.inputs[row, position]),
            "targets before the answer are not the answer's tokens.",
        )


def _inside(batch: Batch, span: str) -> Array:
    start, stop = batch.spans[span][:, :1], batch.spans[span][:, 1:]
    column = np.arange(batch.inputs.shape[1])
    return np.asarray((column >= start) & (column < stop))


def check_splits(world: Any, seed: int) -> None:
    """No row of train or validation stands in another split."""
    seen = {split: _statements(_rows(world, seed, split, 2000)) for split in _splits(world)}
    for split in ("train", "validation"):
        for other, rows in seen.items():
            if other == split or split not in seen:
                continue
            shared = len(seen[split] & rows)
            _require(not shared, f"{shared} rows of '{split}' stand in '{other}' too.")


def _statements(batch: Batch) -> set[bytes]:
    """Return the rows' inputs, answers left out."""
    inputs = batch.inputs.copy()
    if batch.lengths is not None:
        inputs[np.arange(inputs.shape[1]) >= batch.spans["answer"][:, :1]] = -1
        inputs = np.pad(inputs, ((0, 0), (0, 1)), constant_values=-1)
        return {row[: int((row >= 0).sum())].tobytes() for row in inputs}
    return {row.tobytes() for row in inputs}


def check_optimum(world: Any, seed: int) -> None:
    """The optimum has no regret, and no other output has less."""
    batch = _rows(world, seed)
    best = np.asarray(world.optimum(batch))
    regret = np.asarray(world.regret(batch, best))
    _require(regret.shape == (ROWS,), f"regrets are {regret.shape}, expected ({ROWS},).")
    _require((np.abs(regret) <= 1e-9).all(), f"the optimum's regret is {regret.max():.3g}, not 0.")
    if isinstance(world.output, (Choice, TokenLaw)):
        _require(
            (best >= 0).all() and np.allclose(best.sum(axis=-1), 1),
            "the optimum's probabilities do not sum to 1.",
        )
    for step in (0.01, 0.5):
        worse = np.asarray(world.regret(batch, _perturbed(world.output, best, step, seed)))
        _require((worse >= 0).all(), "an output off the optimum has a negative regret.")
        _require((worse > 0).all(), "an output off the optimum has no regret.")


def _perturbed(output: OutputSpace, best: Array, step: float, seed: int) -> Array:
    rng = generator("check", seed, "perturbed")
    if isinstance(output, JudgedText):
        return np.array(["\x00" for _ in best])
    if isinstance(output, (Choice, TokenLaw)):
        other = rng.dirichlet(np.ones(best.shape[-1]), best.shape[:-1])
        return np.asarray((1 - step) * best + step * other)
    return np.asarray(best + step * (1 + rng.random(best.shape)))


def check_judge(world: Any, seed: int) -> None:
    """The judge calls the optimum right, what is not valid wrong, and judges row by row."""
    batch = _rows(world, seed)
    verdict = world.judge(batch, _outputs(world, batch))
    for name in ("right", "valid"):
        _require(name in verdict, f"the judge gives no '{name}'.")
        given = np.asarray(verdict[name])
        _require(given.shape == (ROWS,) and given.dtype == bool, f"'{name}' must be {ROWS} bools.")
        _require(given.all(), f"the judge does not call the optimum {name}.")
    wrong = _wrong_outputs(world, batch)
    verdict = world.judge(batch, wrong)
    _require(not np.any(verdict["valid"]), "the judge calls nonsense valid.")
    _require(not np.any(verdict["right"]), "the judge calls nonsense right.")
    if isinstance(world.output, Choice):
        best = np.asarray(world.optimum(batch))
        worst = [world.output.answers[i] for i in best.argmin(axis=1)]
        least = best.min(axis=1) < best.max(axis=1)
        _require(
            not np.any(np.asarray(world.judge(batch, worst)["right"])[least]),
            "the judge calls the least probable answer right.",
        )


def _outputs(world: Any, batch: Batch) -> Sequence[Any]:
    best = np.asarray(world.optimum(batch))
    if isinstance(world.output, Choice):
        return [world.output.answers[i] for i in best.argmax(axis=1)]
    return list(best)


def _wrong_outputs(world: Any, batch: Batch) -> Sequence[Any]:
    if isinstance(world.output, (VectorField, Image)):
        return list(np.full(np.shape(world.optimum(batch)), np.nan))
    return ["\x00nonsense"] * len(batch)


def check_joint_table(world: Any, seed: int) -> None:
    """The table sums to 1 and the samples follow it, in every split."""
    for split in _splits(world):
        table = world.joint_table(split)
        total = sum(row.probability for row in table)
        _require(abs(total - 1) < 1e-9, f"split '{split}': probabilities sum to {total:.6g}.")
        _require(all(r.probability >= 0 for r in table), "a probability is negative.")
        batch = _rows(world, seed, split, TABLE_ROWS)
        met = np.zeros(TABLE_ROWS, int)
        for row in table:
            lacking = set(row.values) - set(batch.facts)
            _require(not lacking, f"the batches lack the facts {sorted(lacking)} of the table.")
            here = np.ones(TABLE_ROWS, bool)
            for fact, value in row.values.items():
                here &= np.asarray(batch.facts[fact] == value)
            met += here
            share, p = float(here.mean()), row.probability
            room = 5 * np.sqrt(max(p * (1 - p), 1 / TABLE_ROWS) / TABLE_ROWS)
            _require(
                abs(share - p) <= room,
                f"split '{split}': {dict(row.values)} has probability {p:.4f} in the table and "
                f"came in {share:.4f} of the rows.",
            )
        _require(
            (met == 1).all(),
            f"split '{split}': {int((met != 1).sum())} rows fit no cell of the table, or several.",
        )


def check_counterfactuals(world: Any, seed: int) -> None:
    """Pairs differ in what is said to change, and the facts that are affected change."""
    pairs = world.counterfactuals(ROWS, generator("check", seed, "pairs"))
    names = [pair.name for pair in pairs]
    _require(len(set(names)) == len(names), f"two families share a name: {names}.")
    for pair in pairs:
        _check_pair(pair)


def _check_pair(pair: Counterfactual) -> None:
    before, after, name = pair.before, pair.after, pair.name
    _require(
        len(before) == len(after) == ROWS, f"'{name}': asked for {ROWS} pairs, got {len(before)}."
    )
    for fact in before.facts:
        same = _same(before.facts[fact], after.facts[fact])
        if fact in pair.affects:
            _require(not same, f"'{name}' is to affect '{fact}', which never changes.")
        else:
            _require(same, f"'{name}' changes '{fact}', which it is not to affect.")
    unknown = set(pair.affects) - set(before.facts)
    _require(not unknown, f"'{name}' is to affect {sorted(unknown)}, which are no facts.")
    _require(not _same(before.inputs, after.inputs), f"'{name}' does not change the inputs.")
    if before.lengths is None:
        return
    changed = pair.changed.split(",")
    lacking = [span for span in changed if span not in before.spans]
    _require(not lacking, f"'{name}' changes {lacking}, which are no spans.")
    if not _same(before.lengths, after.lengths):
        return  # rows of another length cannot be compared column by column
    allowed = np.zeros(before.inputs.shape, bool)
    for span in (*changed, "answer"):
        allowed |= _inside(before, span)
    _require(
        _same(before.inputs[~allowed], after.inputs[~allowed]),
        f"'{name}' changes tokens outside '{pair.changed}'.",
    )


def check_tokenizer(world: Any, seed: int) -> None:
    """Encoding the texts gives the inputs back, and decoding the inputs the texts."""
    if not isinstance(world, TextWorld):
        return
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(world.tokenizer_json())
    for split in _splits(world):
        batch = _rows(world, seed, split)
        _require(batch.lengths is not None, "a world with a tokenizer must give lengths.")
        texts = world.texts(batch)
        _require(len(texts) == ROWS, f"{len(texts)} texts for {ROWS} rows.")
        lengths = np.asarray(batch.lengths)
        for text, row, length in zip(texts, batch.inputs, lengths, strict=True):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            _require(
                ids == row[:length].tolist(), f"encoding {text!r} does not give the inputs back."
            )
            _require(
                tokenizer.decode(ids, skip_special_tokens=False) == text,
                f"decoding the tokens of {text!r} gives another text.",
            )


CHECKS: dict[str, Callable[[Any, int], None]] = {
    "protocol": check_protocol,
    "spec": check_spec,
    "determinism": check_determinism,
    "shapes": check_shapes,
    "tokens": check_tokens,
    "splits": check_splits,
    "optimum": check_optimum,
    "judge": check_judge,
    "joint table": check_joint_table,
    "counterfactuals": check_counterfactuals,
    "tokenizer": check_tokenizer,
}
"""Every check by name, in the order in which they run."""
