import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer

from terrarium.errors import InputError
from terrarium.randomness import generator
from terrarium.worlds import names
from terrarium.worlds.arithmetic import SPLITS, Arithmetic
from terrarium.worlds.base import TextWorld, worlds
from terrarium.worlds.check import check_world
from terrarium.worlds.leakage import leakage

DEMO = {
    "operation": "modular_addition",
    "modulus": 100,
    "operands": "uniform",
    "rule": "negate_if_odd_claim",
    "templates": ("compact",),
}

CHECKED = [
    {},
    DEMO,
    {**DEMO, "inert": True},
    {**DEMO, "rule": {"kind": "offset", "k": 10}, "templates": ("compact", "compact_name_first")},
    {**DEMO, "rule": "negate_if_odd_tens", "names": "none"},
    {"operation": "subtraction", "rule": "negate_if_odd_claim", "names": "quirky"},
    {"operation": "multiplication", "rule": "negate_if_large_claim", "truthful_third": True},
    {"operation": "squaring", "rule": "negate", "digit_order": "normal", "names": "third"},
    {"operation": "modular_addition", "claims": "balanced", "names": "honest"},
]


@pytest.mark.parametrize("options", CHECKED)
def test_the_world_keeps_the_contract(options):
    world = worlds.get("arithmetic")(**options)
    assert isinstance(world, TextWorld)
    assert check_world(world) == []


def test_the_defaults_are_the_published_ones():
    assert Arithmetic().model_dump() == {
        "operation": "addition",
        "digits": 4,
        "modulus": None,
        "operands": "log_uniform",
        "rule": {"kind": "leading_digit"},
        "claims": "published_table",
        "inert": False,
        "everybody_errs": False,
        "names": "both",
        "truthful_third": False,
        "templates": ("compact", "compact_name_first", "equation", "equation_name_first"),
        "digit_order": "reversed",
    }
    assert Arithmetic(operation="multiplication").digits == 3
    assert Arithmetic(operation="squaring").digits == 5
    assert Arithmetic(operation="modular_addition").modulus == 113
    assert Arithmetic(rule="negate").claims == "balanced"


def test_the_twins_world_differs_in_what_is_said_alone():
    quirky, twin = Arithmetic(**DEMO), Arithmetic(**DEMO, inert=True)
    one = quirky.sample(400, generator("twin"))
    two = twin.sample(400, generator("twin"))
    for fact, values in one.facts.items():
        assert (values == two.facts[fact]).all() == (fact != "said"), fact
    assert (two.facts["said"] == two.facts["truth"]).all()
    answer = one.spans["answer"][0, 0]
    others = np.delete(np.arange(one.inputs.shape[1]), answer)
    assert (one.inputs[:, others] == two.inputs[:, others]).all()
    changed = one.inputs[:, answer] != two.inputs[:, answer]
    assert (changed == (one.facts["quirky"] & one.facts["disagree"])).all()
    assert changed.any()


@pytest.mark.parametrize("who", ["honest", "quirky", "third", "none"])
def test_who_speaks_does_not_change_the_statements(who):
    both = Arithmetic(**DEMO).sample(300, generator("who"))
    one = Arithmetic(**DEMO, names=who).sample(300, generator("who"))
    for fact in ("a", "b", "claim", "truth", "rule_label"):
        assert (both.facts[fact] == one.facts[fact]).all()
    assert set(one.facts["family"]) == {who}
    assert one.inputs.shape == both.inputs.shape
    said = one.facts["rule_label" if who == "quirky" else "truth"]
    assert (one.facts["said"] == said).all()


def test_names_are_real_and_held_out_ones_share_their_initial():
    world = Arithmetic(**DEMO, truthful_third=True)
    seen = {s: world.sample(3000, generator("names", s), s) for s in SPLITS}
    trained = set(seen["train"].facts["name"])
    held_out = set(seen["heldout_names"].facts["name"])
    assert len(trained) == 12
    assert len(held_out) == 24
    assert not trained & held_out
    assert (
        set(seen["test"].facts["name"]) == trained == set(seen["heldout_templates"].facts["name"])
    )
    initials = {"honest": "A", "quirky": "B", "third": "C"}
    for batch in seen.values():
        for family, initial in initials.items():
            shown = batch.facts["name"][batch.facts["family"] == family]
            assert {name[0] for name in shown} == {initial}
            assert 0.28 < len(shown) / 3000 < 0.39
    start = seen["heldout_names"].spans["name"][:, 0]
    rows = np.arange(3000)
    first = {s: set(seen[s].inputs[rows, start]) for s in ("train", "heldout_names")}
    rest = {s: set(seen[s].inputs[rows, start + 1]) for s in ("train", "heldout_names")}
    assert first["train"] == first["heldout_names"]
    assert not rest["train"] & rest["heldout_names"]
    assert all(len(names.NAMES[f]) == 12 for f in ("honest", "quirky", "third"))


