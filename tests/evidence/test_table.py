import math

import numpy as np
import pandas as pd
import pytest

from terrarium.errors import InputError, StoreError
from terrarium.evidence.rows import Interval, Row
from terrarium.evidence.table import query, read_rows, rows_frame, write_rows
from terrarium.randomness import generator

ROWS = [
    Row("s", "k1", "auroc", "proportion", 0.1 + 0.2, {"layer": 2, "seed": 0, "probe": "lda"}, n=7),
    Row("s", "k1", "auroc", "proportion", 1e-300, {"layer": 2.0, "quirky": True, "seed": None}),
    Row("s", "k1", "auroc", "", 0.5, {"layer": "embed", "n": 3, "Layer": 1}, n=2**40),
    Row("s", "k2", "auroc", "", None, {"layer": True}, None, 12, "undefined", 'one\nclass, "x"'),
    Row("", "", "cell", "", None, {}, None, 0, "failed", "Ω killed"),
    Row("s", "k3", "rate", "", 0.0, {"x": math.inf}, Interval(0.0, 3 / 7, 0.9, "rows", "W"), 10),
    Row("s", "k3", "rate", "steps", -1.5, {"layer": 1}, Interval(-2.0, math.inf), 10),
]


def typed(rows):
    """Rows with the types of their levels, for 1 == 1.0 == True."""
    return [(row, [(k, type(v)) for k, v in row.factors.items()]) for row in rows]


@pytest.mark.parametrize("name", ["", "rows.parquet", "rows.csv"])
def test_round_trip_is_exact(tmp_path, name):
    path = write_rows(ROWS, tmp_path / "seed=3")
    assert path.name == "rows.parquet"
    assert sorted(p.name for p in path.parent.iterdir()) == ["rows.csv", "rows.parquet"]
    assert typed(read_rows(path.parent / name)) == typed(ROWS)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv"])
def test_no_rows_and_random_floats(tmp_path, name):
    write_rows([], tmp_path)
    assert read_rows(tmp_path / name) == []
    values = generator("floats").normal(size=200)
    rows = [
        Row("s", "c", "m", "", float(v), {"x": float(-v), "i": i}) for i, v in enumerate(values)
    ]
    write_rows(rows, tmp_path)
    assert read_rows(tmp_path / name) == rows


def test_numpy_levels_become_plain(tmp_path):
    write_rows(
        [Row("s", "c", "m", "", 1.0, {"layer": np.int64(3), "on": np.bool_(True)})], tmp_path
    )
    assert typed(read_rows(tmp_path))[0][1] == [("layer", int), ("on", bool)]


def test_files_with_other_factors_merge(tmp_path):
    a, b = write_rows(ROWS[:1], tmp_path / "a"), write_rows(ROWS[3:6], tmp_path / "b")
    assert typed(read_rows([a, b])) == typed([ROWS[0], *ROWS[3:6]])
    found = query([a, b], "select metric, count(*) as n from rows group by metric order by metric")
    assert found == [
        {"metric": "auroc", "n": 2},
        {"metric": "cell", "n": 1},
        {"metric": "rate", "n": 1},
    ]


def test_files_of_older_versions_are_read(tmp_path):
    import pyarrow.parquet as pq

    path = write_rows(ROWS, tmp_path)
    table = pq.read_table(path).drop_columns(["interval_method", "interval_over", "interval_level"])
    table = table.append_column("later", table["n"]).replace_schema_metadata(None)
    pq.write_table(table, path)
    assert read_rows(path)[5].interval == Interval(0.0, 3 / 7)


def test_failed_write_leaves_the_old_file(tmp_path):
    path = write_rows(ROWS, tmp_path)
    with pytest.raises(InputError, match="factor 'x' is a list"):
        write_rows([Row("s", "c", "m", "", 1.0, {"x": [1]})], tmp_path)
    with pytest.raises(InputError, match="NaN"):
        write_rows([Row("s", "c", "m", "", 1.0, {"x": math.nan})], tmp_path)
    assert read_rows(path) == ROWS
    with pytest.raises(StoreError, match="cannot be written"):
        write_rows(ROWS, path / "below a file")


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".") or text.endswith("?")
    return text


