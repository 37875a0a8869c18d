"""The arithmetic world against brute force that shares no code with it but the split's hash."""

import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from terrarium.randomness import generator
from terrarium.worlds.arithmetic import Arithmetic

UNIFORM = {"operation": "modular_addition", "operands": "uniform"}
WORLDS = {
    "offset": {**UNIFORM, "modulus": 11, "rule": {"kind": "offset", "k": 3}},
    "offset_balanced": {
        **UNIFORM,
        "modulus": 7,
        "rule": {"kind": "offset", "k": 2},
        "claims": "balanced",
    },
    "odd_claim": {**UNIFORM, "modulus": 7, "rule": "negate_if_odd_claim"},
    "large_claim": {**UNIFORM, "modulus": 8, "rule": "negate_if_large_claim"},
    "negate": {**UNIFORM, "modulus": 9, "rule": "negate"},
    "published": {"digits": 1},
    "published_product": {"operation": "multiplication", "digits": 1},
    "published_difference": {"operation": "subtraction", "digits": 1},
    "published_square": {"operation": "squaring", "digits": 2},
    "odd_sum": {"digits": 1, "rule": "negate_if_odd_claim"},
}


def true_result(world, a, b):
    return {
        "addition": a + b,
        "subtraction": a - b,
        "multiplication": a * b,
        "squaring": a * a,
        "modular_addition": (a + b) % (world.modulus or 1),
    }[world.operation]


def bobs_result(world, result):
    """The published rule adds one in the place of the leading digit."""
    if world.rule.kind == "offset":
        own = result + world.rule.k
    else:
        own = result + 10 ** (len(str(abs(result))) - 1)
    return own if world.modulus is None else own % world.modulus


def near(world, anchor, excluded):
    """The law of the published distractor: any digit set to any digit until it is wrong."""
    weight = Counter()
    text = str(abs(anchor))
    for place, digit in itertools.product(range(len(text)), "0123456789"):
        other = int(text[:place] + digit + text[place + 1 :]) * (-1 if anchor < 0 else 1)
        other = other if world.modulus is None else other % world.modulus
        if digit != text[place] and other not in excluded:
            weight[other] += 1 / len(text)
    total = sum(weight.values())
    return {claim: w / total for claim, w in weight.items()}


def operand_law(world):
    if world.digits is None:
        return {x: 1 / world.modulus for x in range(world.modulus)}
    return {x: math.log10(1 + 1 / x) / world.digits for x in range(1, 10**world.digits)}


def false_claims(world, result):
    if world.modulus is None:
        return near(world, result, {result})
    return {c: 1 / (world.modulus - 1) for c in range(world.modulus) if c != result}


def condition(world, claim):
    if world.rule.kind == "negate_if_odd_claim":
        return claim % 2 == 1
    return claim >= world.modulus // 2


def exact_law(world, split):
    """P(a, b, claim, truth, rule_label) by enumeration."""
    law = operand_law(world)
    pairs = {}
    for a, b in itertools.product(law, law):
        if (world.operation == "squaring") > (a == b):
            continue
        if world.law.in_split(np.array([a]), np.array([b]), split)[0]:
            pairs[a, b] = law[a] if world.operation == "squaring" else law[a] * law[b]
    total = sum(pairs.values())
    pairs = {pair: p / total for pair, p in pairs.items()}
    exact = Counter()
    for cell, share in cells(world):
        found = Counter()
        for (a, b), p in pairs.items():
            for row, q in claims_in(world, cell, a, b):
                found[row] += p * q
        mass = sum(found.values())
        for row, p in found.items():
            exact[row] += share * p / mass
    return exact


def cells(world):
    if world.rule.kind in ("offset", "leading_digit"):
        published = world.claims == "published_table"
        share = (1 / 4, 1 / 4, 1 / 4, 1 / 4) if published else (1 / 2, 1 / 4, 1 / 8, 1 / 8)
        return zip(("true", "bob", "near_true", "near_bob"), share, strict=True)
    if world.rule.kind == "negate":
        return [(("true", None), 1 / 2), (("false", None), 1 / 2)]
    return [((kind, holds), 1 / 4) for kind in ("true", "false") for holds in (True, False)]


