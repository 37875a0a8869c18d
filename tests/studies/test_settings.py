"""Settings are parsed to the type of their default, and refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from terrarium.errors import InputError
from terrarium.studies.base import Study
from terrarium.studies.settings import resolve_settings

STUDY = Study(
    name="toy",
    question="?",
    hypotheses=(),
    defaults={
        "smoke": {
            "seeds": 5,
            "lr": 0.003,
            "twin": True,
            "rule": "odd",
            "depths": (2, 4),
            "names": ["Alice"],
            "widths": [],
            "limit": None,
            "mixture": {"a": 1},
        }
    },
    cells=lambda settings: [],
    measure=lambda cell, home, progress: [],
    figures=lambda rows: [],
)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("seeds", "7", 7),
        ("seeds", 7, 7),
        ("seeds", "1e3", 1000),
        ("seeds", 5.0, 5),
        ("seeds", str(2**60 + 1), 2**60 + 1),
        ("lr", "1e-3", 0.001),
        ("lr", 1, 1.0),
        ("twin", "no", False),
        ("twin", "True", True),
        ("rule", "5", "5"),
        ("depths", "1,2,3", (1, 2, 3)),
        ("depths", "[1, 2]", (1, 2)),
        ("depths", [3], (3,)),
        ("depths", 3, (3,)),
        ("names", "Bob, Eve", ["Bob", "Eve"]),
        ("widths", "8,wide", [8, "wide"]),
        ("limit", "3", 3),
        ("limit", "folder/data.csv", "folder/data.csv"),
        ("mixture", '{"b": 2}', {"b": 2}),
    ],
)
def test_parsed_to_the_type_of_the_default(name: str, given: Any, expected: Any) -> None:
    settings = resolve_settings(STUDY, "smoke", {name: given})
    assert settings[name] == expected
    assert type(settings[name]) is type(expected)
    others = {key: value for key, value in settings.items() if key != name}
    assert others == {k: v for k, v in STUDY.defaults["smoke"].items() if k != name}


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("sede", "3", r"no setting 'sede'; did you mean 'seeds'\?"),
        ("seeds", "five", "'seeds' expects a whole number, such as 5; got 'five'"),
        ("seeds", "5.5", "whole number"),
        ("seeds", 5.5, "whole number"),
        ("seeds", True, "whole number"),
        ("seeds", "nan", "whole number"),
        ("seeds", "inf", "whole number"),
        ("lr", "inf", "finite number"),
        ("lr", None, "finite number"),
        ("twin", "maybe", "expects yes or no"),
        ("rule", 5, "expects text, such as 'odd'"),
        ("depths", "2,x", r"'depths' \(item 2\) expects a whole number"),
        ("mixture", "a=1", "expects a JSON object"),
    ],
)
def test_refused_in_one_sentence(name: str, given: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        resolve_settings(STUDY, "smoke", {name: given})


def test_unknown_size() -> None:
    with pytest.raises(InputError, match=r"no size 'smok'; did you mean 'smoke'\?"):
        resolve_settings(STUDY, "smok")  # type: ignore[arg-type]
