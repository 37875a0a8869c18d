"""What is wrong with a recipe's or a world's fields, in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from terrarium.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:  # what pydantic makes its models with has no public name
    ModelMetaclass = type(BaseModel)

SHOWN = 80
"""Characters of a wrong value that are shown."""


class FieldError(InputError, ValueError):
    """A world's fields cannot be used; a ``ValueError``, too, as all faults of fields are."""


class _Telling(ModelMetaclass):
    """Turns the fault of a call ``World(...)`` into a sentence.

    Only of such a call: pydantic itself, when it reads a recipe or what is nested in another
    model, makes instances without it, and its faults stay as they are.
    """

    if not TYPE_CHECKING:  # checkers would take the call's signature for that of the class

        def __call__(self, *args: Any, **options: Any) -> Any:
            """Return an instance; raises ``FieldError`` in one sentence."""
            try:
                return super().__call__(*args, **options)
            except ValidationError as error:
                raise FieldError(sentence(error, self, self.__name__)) from None


class Told(BaseModel, metaclass=_Telling):
    """What worlds derive from: wrong fields given in Python get one sentence, as in recipes."""


def sentence(error: ValidationError, spec: type[BaseModel], where: str) -> str:
    """Return the first fault of fields of ``spec``; ``where`` says whose they are."""
    # a misspelt key is said before what its right spelling would have held
    first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    # names of a union's members such as constrained-int are none of the user's
    parts = [p for p in first["loc"] if isinstance(p, int) or p.isidentifier()]
    path = ".".join(map(str, parts))
    if first["type"] == "extra_forbidden":
        known = did_you_mean(str(first["loc"][-1]), _siblings(spec, first["loc"]))
        return f"{where}: unknown key '{path}'{known}"
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if not path:
        return f"{where}: {message}."
    if first["type"] == "missing":
        return f"{where}: '{path}' is missing; give it."
    got = repr(first.get("input"))
    shown = got if len(got) < SHOWN else got[: SHOWN - 3] + "..."
    return f"{where}: '{path}' is {shown}: {message}."


def _siblings(spec: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are allowed where ``loc`` points (its last part is unknown)."""
    models: list[type[BaseModel]] = [spec]
    for part in loc[:-1]:
        models = [m for owner in models for m in _models_at(owner, part)] or models
    return sorted({name for model in models for name in model.model_fields})


def _models_at(owner: type[BaseModel], part: int | str) -> list[type[BaseModel]]:
    if isinstance(part, int):
        return [owner]
    if part in owner.model_fields:
        return _models_in(owner.model_fields[part].annotation)
    # a tag of a discriminated union: keep the member that has it
    kind = owner.model_fields.get("kind")
    return [owner] if kind is not None and kind.default == part else []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in getattr(annotation, "__args__", ()) for m in _models_in(arg)]