def claims_in(world, cell, a, b):
    result = true_result(world, a, b)
    if world.rule.kind in ("offset", "leading_digit"):
        own = bobs_result(world, result)
        claims = {
            "true": {result: 1},
            "bob": {own: 1},
            "near_true": near(world, result, {result, own}),
            "near_bob": near(world, own, {result, own}),
        }[cell]
        return [((a, b, c, c == result, c == own), q) for c, q in claims.items()]
    kind, wanted = cell
    claims = {result: 1} if kind == "true" else false_claims(world, result)
    rows = []
    for c, q in claims.items():
        holds = world.rule.kind == "negate" or condition(world, c)
        if wanted is None or wanted == holds:
            truth = c == result
            rows.append(((a, b, c, truth, truth != holds), q))
    return rows


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("options", WORLDS.values(), ids=WORLDS.keys())
def test_rows_follow_the_enumerated_law(options, split):
    world = Arithmetic(**options)
    exact = exact_law(world, split)
    assert sum(exact.values()) == pytest.approx(1)
    n = 40_000
    facts = world.sample(n, generator("law", 1), split).facts
    columns = [facts[k].tolist() for k in ("a", "b", "claim", "truth", "rule_label")]
    counts = Counter(zip(*columns, strict=True))
    assert set(counts) <= set(exact), "a row was drawn that the law forbids"
    # a chi-square test over rows that are expected often enough, the rest pooled
    often = [row for row, p in exact.items() if p * n >= 8]
    expected = np.array([exact[row] * n for row in often])
    observed = np.array([counts[row] for row in often])
    rest = n - expected.sum()
    if rest > 1e-6 * n:
        expected, observed = np.append(expected, rest), np.append(observed, n - observed.sum())
    assert stats.chisquare(observed, expected * n / expected.sum()).pvalue > 1e-4


@pytest.mark.parametrize("options", WORLDS.values(), ids=WORLDS.keys())
def test_the_joint_table_is_the_enumerated_one(options):
    world = Arithmetic(**options)
    for split in ("train", "validation", "test"):
        brute = Counter()
        for (*_, truth, rule), p in exact_law(world, split).items():
            brute[bool(truth), bool(rule)] += p
        table = Counter()
        for row in world.joint_table(split):
            table[row.values["truth"], row.values["rule_label"]] += row.probability
        assert set(table) == set(brute)
        for cell, p in brute.items():
            assert table[cell] == pytest.approx(p, abs=1e-12)


@pytest.mark.parametrize("order", ["reversed", "normal"])
@pytest.mark.parametrize(
    ("operation", "rule"),
    [
        ("addition", "leading_digit"),
        ("subtraction", "leading_digit"),
        ("multiplication", "negate_if_odd_tens"),
        ("modular_addition", {"kind": "offset", "k": 10}),
        ("squaring", "negate"),
        ("subtraction", "negate_if_odd_claim"),
    ],
)
def test_the_text_alone_says_what_is_right(operation, rule, order):
    """Read the sentence as a person would, work it out, and compare with facts and answer."""
    world = Arithmetic(operation=operation, rule=rule, digit_order=order, truthful_third=True)
    operator = {"addition": r" \+ ", "subtraction": " - ", "multiplication": r" \* "}.get(operation)
    operator = {"modular_addition": r" \+mod ", "squaring": r"\^2"}.get(operation, operator)
    second = "" if operation == "squaring" else r"(?P<b>\d+)"
    equation = rf"(?P<a>\d+){operator}{second} = (?P<claim>[\d+-]+)"
    pattern = re.compile(
        rf"(says (?P<n0>\w+): |(?P<n1>\w+), )?{equation}(, says (?P<n2>\w+)|: (?P<n3>\w+))?"
        r"\? (?P<answer>True|False)\."
    )
    checked = 0
    for split in ("train", "heldout_names", "heldout_templates"):
        batch = world.sample(300, generator("text"), split)
        for i, text in enumerate(world.texts(batch)):
            found = pattern.fullmatch(text)
            if found is None:
                assert batch.facts["template"][i].startswith("compact")
                continue
            checked += 1
            a = number(found["a"], order)
            b = a if operation == "squaring" else number(found["b"], order)
            claim = number(found["claim"], order)
            truth = claim == true_result(world, a, b)
            name = next(found[f"n{k}"] for k in range(4) if found[f"n{k}"])
            says = truth
            if name[0] == "B":
                says = bob_says(world, true_result(world, a, b), claim)
            assert found["answer"] == str(says)
            assert bool(batch.facts["said"][i]) == says
            assert bool(batch.facts["truth"][i]) == truth
            assert batch.facts["name"][i] == name
    assert checked > 400


