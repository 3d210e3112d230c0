"""Two answers to one question, as HTTP and as JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.compare.questions import Question
from tests.compare.tree import Difference, Walk, seconds_of

_HEADERS: Final = ("content-type", "x-content-type-options", "location")
_HTTP_OK: Final = 200
_HTTP_REFUSED: Final = 400


@dataclass(frozen=True, slots=True)
class Answer:
    """What came; status 0: the connection was closed without an answer, and `body` says how."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Since:
    """What both can have seen: events after the later start (seconds since 1970), and the creation of `names`, still there."""

    seconds: float
    names: frozenset[str]


def compare(walk: Walk, question: Question, ours: Answer, theirs: Answer, since: Since) -> Iterator[Difference]:
    """Everything in which the answers differ."""
    title = question.title or question.root
    walk.leaves += 1
    yield from compare_heads(title, ours, theirs)
    if ours.status != theirs.status:
        return
    if not question.root or theirs.status != _HTTP_OK:
        same = bool(ours.body) == bool(theirs.body) if question.any_text else _settled(ours.body) == _settled(theirs.body)
        if not same:
            yield Difference(title, "text", _start(ours), _start(theirs))
        return
    yield from _bytes(ours.body, theirs.body)
    try:
        mine = json.loads(ours.body)
    except ValueError as error:
        yield Difference(title, "body", f"not JSON: {error}", None)
        return
    other = json.loads(theirs.body)
    if question.samples >= 0:
        yield from _counted(question, mine, other)
        return
    if question.root.startswith("Events"):
        mine, other = comparable(mine, other, since)
    yield from walk.compare(question.root, mine, other, whose=question.whose)


def compare_heads(path: str, ours: Answer, theirs: Answer) -> Iterator[Difference]:
    """Status, and headers that theirs has: what is more of them is no client's business.

    Of another status only the text is compared, and only where both refuse: who is told why, is told the same.
    """
    if ours.status != theirs.status:
        yield Difference(path, "status", ours.status, theirs.status, f"{_start(ours)} | {_start(theirs)}")
        if min(ours.status, theirs.status) >= _HTTP_REFUSED and _settled(ours.body) != _settled(theirs.body):
            yield Difference(path, "text", _start(ours), _start(theirs))
        return
    for header in _HEADERS:
        if header in theirs.headers and ours.headers.get(header) != theirs.headers[header]:
            yield Difference(f"{path} {header}", "header", ours.headers.get(header), theirs.headers[header])


def comparable(ours: Any, theirs: Any, since: Since) -> tuple[Any, Any]:
    """Events that both must have: the creation of what is still there, and all of what both saw come since they run.

    A container that only one of them saw was too short for the other. Of several events of a container and type the newest.
    """
    if not (isinstance(ours, list) and isinstance(theirs, list)):
        return ours, theirs
    came = [{event["container_name"] for event in events if _came(event, since)} for events in (ours, theirs)]
    known = since.names | (came[0] & came[1])
    mine, other = (
        {
            (event["container_name"], event["event_type"]): event
            for event in events
            if event["container_name"] in known and (_is_creation(event) or seconds_of(event["timestamp"]) >= since.seconds)
        }
        for events in (ours, theirs)
    )
    return list(mine.values()), list(other.values())


def _is_creation(event: Any) -> bool:
    return bool(event["event_type"] == "containerCreation")


def _came(event: Any, since: Since) -> bool:
    return _is_creation(event) and seconds_of(event["timestamp"]) >= since.seconds


def _counted(question: Question, ours: Any, theirs: Any) -> Iterator[Difference]:
    """Where a number of samples was asked for, that many: their times are not the same, their values are compared elsewhere."""
    mine, other = (_sample_counts(question.root, value) for value in (ours, theirs))
    if mine != other:
        yield Difference(f"{question.root} with {question.samples} samples", "length", mine, other)


def _sample_counts(root: str, value: Any) -> list[int]:
    if root == "Container":
        return [len(value.get("stats") or ())]
    if root == "ContainerByName":
        return [len(container.get("stats") or ()) for _, container in sorted(value.items())]
    return [len(value)]


def _bytes(ours: bytes, theirs: bytes) -> Iterator[Difference]:
    """What a parser does not see."""
    for character, escape in ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026")):
        if escape in theirs and escape not in ours:
            yield Difference("JSON escapes", "body", character.decode(), escape.decode())
    for side in ("ours", "theirs"):
        if (ours if side == "ours" else theirs)[-1:] == b"\n" and ours[-1:] != theirs[-1:]:
            yield Difference("JSON end of line", "body", ours[-1:] == b"\n", theirs[-1:] == b"\n")


def _settled(text: bytes) -> list[bytes]:
    """A text whose parts come in any order: cAdvisor writes failures as they come out of a map."""
    return sorted(text.split(b", ")) if text.startswith(b"partial failures: ") else [text]


def _start(answer: Answer) -> str:
    return answer.body[:300].decode(errors="replace").strip()


def client_lines(text: str) -> dict[str, tuple[bool, str]]:
    """What the Go program printed (`ok` or `error`, tab, method, tab, what came) to method -> (whether it went well, what came)."""
    found = {}
    for line in text.splitlines():
        verdict, method, said = (*line.split("\t", 2), "", "")[:3]
        found[method] = (verdict == "ok", said)
    return found


def compare_clients(ours: str, theirs: str) -> Iterator[Difference]:
    """Two outputs of the Go program: a method that fails with us, or did not even come to its turn."""
    mine, other = client_lines(ours), client_lines(theirs)
    for method in [*other, *(method for method in mine if method not in other)]:
        went, said = mine.get(method, (False, "not called: the program had ended"))
        if not went or method not in other:
            yield Difference(f"client {method}", "refused", said, other.get(method, (False, "not called"))[1])


def names_of(containers: Sequence[Any]) -> frozenset[str]:
    """The names in an answer of /subcontainers."""
    return frozenset(container["name"] for container in containers)
