"""Where a value that was read from a file does not fit its type, and what was expected there, in one sentence.

msgspec finds out whether something is wrong; its words are about types of a wire format. These are about settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import inspect


def mistake(value: object, kind: type) -> str | None:
    """The first mistake, `switching.wait_seconds is 0, expected a number from 0.05 to 86400`, or None.

    Args:
        value: dicts, lists and scalars as a TOML parser gives them.
        kind: a msgspec.Struct that forbids unknown fields.
    """
    return next(_mistakes(value, inspect.type_info(kind), ""), None)


def _mistakes(value: object, kind: inspect.Type, path: str) -> Iterator[str]:
    if not _fits(value, kind):
        yield f"{path or 'the file'} is {_shown(value)}, expected {_expected(kind)}"
    elif isinstance(kind, inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field for field in kind.fields}
        for key in (key for key in value if key not in fields):
            yield f"{_joined(path, key)} is unknown, expected one of {', '.join(fields)}"
        for name, field in fields.items():
            if name in value:
                yield from _mistakes(value[name], field.type, _joined(path, name))
            elif field.required:
                yield f"{_joined(path, name)} is missing, expected {_expected(field.type)}"
    elif isinstance(kind, inspect.DictType) and isinstance(value, dict):
        for key, each in value.items():
            yield from _mistakes(each, kind.value_type, _joined(path, key))
    elif isinstance(kind, inspect.ListType) and isinstance(value, list):
        for index, each in enumerate(value):
            yield from _mistakes(each, kind.item_type, f"{path}[{index}]")


def _fits(value: object, kind: inspect.Type) -> bool:
    """Whether the value itself is of the kind; what is in it is another question."""
    if isinstance(kind, inspect.UnionType):
        return any(_fits(value, each) for each in kind.types)
    if isinstance(kind, inspect.LiteralType):
        return value in kind.values
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        number = (int,) if isinstance(kind, inspect.IntType) else (int, float)
        return isinstance(value, number) and not isinstance(value, bool) and _within(value, kind)
    classes: dict[type[inspect.Type], type] = {
        inspect.StructType: dict,
        inspect.DictType: dict,
        inspect.ListType: list,
        inspect.StrType: str,
        inspect.BoolType: bool,
    }
    return isinstance(value, classes.get(type(kind), object))


def _within(value: Any, kind: inspect.IntType | inspect.FloatType) -> bool:
    return (kind.ge is None or value >= kind.ge) and (kind.le is None or value <= kind.le)


def _expected(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.UnionType):
        return " or ".join(_expected(each) for each in kind.types)
    if isinstance(kind, inspect.LiteralType):
        return " or ".join(sorted(map(str, kind.values)))
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        noun = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
        if kind.ge is not None and kind.le is not None:
            return f"{noun} from {kind.ge:g} to {kind.le:g}"
        return noun if kind.ge is None else f"{noun} of at least {kind.ge:g}"
    words: dict[type[inspect.Type], str] = {
        inspect.StructType: "a table",
        inspect.DictType: "a table",
        inspect.ListType: "a list",
        inspect.StrType: "a text",
        inspect.BoolType: "true or false",
    }
    return words.get(type(kind), "something else")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, str | int | float) else str(value)


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
