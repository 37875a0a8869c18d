"""A study's settings: the defaults of a size with the user's changes, parsed and checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from terrarium.errors import InputError, did_you_mean
from terrarium.studies.base import Size, Study

_YES, _NO = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


def resolve_settings(
    study: Study, size: Size, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return ``study.defaults[size]`` with ``overrides`` put in.

    A value may be text as typed after ``--set`` (``"5"``, ``"1,2,3"``, ``"yes"``, JSON) or a
    Python object; it is brought to the type of the default it replaces.  Raises `InputError` for
    an unknown size or setting (with the nearest known one) and for a value of another type.
    """
    if size not in study.defaults:
        known = did_you_mean(size, study.defaults)
        raise InputError(f"{study.name} has no size '{size}'{known}")
    settings = dict(study.defaults[size])
    for name, value in (overrides or {}).items():
        if name not in settings:
            raise InputError(
                f"{study.name} has no setting '{name}'{did_you_mean(name, map(str, settings))}"
            )
        settings[name] = _parsed(f"{study.name}'s setting '{name}'", value, settings[name])
    return settings


def check_least(study: str, settings: Mapping[str, Any], least: Mapping[str, float]) -> None:
    """Raise ``InputError`` where a setting of ``study`` is below its least value."""
    for name, bound in least.items():
        if settings[name] < bound:
            owner = f"{study}'" if study.endswith("s") else f"{study}'s"
            raise InputError(
                f"{owner} setting '{name}' expects at least {bound}; got {settings[name]}."
            )


def check_active(study: str, settings: Mapping[str, Any]) -> None:
    """Raise ``InputError`` where more of a dictionary's features are to be active than it has."""
    if settings["active"] > settings["features"]:
        raise InputError(
            f"{study}: 'active' is {settings['active']} and a dictionary has 'features' "
            f"{settings['features']}; set active to that or less."
        )


def _parsed(what: str, value: Any, default: Any) -> Any:
    if isinstance(default, bool):
        return _boolean(what, value)
    if isinstance(default, (int, float)):
        return _number(what, value, default)
    if isinstance(default, str):
        if not isinstance(value, str):
            raise InputError(f"{what} expects text, such as '{default}'; got {value!r}.")
        return value
    if isinstance(default, (list, tuple)):
        return _sequence(what, value, default)
    if isinstance(default, Mapping):
        found = _json(value)
        if not isinstance(found, Mapping):
            raise InputError(f"{what} expects a JSON object; got {value!r}.")
        return dict(found)
    return _json(value)  # a default of None says nothing about the type


def _boolean(what: str, value: Any) -> bool:
    text = str(value).strip().lower()
    if text in _YES | _NO:
        return text in _YES
    raise InputError(f"{what} expects yes or no; got {value!r}.")


def _number(what: str, value: Any, default: float) -> int | float:
    whole = isinstance(default, int)
    expected = f"a {'whole' if whole else 'finite'} number, such as {default}"
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if not math.isfinite(number) or (whole and number != int(number)):
            raise ValueError
        # A large whole number doesn't pass through a float unharmed.
        return (int(value) if not isinstance(value, float) else int(number)) if whole else number
    except (TypeError, ValueError):
        if whole and isinstance(value, str) and _is_whole(value):
            return int(float(value))  # "5.0", "1e3"
        raise InputError(f"{what} expects {expected}; got {value!r}.") from None


def _is_whole(text: str) -> bool:
    try:
        number = float(text)
    except ValueError:
        return False
    return math.isfinite(number) and number == int(number)


def _sequence(what: str, value: Any, default: list[Any] | tuple[Any, ...]) -> Any:
    if isinstance(value, str):
        found = _json(value)
        if not isinstance(found, list):
            found = [part.strip() for part in value.split(",") if part.strip()]
    else:
        found = list(value) if isinstance(value, (list, tuple, range)) else [value]
    like = default[0] if default else None
    return type(default)(
        _parsed(f"{what} (item {at + 1})", item, like) for at, item in enumerate(found)
    )


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
