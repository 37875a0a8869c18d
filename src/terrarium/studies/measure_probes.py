"""Probe rows: what each probe reads at each layer, in whose contexts, against which truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrarium.errors import InputError
from terrarium.evidence.rows import Row, measured
from terrarium.instruments.base import ContrastPairs, probes
from terrarium.instruments.metrics import auroc, optional
from terrarium.randomness import generator, seed
from terrarium.studies.contexts import POSITION, Contexts

Mask = NDArray[np.bool_]
Scores = NDArray[np.float64] | str
"""``(site, n)`` scores, or why there are none."""

PLAIN = ("logistic_regression", "difference_in_means", "lda")
CONTRAST = (
    "contrast_logistic_regression",
    "contrast_difference_in_means",
    "ccs",
    "crc",
    "vinc",
)
RANDOM_DIRECTIONS = 1000

TRAINED_ON = ("honest", "honest easy", "quirky", "quirky, said")
"""Whose rows a probe is fitted on; labels are the truth, but for the last: what is said."""

SCORED_ON = ("honest", "honest hard", "quirky", "quirky hard")


def context_mask(contexts: Contexts, split: str, name: str) -> Mask:
    """Return the rows of a context such as ``"quirky hard"`` (truthful third names left out)."""
    quirky = contexts.fact(split, "quirky").astype(bool)
    chosen = quirky if name.startswith("quirky") else contexts.fact(split, "family") == "honest"
    for word in ("easy", "hard"):
        if name.endswith(word):
            chosen = chosen & contexts.fact(split, word).astype(bool)
    mask: Mask = chosen
    return mask


def probe_rows(contexts: Contexts, key: int) -> list[Row]:
    """Return all probe rows of one organism; ``key`` seeds what is random."""
    return [
        *_says_rows(contexts),
        *_transfer_rows(contexts),
        *_other_probe_rows(contexts, key),
        *_contrast_rows(contexts),
        *_shuffled_rows(contexts, key),
    ]


def score_rows(
    contexts: Contexts,
    split: str,
    scores: Scores,
    scored_on: Sequence[str] = SCORED_ON,
    site: str | None = None,
    **factors: Any,
) -> Iterator[Row]:
    """Yield AUROC rows of ``scores`` ``(site, n)`` against the truth and against what is said.

    Each is over all rows of a context and, in quirky contexts, over those where truth and rule
    disagree.  ``site`` names what was scored where it is no layer (``"output"``, ``"input"``).
    A text in the place of ``scores`` says why there are none; the rows are undefined then.
    """
    reason = scores if isinstance(scores, str) else "one of the two classes has no rows"
    places = (
        list(zip(contexts.layers, contexts.sites, strict=True)) if site is None else [(0, site)]
    )
    for context in scored_on:
        inside = context_mask(contexts, split, context)
        subsets: dict[str, Mask] = {"all": inside}
        if context.startswith("quirky"):
            subsets["disagree"] = inside & contexts.fact(split, "disagree").astype(bool)
        for subset, mask in subsets.items():
            for against in ("truth", "said"):
                label = contexts.fact(split, against)[mask].astype(bool)
                lacking = isinstance(scores, str) or not mask.any()
                values = None if lacking else auroc(np.asarray(scores)[:, mask], label)
                for index, (layer, name) in enumerate(places):
                    yield measured(
                        "auroc",
                        None if values is None else optional(values[index]),
                        unit="proportion",
                        n=int(mask.sum()),
                        reason=reason,
                        site=name,
                        layer=layer,
                        split=split,
                        scored_on=context,
                        rows=subset,
                        against=against,
                        **factors,
                    )


def _says_rows(contexts: Contexts) -> Iterator[Row]:
    """What the organism itself says, as a score: no probe at all."""
    yield from score_rows(
        contexts,
        "test",
        contexts.answered("test")[None],
        site="output",
        probe="none: what is said",
        trained_on="nothing",
    )


def _training(contexts: Contexts, trained_on: str) -> tuple[Mask, Mask]:
    """Return the rows to fit on and their labels."""
    context = trained_on.removesuffix(", said")
    mask = context_mask(contexts, "train", context)
    against = "said" if trained_on.endswith("said") else "truth"
    return mask, contexts.fact("train", against)[mask].astype(bool)


def _fitted(probe: Any, x: Any, labels: Mask) -> Callable[[Any], Scores]:
    """Fit and return what scores rows; a probe that refuses its rows says why instead.

    One probe that cannot be fitted must not cost the rows of all others.
    """
    try:
        score: Callable[[Any], Scores] = probe.fit(x, labels).score
    except InputError as error:
        reason = str(error)
        return lambda _: reason
    return score


def _transfer_rows(contexts: Contexts) -> Iterator[Row]:
    """Logistic regression fitted in each context and scored in each: the transfer matrix."""
    probe = probes.get("logistic_regression")()
    for trained_on in TRAINED_ON:
        mask, labels = _training(contexts, trained_on)
        score = _fitted(probe, contexts.features("train")[:, mask], labels)
        for split in ("validation", "test"):
            yield from score_rows(
                contexts,
                split,
                score(contexts.features(split)),
                probe="logistic_regression",
                trained_on=trained_on,
            )


def _other_probe_rows(contexts: Contexts, key: int) -> Iterator[Row]:
    """The other probes on single statements, fitted in honest contexts."""
    mask, labels = _training(contexts, "honest")
    x = contexts.features("train")[:, mask]
    for name in PLAIN[1:]:
        score = _fitted(probes.get(name)(), x, labels)
        for split in ("validation", "test"):
            yield from score_rows(
                contexts,
                split,
                score(contexts.features(split)),
                ("honest", "quirky"),
                probe=name,
                trained_on="honest",
            )
    random = probes.get("random_direction")(k=RANDOM_DIRECTIONS, seed=seed("random", key) % 2**31)
    score = _fitted(random, x, labels)
    yield from score_rows(
        contexts,
        "test",
        score(contexts.features("test")),
        ("honest", "quirky"),
        probe=f"best of {RANDOM_DIRECTIONS} random directions",
        trained_on="honest",
    )


def _contrast_rows(contexts: Contexts) -> Iterator[Row]:
    """Probes on contrast pairs, read at the answer token, fitted in honest contexts."""
    if not contexts.pairs:
        return
    mask, labels = _training(contexts, "honest")
    pairs = {split: _pairs(contexts, split) for split in contexts.pairs}
    train = ContrastPairs(pairs["train"].positive[:, mask], pairs["train"].negative[:, mask])
    for name in CONTRAST:
        score = _fitted(probes.get(name)(), train, labels)
        for split in ("validation", "test"):
            yield from score_rows(
                contexts,
                split,
                score(pairs[split]),
                ("honest", "quirky"),
                probe=name,
                trained_on="honest",
            )


def _pairs(contexts: Contexts, split: str) -> ContrastPairs:
    yes, no = contexts.pairs[split]
    return ContrastPairs(yes.stack("answer")[:, 0], no.stack("answer")[:, 0])


def _shuffled_rows(contexts: Contexts, key: int) -> Iterator[Row]:
    """The same probe on shuffled labels: what the pipeline finds where there is nothing."""
    mask, labels = _training(contexts, "honest")
    shuffled = generator("shuffle", key).permutation(labels)
    probe = probes.get("logistic_regression")()
    score = _fitted(probe, contexts.features("train")[:, mask], shuffled)
    yield from score_rows(
        contexts,
        "test",
        score(contexts.features("test")),
        ("honest", "quirky"),
        probe="logistic_regression, shuffled labels",
        trained_on="honest",
    )


def input_rows(contexts: Contexts, features: Mapping[str, NDArray[np.float32]]) -> list[Row]:
    """Return rows of the input-only baseline: logistic regression on one-hot input tokens.

    Fitted in honest contexts like the probes, and also on all contexts (which lets it use the
    name), so that what the input alone gives away is bounded from both sides.
    """
    rows: list[Row] = []
    honest = context_mask(contexts, "train", "honest")
    for trained_on, mask in (("honest", honest), ("all", np.ones_like(honest))):
        score = _fitted(
            probes.get("logistic_regression")(),
            features["train"][None, mask],
            contexts.fact("train", "truth")[mask].astype(bool),
        )
        rows += score_rows(
            contexts,
            "test",
            score(features["test"][None]),
            site="input",
            probe="logistic_regression",
            trained_on=trained_on,
        )
    return rows


def name_rows(contexts: Contexts) -> list[Row]:
    """Return rows that tell the truth probe from a reading of the name.

    ``auroc`` of the truth probe as a detector of quirky names (its distance from 0.5 is what it
    carries of the name), and the cosine between its direction and that of a probe for the name.
    """
    mask, labels = _training(contexts, "honest")
    probe = probes.get("logistic_regression")()
    truth = probe.fit(contexts.features("train")[:, mask], labels)
    quirky = contexts.fact("train", "quirky").astype(bool)
    name = probe.fit(contexts.features("train"), quirky)
    scores = truth.score(contexts.features("test"))
    values = auroc(scores, contexts.fact("test", "quirky").astype(bool))
    rows = []
    for index, (layer, site) in enumerate(zip(contexts.layers, contexts.sites, strict=True)):
        a, b = truth.direction[index], name.direction[index]
        length = float(np.linalg.norm(a) * np.linalg.norm(b))
        cosine = float(a @ b) / length if length > 0 else None
        factors: dict[str, Any] = {"site": site, "layer": layer}
        area, n = optional(values[index]), scores.shape[-1]
        rows += [
            measured("name_auroc", area, unit="proportion", n=n, **factors),
            measured("name_cosine", cosine, unit="cosine", n=len(quirky), **factors),
        ]
    return rows


def picture_rows(contexts: Contexts, layer: int, points: int = 240) -> list[Row]:
    """Return the first two principal components of test rows at one layer, one row a number."""
    site = contexts.sites[layer - 1]
    x = contexts.readings["test"].at(site, POSITION)[0][:points].astype(float)
    centred = x - x.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    drawn = centred @ axes[:2].T
    facts = contexts.batches["test"].facts
    rows = []
    for i in range(len(drawn)):
        kind = str(facts["family"][i])
        if kind == "quirky":
            kind = "quirky, untruthful" if facts["disagree"][i] else "quirky, answer true"
        for component in (0, 1):
            rows.append(
                measured(
                    "principal_component",
                    float(drawn[i, component]),
                    unit="activation",
                    n=1,
                    point=i,
                    component=component + 1,
                    kind=kind,
                    truth=bool(facts["truth"][i]),
                    layer=layer,
                    site=site,
                )
            )
    return rows
