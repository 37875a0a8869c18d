"""Content keys: the full resolved spec and a fingerprint of the code that gives it its meaning."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from terrarium.errors import InputError


def canonical_json(value: Any) -> str:
    """Return ``value`` as JSON with sorted keys; two equal specs give equal text.

    Pydantic models are dumped in full, defaults included, so that a changed default changes the
    key.  Raises ``TypeError`` for what JSON cannot hold, and ``ValueError`` for NaN.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a key")


def content_key(spec: Any, code: str = "") -> str:
    """Return a 32-hex-digit key of ``spec`` and of ``code`` (a fingerprint, may be empty)."""
    return hashlib.blake2b(f"{canonical_json(spec)}\x00{code}".encode(), digest_size=16).hexdigest()


def folder_checksum(folder: Path) -> str:
    """Return a checksum of the names and bytes of a folder's files, 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(
            f"{path.relative_to(folder).as_posix()}\x00{path.stat().st_size}\x00".encode()
        )
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@functools.cache
def code_fingerprint(*modules: str) -> str:
    """Return a 12-hex-digit fingerprint of the named modules' syntax trees.

    Comments, blank lines and docstrings do not count, so that an edit to them regrows nothing.
    The modules are found but not imported.  Raises ``ModuleNotFoundError`` for an unknown name.
    """
    digest = hashlib.blake2b(digest_size=6)
    for name in sorted(modules):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"no source for module {name}")
        tree = _without_docstrings(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
        digest.update(f"{name}\x00{ast.dump(tree)}\x00".encode())
    return digest.hexdigest()


@functools.cache
def code_closure(module: str) -> tuple[str, ...]:
    """Return ``module`` and the modules of its own package that it imports, however indirectly.

    Only siblings count (``terrarium.worlds.x`` leads to other ``terrarium.worlds`` modules, and so
    does ``terrarium.worlds.images.x``), so that a world's fingerprint follows its own code and not
    the whole of terrarium.
    """
    parts = module.split(".")[:-1]
    package = ".".join(parts[:2] if parts[:1] == ["terrarium"] else parts)
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            spec = importlib.util.find_spec(name)
        except ValueError:  # __main__ of a script or notebook: no file to take a fingerprint of
            raise InputError(
                f"What is defined in '{name}' cannot be keyed; put it into a module of its own "
                "and import it."
            ) from None
        if spec is None or spec.origin is None:
            continue
        found.add(name)
        for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and package:
                if node.module.startswith(f"{package}."):
                    waiting.append(node.module)
                elif node.module == package:  # from terrarium.worlds import names
                    waiting += [f"{package}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import) and package:
                waiting += [a.name for a in node.names if a.name.startswith(f"{package}.")]
    return tuple(sorted(found))


def code_package(package: str) -> tuple[str, ...]:
    """Return the modules of ``package``, those of its subpackages included, without importing them.

    Raises ``ModuleNotFoundError`` for an unknown package.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no package {package}")
    found = []
    for root in map(Path, spec.submodule_search_locations):
        for path in root.rglob("*.py"):
            parts = [package, *path.relative_to(root).with_suffix("").parts]
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return tuple(sorted(found))


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return tree
