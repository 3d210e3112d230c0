"""What differs, grouped by path and kind with one example each, beside the reasons of those that are meant to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.compare.expected import Expected, reason_of
from tests.compare.setting import Setting
from tests.compare.tree import Difference, brief


@dataclass(slots=True)
class Group:
    """All differences of one kind at one path; `asked` are the questions that showed it."""

    path: str
    kind: str
    count: int
    example: Difference
    asked: list[str]
    expected: Expected | None


def grouped(found: Iterable[tuple[str, Difference]], setting: Setting) -> list[Group]:
    """(question, difference) pairs to groups: what is not expected first, then in the order of paths."""
    groups: dict[tuple[str, str, Expected | None], Group] = {}
    for asked, difference in found:
        expected = reason_of(difference, setting)
        key = (difference.path, difference.kind, expected)
        group = groups.get(key)
        if group is None:
            group = groups[key] = Group(difference.path, difference.kind, 0, difference, [], expected)
        group.count += 1
        if asked not in group.asked:
            group.asked.append(asked)
    return sorted(groups.values(), key=lambda group: (group.expected is not None, group.path, group.kind))


def as_json(groups: Iterable[Group]) -> list[dict[str, Any]]:
    """The groups as plain values."""
    return [
        {
            "path": group.path, "kind": group.kind, "count": group.count, "where": group.example.where,
            "ours": brief(group.example.ours), "theirs": brief(group.example.theirs), "asked": group.asked,
            "expected": group.expected.reason if group.expected else None,
        }
        for group in groups
    ]  # fmt: skip


def as_text(groups: list[Group], *, questions: int, values: int) -> str:
    """The groups as a person reads them: the unexpected with an example, the expected by their reason."""
    unexpected = [group for group in groups if group.expected is None]
    lines = []
    for group in unexpected:
        lines.append(f"{group.path}  [{group.kind}, {group.count} times in {len(group.asked)} answers]")
        lines.append(f"    ours    {_short(group.example.ours)}")
        lines.append(f"    theirs  {_short(group.example.theirs)}")
        lines.append(f"    at      {group.asked[0]}{' · ' + group.example.where if group.example.where else ''}")
    reasons: dict[str, list[Group]] = {}
    for group in groups:
        if group.expected is not None:
            reasons.setdefault(group.expected.reason, []).append(group)
    if reasons:
        lines.append("\nDifferent on purpose:")
    for reason, members in reasons.items():
        lines.append(f"  {reason}")
        lines.extend(f"      {group.path}  [{group.kind}, {group.count} times]" for group in members)
    expected = len(groups) - len(unexpected)
    lines.append(
        f"\n{questions} answers and {values} values compared: {len(unexpected)} differences unexpected, {expected} expected."
    )
    return "\n".join(lines)


def _short(value: Any) -> str:
    text = "-" if value is None else str(brief(value))
    return text if len(text) <= 200 else f"{text[:200]}…"
