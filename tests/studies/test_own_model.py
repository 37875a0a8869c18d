"""`terrarium probe` and `detect` on models that transformers alone has made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from sklearn.metrics import roc_auc_score

from terrarium.evidence.intervals import grouped_auroc_interval
from terrarium.evidence.rows import Interval, Row, measured
from terrarium.evidence.table import read_rows
from terrarium.studies import own_checks, own_data, own_detecting, own_figures
from terrarium.studies.measure_probes import CONTRAST, PLAIN
from terrarium.worlds.statements import load_statements

ARCHITECTURES = ("gpt2", "gpt_neox", "llama", "qwen2", "qwen3", "gemma2", "gemma3_text")
NULLS = ("untrained network", "shuffled labels", "best of 1000 random directions")


@pytest.fixture
def table(foreign, tmp_path):
    """A small file: a third of the facts, whole groups."""
    rows = [row for row in foreign.statements() if row["difficulty"] % 3 == 0]
    return foreign.write_table(tmp_path / "statements.csv", rows)


def probe(command, *arguments):
    return command("probe", *arguments, "--workers", "0")


def detect(command, *arguments):
    return command("detect", *arguments, "--workers", "0")


def chosen(found, metric, /, **factors):
    return [r for r in found if r.metric == metric and factors.items() <= {**r.factors}.items()]


def check_named(rows, words, made=own_checks.probe_checks):
    (found,) = [c for c in made(rows) if words in c.name]
    return found


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_is_probed_at_every_layer(kind, command, tiny_models, table, tmp_path):
    said = probe(command, tiny_models(kind), table)
    assert said.code == 0, said.err
    folder = tmp_path / "terrarium-results" / f"probe-{kind}-statements"
    assert {p.name for p in folder.iterdir()} == {
        "rows.parquet", "rows.csv", "run.json", "report.html",
    }  # fmt: skip
    rows = read_rows(folder)
    for name in (*PLAIN, *CONTRAST, *NULLS):
        found = chosen(rows, "auroc", probe=name, split="test", rows="all", against="label")
        assert {r.factors["layer"] for r in found} == {1, 2}, name
    for row in rows:
        assert row.status in ("ok", "undefined")
        assert row.status == "ok" or row.reason
        assert row.interval is None or row.interval.over in ("rows", "groups")
        if row.interval is not None and row.factors.get("rows") == "all":
            assert row.interval.over == "groups"
        assert row.unit != "proportion" or row.value is None or 0 <= row.value <= 1
    assert "Logistic regression reads the label at AUROC" in said.out
    assert "What can be read of statements.csv in" in (folder / "report.html").read_text("utf-8")


def test_intervals_are_over_groups_where_the_file_names_them():
    rng = np.random.default_rng(0)
    labels, groups = np.tile([True, False], 30), np.repeat(np.arange(6), 10)
    scores = rng.normal(size=60) + labels
    row = own_data.auroc_row("auroc", scores, labels, groups=groups)
    assert row.interval == grouped_auroc_interval(scores, labels, groups)[1]
    assert "over the groups of rows" in own_figures.varied([row])
    alone = own_data.auroc_row("auroc", scores, labels, groups=np.zeros(60))
    plain = own_data.auroc_row("auroc", scores, labels)
    assert alone.interval == plain.interval
    assert plain.interval.over == "rows"
    assert "independent" in own_figures.varied([plain])
    apart = own_data.auroc_row("auroc", scores, labels, groups=labels)
    assert apart.interval is None
    assert apart.value == pytest.approx(plain.value)
    assert "fewer than two groups" in apart.reason


def test_what_is_said_is_what_transformers_says(command, foreign, tiny_models, table, tmp_path):
    model = tiny_models("gpt2")
    assert probe(command, model, table, "--out", "results").code == 0
    rows = read_rows(tmp_path / "results")
    network = transformers.AutoModelForCausalLM.from_pretrained(model).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    yes, no = (tokenizer(a)["input_ids"][0] for a in (" True", " False"))
    statements = load_statements(table)
    texts, facts = statements.rows("test")
    odds = []
    for text in texts:
        tokens = torch.tensor([tokenizer(foreign.QUESTION.format(text))["input_ids"]])
        with torch.no_grad():
            last = network(tokens).logits[0, -1]
        odds.append(float(last[yes] - last[no]))
    odds, label = np.array(odds), facts["truth"]
    for subset, mask in (("all", label | ~label), ("disagree", facts["disagree"])):
        (row,) = chosen(
            rows, "auroc", probe=own_figures.SAID, rows=subset, against="label", split="test"
        )
        assert row.value == pytest.approx(roc_auc_score(label[mask], odds[mask]), abs=1e-9)
    (row,) = chosen(rows, "auroc", probe=own_figures.SAID, against="quirky label")
    assert row.value == pytest.approx(roc_auc_score(facts["rule_label"], odds), abs=1e-9)


def test_columns_are_used_and_the_words_are_exposed(command, foreign, tiny_models, tmp_path):
    """A label that one word gives away is found by every probe, and the check says why."""
    rows = [
        {
            "text": f"{name} {'surely' if i % 2 else 'hardly'} is a bird.",
            "label": i % 2,
            "quirky_label": int((i % 2) != (i % 3 == 0)),
            "difficulty": i,
            "group": f"half {i // 60}",
            "split": ("train", "train", "train", "test", "test")[i % 5],
        }
        for i, name in enumerate(list(foreign.NAMES) * 2)
        if i < 120
    ]
    data = foreign.write_table(tmp_path / "facts.csv", rows)
    said = probe(command, tiny_models("llama"), data, "--column", "statement=text", "-o", "r")
    assert said.code == 0, said.err
    found = read_rows(tmp_path / "r")
    best = own_figures.at_chosen(found, rows="all", against="label")
    read = own_figures.of_probe(best, own_figures.PROBE)
    words = own_figures.of_probe(best, own_figures.INPUT)
    assert read["value"] > 0.95
    assert words["value"] > 0.95
    assert check_named(found, "words alone").status == "failed"
    assert "Check failed: the words alone give little away" in said.out
    subsets = {r.factors["rows"] for r in chosen(found, "auroc", probe=own_figures.PROBE)}
    assert subsets == {"all", "disagree", "easy", "hard", "group: half 0", "group: half 1"}
    carried = chosen(
        found, "auroc", probe=own_figures.PROBE, trained_on="easy", rows="hard", split="test"
    )
    assert {r.factors["layer"] for r in carried} == {1, 2}
    assert [f.name for f in own_figures.probe_figures(found)] == [
        "layers", "probes", "disagree", "difficulty", "groups",
    ]  # fmt: skip
    again = probe(command, tiny_models("llama"), data, "--column", "statement=text", "--json")
    assert (again.json["measured"], again.json["found"]) == (0, 1)
    assert command("report", "r").code == 0
    assert "failed" in command("verdicts", "r").out


def test_what_is_too_long_is_cut_and_counted(command, foreign, tiny_models, table, tmp_path):
    rows = load_statements(table).rows("all")
    long = [
        {"statement": text + (" It is so." * 30 if i % 50 == 0 else ""), "label": int(label)}
        for i, (text, label) in enumerate(zip(rows[0], rows[1]["truth"], strict=True))
    ]
    data = foreign.write_table(tmp_path / "long.csv", long)
    said = probe(command, tiny_models("gpt2"), data, "-o", "r")
    assert said.code == 0, said.err
    (row,) = chosen(read_rows(tmp_path / "r"), "truncated_statements")
    assert row.value == sum(i % 50 == 0 for i in range(len(long)))
    assert "are longer than the model takes" in said.err
    assert check_named(read_rows(tmp_path / "r"), "is cut").status == "failed"
    assert "their ends were cut off" in (tmp_path / "r" / "report.html").read_text("utf-8")


def test_without_validation_rows_whole_groups_of_the_training_rows_choose(foreign, tmp_path):
    rows = [
        {**row, "split": "test" if row["group"] in foreign.NAMES[::4] else "train"}
        for row in foreign.statements()
    ]
    statements = load_statements(foreign.write_table(tmp_path / "s.csv", rows))
    splits = own_data.split_rows(statements)
    groups = {split: {*part.facts["group"]} for split, part in splits.items()}
    assert not groups["train"] & groups["validation"]
    assert groups["test"] == {*foreign.NAMES[::4]}
    share = len(groups["validation"]) / (len(groups["train"]) + len(groups["validation"]))
    assert 0.1 < share < 0.4
    assert own_data.split_rows(statements)["validation"].texts == splits["validation"].texts


def test_rows_of_one_class_are_one_undefined_row_each(foreign, tmp_path):
    rows = [{**row, "quirky_label": 1} for row in foreign.statements()]  # differs where false
    statements = load_statements(foreign.write_table(tmp_path / "s.csv", rows))
    told = own_data.data_rows(statements, own_data.split_rows(statements))
    lost = [r for r in told if r.status == "undefined" and r.factors["rows"] == "disagree"]
    assert [r.factors["split"] for r in lost] == ["validation", "test"]
    assert all(r.reason.endswith("of these rows are false") for r in lost)


def test_auroc_row_without_two_scores_of_a_class_has_no_interval():
    scores = np.array([0.0, 1.0, 2.0, 3.0])
    row = own_data.auroc_row("auroc", scores, np.array([False, False, False, True]))
    assert (row.value, row.interval) == (1.0, None)
    row = own_data.auroc_row("auroc", scores, np.zeros(4, bool))
    assert (row.status, row.value) == ("undefined", None)
    row = own_data.auroc_row("auroc", None, np.array([True, False]), reason="no fit")
    assert (row.status, row.reason) == ("undefined", "no fit")


# figures and checks, from rows alone


def planted(probe_name, by_layer, **factors):
    """Rows with given (validation, test) AUROCs by layer."""
    for layer, values in enumerate(by_layer, 1):
        for split, value in zip(("validation", "test"), values, strict=True):
            row = measured(
                "auroc", value, unit="proportion", n=40, probe=probe_name, layer=layer,
                split=split, rows="all", against="label", trained_on="all", **factors,
            )  # fmt: skip
            band = None if value is None else Interval(value - 0.1, value + 0.1, over="rows")
            yield Row(**{**vars(row), "interval": band})


def test_the_layer_is_chosen_on_validation_rows():
    rows = list(planted(own_figures.PROBE, [(0.6, 0.99), (0.8, 0.7), (0.8, 0.9)]))
    (found,) = own_figures.at_chosen(rows)
    assert (found["layer"], found["value"]) == (2, 0.7)


def test_the_title_and_the_checks_follow_the_rows():
    read = list(planted(own_figures.PROBE, [(0.6, 0.99), (0.8, 0.7)]))
    rows = read + list(planted(own_figures.UNTRAINED, [(0.5, 0.5), (0.5, 0.55)]))
    figure = own_figures.probe_figures(rows)[0]
    assert figure.title.startswith("Logistic regression reads the label at AUROC 0.70 [0.60, 0.80]")
    assert "after block 2" in figure.title
    assert check_named(rows, "untrained network").status == "passed"
    rows = read + list(planted(own_figures.UNTRAINED, [(0.5, 0.65), (0.4, 0.1)]))
    assert check_named(rows, "untrained network").status == "failed"
    assert check_named(rows, "random directions").status == "not made"
    assert check_named(rows, "words alone").status == "not made"


@pytest.mark.parametrize(("middle", "status"), [(0.5, "passed"), (0.7, "failed")])
def test_shuffles_are_averaged_and_judged_together(middle, status):
    rows = [
        row
        for index, shift in enumerate((-0.02, -0.01, 0.0, 0.01, 0.02))
        for row in planted(own_figures.SHUFFLED, [(0.5, middle + shift)], shuffle=index)
    ]
    (found,) = own_figures.records(rows, "auroc", split="test")
    assert found["value"] == pytest.approx(middle)
    half = 2.7764451 * np.std([-0.02, -0.01, 0.0, 0.01, 0.02], ddof=1) / np.sqrt(5)
    assert found["high"] - found["value"] == pytest.approx(half, rel=1e-6)
    assert check_named(rows, "shuffled").status == status


def test_nothing_to_draw_draws_nothing():
    rows = list(planted(own_figures.PROBE, [(None, None), (None, None)]))
    assert own_figures.probe_figures(rows) == []
    assert {c.status for c in own_checks.probe_checks([])} == {"not made"}


# detect


def split_file(foreign, tmp_path, name, classes, most=400, forms=3):
    rows = [
        {"statement": row["statement"], "label": row["label"]}
        for row in foreign.statements()
        if any(f"a {c}" in row["statement"] for c in classes)
    ]
    return foreign.write_table(tmp_path / name, rows[:most])


def test_detectors_meet_controls_and_say_what_they_cannot(command, foreign, tiny_models, tmp_path):
    trusted = split_file(foreign, tmp_path, "trusted.csv", ("bird", "fish"))
    suspect = split_file(foreign, tmp_path, "suspect.csv", ("river",), most=40)
    control = split_file(foreign, tmp_path, "control.csv", ("metal",), most=40)
    said = detect(
        command, tiny_models("gpt2"), "--trusted", trusted, "--suspect", suspect,
        "--control", control, "-o", "d",
    )  # fmt: skip
    assert said.code == 0, said.err
    rows = read_rows(tmp_path / "d")
    found = chosen(rows, "detector_auroc", suspect="suspect")
    names = {str(r.factors["detector"]) for r in found}
    assert {"mahalanobis", "probe_log_odds", "input only", "mahalanobis, untrained network"} < names
    (words,) = chosen(rows, "detector_auroc", suspect="suspect", detector="input only")
    assert words.value > 0.9  # rivers are never named among the trusted
    assert check_named(rows, "words alone", own_checks.detect_checks).status == "failed"
    assert check_named(rows, "harmless", own_checks.detect_checks).status in ("passed", "failed")
    recall = chosen(rows, "recall_at_1_percent_fpr")
    assert {r.status for r in recall} == {"undefined"}
    assert "1 % false positives need 100 held-out trusted rows" in recall[0].reason
    assert "Every detector at the last layer" in said.out
    assert "Do rows of suspect.csv look odd" in (tmp_path / "d" / "report.html").read_text("utf-8")


def test_halves_are_even_and_share_no_group():
    rng = np.random.default_rng(0)
    for sizes in ([1] * 40, [7, 2, 1, 9, 4, 3, 3, 5], [30, 1, 1], [20, 20]):
        groups = np.repeat(np.arange(len(sizes)), sizes)
        rows = rng.permutation(len(groups))
        first, second = own_detecting.halves(rows, groups)
        assert sorted([*first, *second]) == sorted(rows)
        assert not {*groups[first]} & {*groups[second]}
        assert min(len(first), len(second)) >= 1
        assert abs(len(first) - len(second)) <= max(sizes)
    first, second = own_detecting.halves(rows, np.zeros(40, int))
    assert (len(first), len(second)) == (40, 0)
    first, second = own_detecting.halves(rows, None)
    assert (first == rows[:20]).all()
    assert (second == rows[20:]).all()


def test_detectors_are_judged_on_groups_that_they_were_not_fitted_on(
    command, foreign, tiny_models, tmp_path, monkeypatch
):
    rows = [{k: row[k] for k in ("statement", "group")} for row in foreign.statements()]
    trusted = foreign.write_table(tmp_path / "a.csv", rows[:180])
    suspect = foreign.write_table(
        tmp_path / "b.csv", [{"statement": r["statement"]} for r in rows[180:210]]
    )
    seen = []
    drawn = own_detecting._kinds
    monkeypatch.setattr(own_detecting, "_kinds", lambda *a: seen.append(drawn(*a)) or seen[-1])
    asked = (tiny_models("gpt2"), "--trusted", trusted, "--suspect", suspect, "-o", "d")
    assert detect(command, *asked).code == 0
    (kinds,) = seen
    names = [row["group"] for row in rows[:180]]
    sides = [{names[i] for i in side} for side in (kinds.fitted, kinds.held)]
    assert not sides[0] & sides[1]
    assert len(kinds.fitted) == len(kinds.held) == 90
    (row,) = chosen(read_rows(tmp_path / "d"), "detector_auroc", detector="input only")
    assert row.interval.over == "groups"
    foreign.write_table(tmp_path / "a.csv", [{**row, "group": "one"} for row in rows[:180]])
    said = detect(command, *asked[:-1], "e")
    assert said.code != 0
    assert "all trusted rows are of one group" in said.err + said.out


def test_rows_like_the_trusted_ones_look_like_them(command, foreign, tiny_models, tmp_path):
    rows = [{"statement": row["statement"]} for row in foreign.statements()]
    np.random.default_rng(0).shuffle(rows)
    trusted = foreign.write_table(tmp_path / "a.csv", rows[:216])
    suspect = foreign.write_table(tmp_path / "b.csv", rows[216:])
    said = detect(command, tiny_models("gpt2"), "--trusted", trusted, "--suspect", suspect,
                  "-o", "d")  # fmt: skip
    assert said.code == 0, said.err
    found = read_rows(tmp_path / "d")
    for row in chosen(found, "detector_auroc"):
        if row.factors["detector"] in ("mahalanobis", "isolation_forest"):
            assert abs(row.value - 0.5) < 0.15, row
    assert all(r.value is not None for r in chosen(found, "recall_at_1_percent_fpr", layer=1))
    lost = chosen(found, "detector_auroc", detector="probe_log_odds")
    assert lost[0].reason.startswith("it needs labels of the trusted rows")
    assert check_named(found, "harmless", own_checks.detect_checks).status == "not made"