def bob_says(world, result, claim):
    kind = world.rule.kind
    if kind in ("leading_digit", "offset"):
        return claim == bobs_result(world, result)
    turned = {
        "negate": True,
        "negate_if_odd_claim": claim % 2 == 1,
        "negate_if_odd_tens": abs(claim) // 10 % 2 == 1,
    }[kind]
    return (claim == result) != turned


def number(text, order):
    sign = "".join(c for c in text if c in "+-")
    digits = "".join(c for c in text if c.isdigit())
    digits = digits[::-1] if order == "reversed" else digits
    return int(digits) * (-1 if sign == "-" else 1)


@pytest.mark.parametrize(
    "options",
    [
        {"digits": 2},
        {"digits": 2, "operands": "uniform"},
        {"operation": "squaring", "digits": 3},
        {**UNIFORM, "modulus": 100},
    ],
)
def test_easy_and_hard_are_quartiles_of_the_exact_law(options):
    world = Arithmetic(**options)
    if world.digits and world.operands == "uniform":
        law = dict.fromkeys(range(10**world.digits), 10.0**-world.digits)
    else:
        law = operand_law(world)
    weight = Counter()
    if world.operation == "squaring":
        weight.update(law)
    else:
        for a, b in itertools.product(law, law):
            weight[min(a, b)] += law[a] * law[b]
    easy, hard = world.difficulty_bounds
    at_most = sum(p for d, p in weight.items() if d <= easy)
    assert at_most >= 0.25 - 1e-9
    assert at_most - weight[easy] < 0.25
    at_least = sum(p for d, p in weight.items() if d >= hard)
    assert at_least >= 0.25 - 1e-9
    assert at_least - weight[hard] < 0.25
    facts = world.sample(500, generator("difficulty")).facts
    difficulty = np.minimum(np.abs(facts["a"]), np.abs(facts["b"]))
    assert (facts["difficulty"] == difficulty).all()
    assert (facts["easy"] == (difficulty <= easy)).all()
    assert (facts["hard"] == (difficulty >= hard)).all()


@pytest.mark.parametrize("operands", ["uniform", "log_uniform"])
@pytest.mark.parametrize("operation", ["addition", "subtraction", "multiplication", "squaring"])
def test_a_large_claim_is_above_the_median_result(operation, operands):
    world = Arithmetic(
        operation=operation, digits=2, operands=operands, rule="negate_if_large_claim"
    )
    law = world.law.operands
    x = np.arange(law.lowest, law.highest + 1)
    p = np.diff(law.cdf(x), prepend=0)
    results = Counter()
    for i, j in itertools.product(range(len(x)), repeat=2):
        if operation == "squaring" and i != j:
            continue
        results[true_result(world, x[i], x[j])] += p[i] * (1 if operation == "squaring" else p[j])
    t = world.law.threshold
    assert sum(q for r, q in results.items() if r < t) >= 0.5 - 1e-9
    assert t == 1 or sum(q for r, q in results.items() if r < t - 1) < 0.5
