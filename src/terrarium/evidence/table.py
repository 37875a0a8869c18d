"""Rows in files and in SQL: Parquet and CSV with an exact way back, DuckDB and pandas views.

A file holds the fixed columns, one column per factor under the factor's own name (for people, SQL
and plots), and a last column ``factors``: the row's factors as JSON, which tells 1, 1.0, true and
"1" apart, and None from absent.  Reading trusts that column alone, so that files with different
factors merge without harm.  A factor named like a fixed column is shown as ``factor.<name>``.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terrarium.errors import InputError, StoreError
from terrarium.evidence.rows import Interval, Row

if TYPE_CHECKING:
    import pandas as pd

FIXED = (
    "study",
    "cell",
    "metric",
    "unit",
    "value",
    "low",
    "high",
    "interval_level",
    "interval_over",
    "interval_method",
    "n",
    "status",
    "reason",
)
"""The columns that every file, frame and view has, in this order."""
FACTORS = "factors"
_DIGEST = b"terrarium.rows"
_FLOATS = frozenset({"value", "low", "high", "interval_level"})
_NEEDED = ("study", "cell", "metric", "unit", "value", "n", "status", "reason", FACTORS)
_STATUSES = ("ok", "undefined", "failed", "skipped")

Source = str | Path | Sequence[Row]


def write_rows(rows: Iterable[Row], folder: str | Path) -> Path:
    """Write ``rows.parquet`` and ``rows.csv`` into ``folder``; return the Parquet file's path.

    Each file appears whole or not at all; the folder is made.  Raises ``InputError`` for a factor
    that is no string, number, truth value or None, and ``StoreError`` where the disk refuses.
    """
    all_rows = list(rows)
    columns = {**_columns(all_rows), FACTORS: [_factors_json(row) for row in all_rows]}
    table = _arrow(columns)
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        _atomically(target / "rows.csv", lambda path: _write_csv(columns, path))
        _atomically(target / "rows.parquet", lambda path: _write_parquet(table, path))
    except OSError as error:
        raise StoreError(f"The rows cannot be written to {target}: {error}.") from error
    return target / "rows.parquet"


def _atomically(path: Path, write: Callable[[Path], None]) -> None:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write(draft)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _write_parquet(table: Any, path: Path) -> None:
    import pyarrow.parquet as pq

    digest = _digest(table.select([*FIXED, FACTORS]).to_pydict())
    marked = table.replace_schema_metadata({_DIGEST: digest})
    pq.write_table(marked, path, write_page_checksum=True)


def _digest(columns: Mapping[str, list[Any]]) -> bytes:
    content = json.dumps({name: columns[name] for name in sorted(columns)})
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest().encode()


def _write_csv(columns: Mapping[str, list[Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    ends = [row.interval for row in rows]
    columns: dict[str, list[Any]] = {
        name: [getattr(row, name) for row in rows] for name in FIXED[:5]
    }
    columns["low"] = [end and end.low for end in ends]
    columns["high"] = [end and end.high for end in ends]
    columns["interval_level"] = [end and end.level for end in ends]
    columns["interval_over"] = [end.over if end else "" for end in ends]
    columns["interval_method"] = [end.method if end else "" for end in ends]
    columns |= {name: [getattr(row, name) for row in rows] for name in FIXED[10:]}
    taken = {name.lower() for name in (*FIXED, FACTORS)}
    for name in dict.fromkeys(name for row in rows for name in row.factors):
        # SQL ignores case, so "Layer" beside "layer" needs another name too.
        column = name
        while column.lower() in taken:
            column = f"factor.{column}"
        taken.add(column.lower())
        columns[column] = [row.factors.get(name) for row in rows]
    return columns


def _plain(value: Any) -> Any:
    # NumPy's scalars are welcome as levels; they become Python's.
    return value.item() if hasattr(value, "item") and not isinstance(value, str) else value


def _factors_json(row: Row) -> str:
    plain = {name: _plain(level) for name, level in row.factors.items()}
    for name, level in plain.items():
        if not (level is None or isinstance(level, (str, int, float))):
            raise InputError(
                f"{row.metric}: factor '{name}' is a {type(level).__name__}; "
                "use a string, a number, a truth value or None."
            )
        if isinstance(level, float) and math.isnan(level):
            raise InputError(f"{row.metric}: factor '{name}' is NaN; use None for no level.")
    return json.dumps(plain)


def _arrow(columns: Mapping[str, list[Any]]) -> Any:
    import pyarrow as pa

    fixed = {name: pa.string() for name in (*FIXED, FACTORS)}
    fixed |= {name: pa.float64() for name in _FLOATS} | {"n": pa.int64()}
    arrays = {
        name: pa.array(values, fixed[name]) if name in fixed else _factor_array(values)
        for name, values in columns.items()
    }
    return pa.table(arrays)


def _factor_array(values: list[Any]) -> Any:
    import pyarrow as pa

    plain = [_plain(value) for value in values]
    kinds = {type(value) for value in plain if value is not None}
    if kinds == {bool}:
        return pa.array(plain, pa.bool_())
    if kinds == {int} and all(v is None or -(2**63) <= v < 2**63 for v in plain):
        return pa.array(plain, pa.int64())
    if kinds in ({float}, {int, float}):
        return pa.array([None if v is None else float(v) for v in plain], pa.float64())
    return pa.array([None if v is None else str(v) for v in plain], pa.string())


def read_rows(path: str | Path | Sequence[str | Path]) -> list[Row]:
    """Return the rows of a Parquet or CSV file, of a folder that holds one, or of several of them.

    The exact inverse of `write_rows`; files with different factors simply follow each other.
    Raises ``InputError`` in one sentence for a file that is missing, corrupt or holds no rows of
    this kind.
    """
    if not isinstance(path, (str, Path)):
        return [row for one in path for row in read_rows(one)]
    file = _found(Path(path))
    unreadable: tuple[type[Exception], ...] = (
        OSError,
        ValueError,
        TypeError,
        csv.Error,
        *_arrow_errors(),
    )
    try:
        columns = _read_csv(file) if file.suffix.lower() == ".csv" else _read_parquet(file)
    except unreadable as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "unknown format"
        raise InputError(
            f"{file} is no readable file of rows ({first}); run the study again to rewrite it."
        ) from error
    lacking = [name for name in _NEEDED if name not in columns]
    if lacking:
        raise InputError(f"{file} lacks the columns {', '.join(lacking)}; is it a file of rows?")
    rows = []
    for index in range(len(columns["metric"])):
        try:
            rows.append(_row({name: values[index] for name, values in columns.items()}))
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{file}, row {index + 1} is damaged: {error}.") from error
    return rows


def _arrow_errors() -> tuple[type[Exception], ...]:
    import pyarrow as pa

    errors: tuple[type[Exception], ...] = (pa.lib.ArrowException,)
    return errors


def _found(path: Path) -> Path:
    if path.is_dir():
        for name in ("rows.parquet", "rows.csv"):
            if (path / name).is_file():
                return path / name
        raise InputError(f"{path} holds no rows.parquet or rows.csv; run the study first.")
    if not path.is_file():
        raise InputError(f"There is no file {path}; run the study first or check the path.")
    if path.suffix.lower() not in (".parquet", ".csv"):
        raise InputError(f"{path}: rows are read from .parquet or .csv files.")
    return path


def _read_parquet(file: Path) -> dict[str, list[Any]]:
    import pyarrow.parquet as pq

    # One file as such: a folder named "seed=3" on the way must not become a column.
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        names = [n for n in parquet.schema_arrow.names if n in (*FIXED, FACTORS)]
        table = parquet.read(columns=names)
    found: dict[str, list[Any]] = table.to_pydict()
    # Page checksums leave the footer unguarded; files made by others have no digest.
    digest = (table.schema.metadata or {}).get(_DIGEST)
    if digest is not None and digest != _digest(found):
        raise ValueError("its content and its checksum differ")
    return found


def _read_csv(file: Path) -> dict[str, list[Any]]:
    with file.open(encoding="utf-8", newline="") as handle:
        reader = csv.reader(handle, strict=True)
        header = next(reader, [])
        lines = list(reader)
    for number, line in enumerate(lines, 2):
        if len(line) != len(header):
            raise ValueError(f"record {number} has {len(line)} fields, the header {len(header)}")
    wanted = {name: i for i, name in enumerate(header) if name in (*FIXED, FACTORS)}
    columns: dict[str, list[Any]] = {n: [line[i] for line in lines] for n, i in wanted.items()}
    for name in _FLOATS & columns.keys():
        columns[name] = [float(text) if text else None for text in columns[name]]
    if "n" in columns:
        columns["n"] = [int(text) for text in columns["n"]]
    return columns


def _row(record: Mapping[str, Any]) -> Row:
    interval = None
    if record.get("low") is not None:
        interval = Interval(
            record["low"],
            record["high"],
            record.get("interval_level", 0.95),
            record.get("interval_over", "seeds"),
            record.get("interval_method", ""),
        )
    factors = json.loads(record[FACTORS])
    if not isinstance(factors, dict):
        raise ValueError("its factors are no mapping")
    if record["status"] not in _STATUSES:
        raise ValueError(f"'{record['status']}' is no status")
    if not isinstance(record["n"], int):
        raise ValueError("its n is no whole number")
    return Row(
        record["study"],
        record["cell"],
        record["metric"],
        record["unit"],
        record["value"],
        factors,
        interval,
        record["n"],
        record["status"],
        record["reason"],
    )


def rows_frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Return the rows as a pandas DataFrame: fixed columns, and one column per factor.

    Whole numbers and truth values with gaps stay what they are (nullable dtypes).
    """
    import pandas as pd
    import pyarrow as pa

    kinds = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    frame: pd.DataFrame = _arrow(_columns(list(rows))).to_pandas(types_mapper=kinds.get)
    return frame


