"""What may stand in a query string, and how a request is refused. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from streamer.model.wire import as_json

MOST_PARAMETERS: Final = 32

encode: Final = as_json
"""An answer as JSON; names that are not UTF-8 as they were published."""


class Answer(NamedTuple):
    """A complete response."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"


class Refused(Exception):
    """The request cannot be answered; the body says why and what would help."""

    def __init__(self, status: int, error: str, remedy: str = "", **more: Any) -> None:
        self.status, self.error, self.remedy, self.more = status, error, remedy, more
        super().__init__(error)

    def answer(self) -> Answer:
        return Answer(encode({"error": self.error, "remedy": self.remedy, **self.more}), self.status)


class Kind(NamedTuple):
    """A kind of parameter. `read` takes its text and raises ValueError with what is wrong, as what follows its name;
    `schema` says the same as JSON Schema."""

    read: Callable[[str], Any]
    schema: dict[str, Any]


class Param(NamedTuple):
    """One query parameter. `default` None: there is none. `several`: may be given more than once; the value is a tuple."""

    name: str
    kind: Kind
    default: Any
    help: str
    several: bool = False


def whole(low: int, high: int) -> Kind:
    """A whole number within bounds."""

    def read(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) <= len(str(high)) and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"is not a whole number from {low} to {high}")

    return Kind(read, {"type": "integer", "minimum": low, "maximum": high})


def _flag(text: str) -> bool:
    known = {"true": True, "1": True, "": True, "false": False, "0": False}
    if text.lower() not in known:
        raise ValueError("is not true or false")
    return known[text.lower()]


def _word(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    return text


flag: Final = Kind(_flag, {"type": "boolean"})
"""`true` or `false`; the bare name means true."""
word: Final = Kind(_word, {"type": "string", "minLength": 1})
"""Any text but none."""


def one_of(*words: str) -> Kind:
    """One of these words."""

    def read(text: str) -> str:
        if text in words:
            return text
        raise ValueError(f"is none of {', '.join(words)}")

    return Kind(read, {"type": "string", "enum": [*words]})


def some_of(*words: str) -> Kind:
    """Some of these words, with commas between them; the value is a frozenset."""

    def read(text: str) -> frozenset[str]:
        given = frozenset(text.split(","))
        if given <= {*words}:
            return given
        raise ValueError(f"is not made of {', '.join(words)}")

    each = "|".join(words)
    return Kind(read, {"type": "string", "pattern": f"^({each})(,({each}))*$"})


def _label(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if not name:
        raise ValueError("has no name")
    return name, value if equals else None


label: Final = Kind(_label, {"type": "string", "minLength": 1})
"""`name` or `name=value`."""


def parse(query_string: bytes, params: Sequence[Param], *, strict: bool) -> dict[str, Any]:
    """Every parameter with its value, the default where it is not given.

    `strict`: a parameter that is not in the table is refused, because a filter that was mistyped and ignored answers
    with too much. Health and metrics routes are not strict: probes and scrapers add parameters of their own.

    Raises:
        Refused: 400.
    """
    known = {param.name: param for param in params}
    values = {param.name: param.default for param in params}
    given: set[str] = set()
    for name, text in _pairs(query_string):
        param = known.get(name)
        if param is None:
            if strict:
                raise Refused(400, f"unknown query parameter {_shown(name)}", _which(name, known))
            continue
        if name in given and not param.several:
            raise Refused(400, f"query parameter {name} is given twice", "give it once")
        given.add(name)
        try:
            read = param.kind.read(text)
        except ValueError as wrong:
            raise Refused(400, f"query parameter {name}={_shown(text)} {wrong}", f"{name}: {param.help}") from None
        values[name] = (*values[name], read) if param.several else read
    return values


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    try:
        text = query_string.decode("utf-8", "replace")
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_PARAMETERS)
    except ValueError:
        raise Refused(400, "too many query parameters", f"give at most {MOST_PARAMETERS}") from None


def _which(name: str, known: dict[str, Param]) -> str:
    if not known:
        return "this path takes none"
    close = difflib.get_close_matches(name[:64], known, n=1)
    return (f"did you mean {close[0]}? " if close else "") + "known here: " + ", ".join(known)


def _shown(text: str) -> str:
    """A client's text in a message to it: quoted, and not longer than helps."""
    return repr(text if len(text) <= 80 else text[:80] + "…")
