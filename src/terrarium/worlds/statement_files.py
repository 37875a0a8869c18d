"""Reading the user's statements: CSV, TSV, JSON lines and Parquet, one row at a time."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from terrarium.errors import InputError, did_you_mean

COLUMNS = ("statement", "label", "quirky_label", "difficulty", "split", "group")
"""The columns that mean something; the first two are required."""

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands ("line 7"), and its fields."""


def read_columns(
    path: Path,
    columns: Mapping[str, str],
    max_rows: int,
    required: Sequence[str] = ("statement", "label"),
) -> dict[str, list[Any]]:
    """Return the columns that mean something, as lists of raw values, and ``"where"``.

    ``columns`` maps names of `COLUMNS` to the file's own.  A column that the file lacks is left
    out if it is optional and was not asked for.  ``"where"`` says where each row stands.

    Raises ``InputError`` in one sentence for a file that is missing, empty, a folder, of another
    kind, not UTF-8, cut off, longer than ``max_rows``, or without the required columns.
    """
    known = {**{name: name for name in COLUMNS}, **columns}
    if unknown := set(columns) - set(COLUMNS):
        word = min(unknown)
        raise InputError(f"columns: there is no meaning '{word}'{did_you_mean(word, COLUMNS)}")
    read = _reader(path)
    found: dict[str, list[Any]] = {}
    where: list[str] = []
    for place, row in _decoded(path, read):
        if not where:
            found = {name: [] for name in _present(path, row, known, (*required, *columns))}
        if len(where) == max_rows:
            raise InputError(
                f"{path} has more than max_rows = {max_rows:,} rows; raise max_rows or take a "
                "sample of the file."
            )
        for name, values in found.items():
            if known[name] not in row:
                raise InputError(f"{path}, {place}: the field '{known[name]}' is missing.")
            values.append(row[known[name]])
        where.append(place)
    if not where:
        raise InputError(f"{path} holds no rows; expected at least two statements with labels.")
    return {**found, "where": where}


def file_digest(path: Path) -> str:
    """Return 32 hex digits of the file's content; raises ``InputError`` if it cannot be read."""
    _reader(path)
    with _opened(path, lambda: path.open("rb")) as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return digest.hexdigest()


def _reader(path: Path) -> Callable[[Path], Iterator[Row]]:
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the CSV, TSV, JSONL or Parquet file in it.")
    if not path.exists():
        raise InputError(f"There is no file {path}; give a CSV, TSV, JSONL or Parquet file.")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path} is of no known kind; name it .csv, .tsv, .jsonl or .parquet by what it holds."
        )
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; expected rows with columns 'statement' and 'label'.")
    return reader


def _opened(path: Path, opener: Callable[[], Any]) -> Any:
    try:
        return opener()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None


def _decoded(path: Path, read: Callable[[Path], Iterator[Row]]) -> Iterator[Row]:
    """Yield the rows; what is wrong with their bytes becomes one sentence."""
    rows, last = read(path), "the start"
    while True:
        try:
            place, row = next(rows)
        except StopIteration:
            return
        except UnicodeDecodeError:
            raise InputError(
                f"{path} is not UTF-8 text (after {last}); save it as UTF-8."
            ) from None
        except csv.Error as error:
            raise InputError(f"{path}, after {last}: {error}; mend the file there.") from None
        yield place, row
        last = place


def _present(
    path: Path, row: Mapping[str, Any], known: Mapping[str, str], asked: Sequence[str]
) -> list[str]:
    """Return which meanings the file has, judged by its first row."""
    for name in asked:
        if known[name] not in row:
            hint = did_you_mean(known[name], row)
            raise InputError(
                f"{path} has no column '{known[name]}' (for {name}){hint} "
                f"Map it with columns={{'{name}': ...}} "
                f"(on the command line: --column {name}=...)."
            )
    return [name for name in COLUMNS if known[name] in row]


def _delimited(delimiter: str) -> Callable[[Path], Iterator[Row]]:
    def read(path: Path) -> Iterator[Row]:
        with _opened(path, lambda: path.open(encoding="utf-8-sig", newline="")) as file:
            rows = csv.reader(file, delimiter=delimiter, strict=True)
            header = next(rows, [])
            if len(set(header)) < len(header):
                raise InputError(f"{path} names a column twice in its header; rename one.")
            for row in rows:
                if not row:
                    continue
                if len(row) != len(header):
                    raise InputError(
                        f"{path}, line {rows.line_num}: {len(row)} fields, and the header has "
                        f"{len(header)}; quote fields that hold a {_SPOKEN[delimiter]}."
                    )
                yield f"line {rows.line_num}", dict(zip(header, row, strict=True))

    return read


_SPOKEN = {",": "comma", "\t": "tab"}


def _json_lines(path: Path) -> Iterator[Row]:
    with _opened(path, lambda: path.open(encoding="utf-8-sig")) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(
                    f"{path}, line {number}: not valid JSON ({error.msg}); is the line cut off?"
                ) from None
            if not isinstance(row, dict):
                raise InputError(
                    f"{path}, line {number}: expected a JSON object with 'statement' and 'label'."
                )
            yield f"line {number}", row


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for part in file.iter_batches(batch_size=8192):
                for row in part.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (pa.ArrowException, OSError):
        raise InputError(
            f"{path} is not a readable Parquet file; is it cut off? Write it again."
        ) from None


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
    ".pq": _parquet,
}