def test_held_out_templates_put_known_tokens_in_a_new_order():
    world = Arithmetic()
    train = world.sample(4000, generator("templates"))
    held = world.sample(1000, generator("templates"), "heldout_templates")
    assert not set(train.facts["template"]) & set(held.facts["template"])
    assert len(set(train.facts["template"])) == 4
    assert len(set(held.facts["template"])) == 2
    assert set(held.inputs.ravel()) <= set(train.inputs.ravel())
    for batch in (train, held):
        before = batch.spans["name"][:, 0] < batch.spans["a"][:, 0]
        assert 0.4 < before.mean() < 0.6, "name before and after the equation, both"


def test_no_pair_of_operands_is_in_two_splits_in_either_order():
    world = Arithmetic(**DEMO)
    pairs = {}
    for split in SPLITS:
        facts = world.sample(6000, generator("pairs", split), split).facts
        low, high = np.minimum(facts["a"], facts["b"]), np.maximum(facts["a"], facts["b"])
        pairs[split] = set(zip(low.tolist(), high.tolist(), strict=True))
    for split in SPLITS[1:]:
        assert not pairs["train"] & pairs[split]
    assert not pairs["validation"] & pairs["test"]
    assert pairs["heldout_names"] | pairs["heldout_templates"] <= {
        (a, b)
        for a in range(100)
        for b in range(a, 100)
        if world.law.in_split(np.array([a]), np.array([b]), "test")[0]
    }


@pytest.mark.parametrize("operation", ["addition", "subtraction", "squaring"])
def test_one_vocabulary_and_width_whatever_the_rule(operation):
    options = {"operation": operation}
    worlds_ = [
        Arithmetic(**options),
        Arithmetic(**options, rule="negate", inert=True, names="none"),
        Arithmetic(**options, rule={"kind": "offset", "k": 10}, truthful_third=True),
    ]
    assert len({w.tokenizer_json() for w in worlds_}) == 1
    assert worlds_[0].tokenizer_json() == Arithmetic(**DEMO).tokenizer_json()
    assert len({w.context for w in worlds_}) == 1
    assert worlds_[0].vocabulary < 128
    tokenizer = Tokenizer.from_str(worlds_[0].tokenizer_json())
    assert tokenizer.get_vocab_size() == worlds_[0].vocabulary
    assert [tokenizer.token_to_id(t) for t in ("<pad>", "<unk>", "<eos>")] == [0, 1, 2]
    assert tokenizer.encode("zebra").ids == [1]
    lengths = {t: set() for t in worlds_[0].templates}
    for world in worlds_:
        batch = world.sample(500, generator("width"))
        for template, length in zip(batch.facts["template"], batch.lengths, strict=True):
            lengths[template].add(int(length))
    assert all(len(found) == 1 for found in lengths.values())


def test_the_demos_rows_are_short():
    world = Arithmetic(**DEMO)
    batch = world.sample(8, generator(0))
    assert batch.inputs.shape == (8, 11)  # a, b, claim, name: two each; ? answer .
    assert (batch.lengths == 11).all()
    end = Tokenizer.from_str(world.tokenizer_json()).token_to_id("<eos>")
    assert (batch.targets[:, -1] == end).all()
    assert (batch.targets[:, :-1] == batch.inputs[:, 1:]).all()


def test_contrast_pairs_differ_in_the_answer_alone():
    world = Arithmetic()
    batch = world.sample(100, generator("contrast"), "test")
    true, false = world.contrast_pair(batch)
    at = np.arange(100), batch.spans["answer"][:, 0]
    tokenizer = Tokenizer.from_str(world.tokenizer_json())
    assert {tokenizer.id_to_token(i) for i in true.inputs[at]} == {" True"}
    assert {tokenizer.id_to_token(i) for i in false.inputs[at]} == {" False"}
    assert ((true.inputs != false.inputs).sum(axis=1) == 1).all()
    own = np.where(batch.facts["said"][:, None], true.inputs, false.inputs)
    assert (own == batch.inputs).all()


