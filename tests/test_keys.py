"""Keys: equal specs give equal keys, and code counts without its comments."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from terrarium.errors import InputError
from terrarium.keys import canonical_json, code_closure, code_fingerprint, content_key


class Spec(BaseModel):
    a: int = 1
    b: str = "x"


def test_equal_specs_give_equal_keys_whatever_their_order():
    assert content_key({"a": 1, "b": [1, 2]}) == content_key({"b": [1, 2], "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 2})
    assert content_key({"a": 1}, "code") != content_key({"a": 1})


def test_defaults_are_part_of_a_spec():
    assert canonical_json(Spec()) == canonical_json({"a": 1, "b": "x"})


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        content_key({"a": float("nan")})
    with pytest.raises(TypeError, match="cannot be part of a key"):
        content_key({"a": object()})


def test_comments_and_docstrings_do_not_count(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    bodies = {
        "mod_a": "def f():\n    return 1\n",
        "mod_b": '"""Doc."""\n# comment\ndef f():\n    """Doc."""\n    return 1\n',
        "mod_c": "def f():\n    return 2\n",
    }
    for name, body in bodies.items():
        (tmp_path / f"{name}.py").write_text(body)
    prints = {}
    for name, body in bodies.items():
        (tmp_path / "same.py").write_text(body)
        code_fingerprint.cache_clear()
        prints[name] = code_fingerprint("same")
    code_fingerprint.cache_clear()
    assert prints["mod_a"] == prints["mod_b"]
    assert prints["mod_a"] != prints["mod_c"]


def test_a_closure_stays_in_its_package():
    closure = code_closure("terrarium.worlds.arithmetic")
    assert "terrarium.worlds.arithmetic_rules" in closure
    assert all(name.startswith("terrarium.worlds.") for name in closure)


def test_the_closure_of_a_folder_of_the_road_leads_out_of_the_folder():
    closure = code_closure("terrarium.worlds.images.factors")
    assert {"terrarium.worlds.images.factors", "terrarium.worlds.splits"} <= set(closure)
    assert all(name.startswith("terrarium.worlds.") for name in closure)


def test_what_has_no_file_is_refused_in_a_sentence(monkeypatch):
    import importlib.util

    def no_spec(name):
        raise ValueError(f"{name}.__spec__ is None")

    monkeypatch.setattr(importlib.util, "find_spec", no_spec)
    code_closure.cache_clear()
    with pytest.raises(InputError, match="put it into a module"):
        code_closure("__main__")