def test_missing_and_foreign_files_get_one_sentence(tmp_path):
    for path in (tmp_path / "no.parquet", tmp_path):
        with pytest.raises(InputError, match="run the study first") as error:
            read_rows(path)
        one_sentence(error)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(InputError, match=r"parquet or \.csv"):
        read_rows(tmp_path / "x.json")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(InputError, match="lacks the columns study"):
        read_rows(tmp_path / "foreign.parquet")
    for name, text in [("binary.csv", b"\xff\xfe\x00"), ("empty.csv", b""), ("t.parquet", b"PAR1")]:
        (tmp_path / name).write_bytes(text)
        with pytest.raises(InputError) as error:
            read_rows(tmp_path / name)
        one_sentence(error)


def attempt(path):
    try:
        return read_rows(path)
    except InputError as error:
        return str(error)


def test_every_damaged_byte_is_noticed_or_harmless(tmp_path):
    path = write_rows(ROWS, tmp_path)
    good = path.read_bytes()
    rng = generator("damage")
    noticed = 0
    for place in rng.integers(0, len(good), 150):
        bad = bytearray(good)
        bad[place] ^= 0x55
        path.write_bytes(bad)
        outcome = attempt(path)
        noticed += isinstance(outcome, str)
        # What isn't noticed lies in metadata that reading doesn't use.
        assert outcome == ROWS or "\n" not in outcome
    assert noticed > 30
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(InputError, match="no readable file"):
        read_rows(path)


def test_damaged_csv_names_the_place(tmp_path):
    write_rows(ROWS, tmp_path)
    path = tmp_path / "rows.csv"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("undefined", "fine"), encoding="utf-8")
    with pytest.raises(InputError, match="row 4 is damaged: 'fine' is no status"):
        read_rows(path)
    path.write_text(text + "s,k\n", encoding="utf-8")
    with pytest.raises(InputError, match="record 9 has 2 fields"):
        read_rows(path)


def test_query_sees_factors_as_columns():
    rows = [
        Row("s", "c", "auroc", "", v, {"layer": k, "seed": s, "unit": "u"})
        for k, values in {1: [0.5, 0.7], 2: [0.9, 1.0]}.items()
        for s, v in enumerate(values)
    ]
    sql = "select layer, avg(value) as mean from rows group by layer order by layer"
    found = query(rows, sql)
    assert [r["layer"] for r in found] == [1, 2]
    assert [r["mean"] for r in found] == pytest.approx([0.6, 0.95])
    # A factor called like a fixed column steps aside.
    assert query(rows, 'select distinct "factor.unit" as u, unit from rows') == [
        {"u": "u", "unit": ""}
    ]
    assert query(rows, "select 1.5 as d, 'nan'::double as x, value from rows limit 0") == []
    assert query(rows, "select 1.5 as d, 'nan'::double as x") == [{"d": 1.5, "x": None}]
    assert query([], "select count(*) as n from rows") == [{"n": 0}]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("selec", "syntax error"),
        ("select layr from rows", "layr"),
        ("select * from other", "other"),
        ("", "empty"),
        ("select value, value from rows", "one name"),
        ("select * from read_csv('/etc/hosts')", "disabled"),
        ("copy rows to '{folder}/stolen.csv'", "disabled"),
        ("install httpfs", "disabled"),
        ("set enable_external_access = true", "cannot be run"),
    ],
)
def test_bad_sql_gets_one_sentence(tmp_path, sql, message):
    with pytest.raises(InputError, match=message) as error:
        query(ROWS, sql.format(folder=tmp_path))
    one_sentence(error)
    assert list(tmp_path.iterdir()) == []


def test_query_cannot_reach_python():
    stolen = pd.DataFrame({"a": [1]})
    with pytest.raises(InputError, match="stolen"):
        query(ROWS, "select * from stolen")
    assert len(stolen) == 1


def test_frame_keeps_whole_numbers_whole():
    frame = rows_frame([ROWS[0], ROWS[4]])
    assert str(frame["layer"].dtype) == "Int64"
    assert frame["layer"][0] == 2
    assert frame["layer"].isna()[1]
    assert frame["value"][0] == 0.1 + 0.2
    mixed = rows_frame(ROWS)
    assert mixed["layer"].tolist()[:3] == ["2", "2.0", "embed"]
    assert {"factor.n", "factor.Layer"} <= set(mixed.columns)