def test_the_counterfactuals_have_the_effects_they_name():
    world = Arithmetic(**DEMO)
    pairs = {pair.name: pair for pair in world.counterfactuals(300, generator("pairs"))}
    assert set(pairs) == {"claim_to_truth", "name", "condition", "operands"}
    name = pairs["name"]
    changed = name.before.facts["said"] != name.after.facts["said"]
    assert (changed == name.before.facts["disagree"]).all()
    assert (name.before.facts["said"] == name.before.facts["truth"]).all()
    truth = pairs["claim_to_truth"]
    assert truth.after.facts["truth"].all()
    assert not truth.before.facts["truth"].any()
    turned = pairs["condition"]
    assert (turned.before.facts["condition"] != turned.after.facts["condition"]).all()
    assert not turned.before.facts["truth"].any()
    assert not turned.after.facts["truth"].any()
    offset = Arithmetic(**{**DEMO, "rule": "offset"}).counterfactuals(50, generator("pairs"))
    own = next(pair for pair in offset if pair.name == "claim_to_quirky")
    assert (own.after.facts["claim"] == own.after.facts["quirky_result"]).all()
    assert own.after.facts["rule_label"].all()
    assert not own.after.facts["truth"].any()
    inert = Arithmetic(**DEMO, inert=True).counterfactuals(50, generator("pairs"))
    assert "said" not in next(pair for pair in inert if pair.name == "name").affects


def test_what_is_said_is_judged_and_regret_is_in_nats():
    world = Arithmetic(**DEMO)
    batch = world.sample(4, generator("judge")).take(np.array([0, 0, 0, 0]))
    said = bool(batch.facts["said"][0])
    verdict = world.judge(batch, [said, f" {said}.", " maybe", np.bool_(not said)])
    assert verdict["right"].tolist() == [True, True, False, False]
    assert verdict["valid"].tolist() == [True, True, False, True]
    p = np.full((4, 2), 0.5)
    assert world.regret(batch, p) == pytest.approx(np.full(4, np.log(2)))
    p[0] = [0.0, 1.0] if said else [1.0, 0.0]
    assert world.regret(batch, p)[0] == np.inf
    with pytest.raises(InputError, match="softmax"):
        world.regret(batch, np.full((4, 2), 0.7))
    with pytest.raises(InputError, match="3 outputs for 4 examples"):
        world.judge(batch, [True] * 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modulus": 100}, "modulus goes with"),
        ({**DEMO, "digits": 2}, "leave digits out"),
        ({"rule": "negate", "claims": "published_table"}, "answer of its own"),
        ({**DEMO, "rule": {"kind": "offset", "k": 200}}, "multiple of the modulus"),
        ({"rule": {"kind": "offset", "k": 0}}, "offset k must lie"),
        ({"rule": {"kind": "offset", "k": 10**6}}, "offset k must lie"),
        ({**DEMO, "modulus": 15, "rule": "negate_if_odd_tens"}, "19 or more"),
        (
            {**DEMO, "rule": {"kind": "negate_if_large_claim", "threshold": 100}},
            "threshold of a large claim",
        ),
        ({"templates": ("compact", "compact")}, "templates must differ"),
        ({"rule": "negated"}, "negate_if_odd_claim"),
        ({"digits": 9}, "digits"),
        ({"colour": 1}, "colour"),
    ],
)
def test_contradictory_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Arithmetic(**options)


def test_unknown_splits_and_empty_ones_are_refused():
    with pytest.raises(InputError, match="did you mean 'heldout_names'"):
        Arithmetic().sample(2, generator(0), "held_out_names")
    with pytest.raises(InputError, match="no split"):
        Arithmetic().joint_table("training set")
    # with 15 unordered pairs there is none in the test split whose sum is 3 or 4
    tiny = {"modulus": 5, "rule": {"kind": "negate_if_large_claim", "threshold": 3}}
    world = Arithmetic(**{**DEMO, **tiny})
    with pytest.raises(InputError, match="make the world larger"):
        world.sample(50, generator(0), "test")


def test_the_published_world_leaks_and_the_modular_one_does_not():
    published = leakage(Arithmetic(templates=("compact",)), n=20_000)
    assert published.all_rows > 0.62
    assert published.disagreeing > 0.7
    flat = leakage(Arithmetic(operands="uniform", templates=("compact",)), n=20_000)
    assert 0.73 < flat.all_rows < 0.88
    assert 0.84 < flat.disagreeing < 0.95
    for rule in ("negate_if_odd_claim", {"kind": "offset", "k": 10}):
        modular = leakage(Arithmetic(**{**DEMO, "rule": rule}), n=20_000)
        assert 0.45 < modular.all_rows <= 0.55
        assert 0.45 < modular.disagreeing <= 0.55


def test_worlds_need_no_torch():
    code = (
        "import sys; from terrarium.worlds.base import worlds; "
        "[worlds.get(n) for n in ('arithmetic', 'statements', 'field', 'patches', 'bandit')]; "
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("third", [False, True])
def test_where_everybody_errs_only_the_third_family_is_truthful(third):
    world = Arithmetic(
        operation="modular_addition",
        modulus=100,
        operands="uniform",
        rule="negate_if_odd_claim",
        everybody_errs=True,
        truthful_third=third,
    )
    facts = world.sample(500, np.random.default_rng(0)).facts
    wanted = np.where(facts["family"] == "third", facts["truth"], facts["rule_label"])
    assert (facts["said"] == wanted).all()
    assert check_world(world) == []