def query(source: Source | Sequence[str | Path], sql: str) -> list[dict[str, Any]]:
    """Return the result of ``sql`` on the view ``rows``, one dict per result row.

    ``source`` is rows, or whatever `read_rows` takes.  The view has the fixed columns and one
    column per factor (``select layer, avg(value) from rows where metric = 'auroc' group by
    layer``).  The query sees nothing else: no files, no network, no extensions.  Decimals become
    floats and NaN None, so that the result fits JSON.  Raises ``InputError`` in one sentence for
    SQL that cannot be run.
    """
    import duckdb

    items = [source] if isinstance(source, (str, Path)) else list(source)
    rows = [row for item in items for row in ([item] if isinstance(item, Row) else read_rows(item))]
    config = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
    }
    with duckdb.connect(":memory:", config=config) as connection:
        connection.register("rows", _arrow(_columns(rows)))
        connection.execute("set enable_external_access = false")
        connection.execute("set lock_configuration = true")
        try:
            result = connection.execute(sql)
            if result is None or result.description is None:
                raise InputError("The SQL is empty; try: select * from rows limit 5.")
            names = [column[0] for column in result.description]
            found = result.fetchall()
        except duckdb.Error as error:
            raise InputError(f"The SQL cannot be run: {_one_line(str(error))}.") from error
    if len(set(names)) < len(names):
        raise InputError("The SQL gives two columns of one name; name them with 'as'.")
    return [dict(zip(names, map(_json_value, line), strict=True)) for line in found]


def _one_line(message: str) -> str:
    # What follows is the statement with a caret below it, which needs several lines.
    return " ".join(message.split("LINE 1:", maxsplit=1)[0].split()).rstrip(".")


def _json_value(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
