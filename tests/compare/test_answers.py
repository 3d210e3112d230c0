"""Questions, answers, expectations and the report."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.compare import answers, report
from tests.compare.answers import Answer, Since
from tests.compare.expected import EXPECTED, NOT_ASKED
from tests.compare.questions import Question, ambiguous, asked, known_to_both
from tests.compare.tree import Difference, Walk

SINCE = Since(1000.0, frozenset({"/", "/a"}))
JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"}


def compared(question: Question, ours: Answer, theirs: Answer) -> list[tuple[str, str]]:
    return [(found.path, found.kind) for found in answers.compare(Walk(), question, ours, theirs, SINCE)]


def a_json(value: Any) -> Answer:
    return Answer(200, JSON, json.dumps(value).encode())


def test_a_refusal_is_compared_to_the_letter() -> None:
    """Status, text and headers."""
    question = Question("/api/v9/machine", title="v9")
    theirs = Answer(500, TEXT, b'unsupported API version "v9"\n')
    assert compared(question, theirs, theirs) == []
    assert compared(question, Answer(500, TEXT, b'unsupported API version "v9"'), theirs) == [("v9", "text")]
    assert compared(question, Answer(404, TEXT, theirs.body), theirs) == [("v9", "status")]
    assert compared(question, Answer(500, JSON, theirs.body), theirs) == [
        ("v9 content-type", "header"), ("v9 x-content-type-options", "header"),
    ]  # fmt: skip
    assert compared(question, theirs, Answer(0, {}, b"closed"))[0] == ("v9", "status")


def test_failures_in_another_order_are_the_same_failures() -> None:
    """As they come out of a map."""
    question = Question("/api/v2.0/summary", "SummaryByName")
    one, other = (Answer(500, TEXT, b"partial failures: " + parts + b"\n") for parts in (b"[a], [b], [c]", b"[a], [c], [b]"))
    assert compared(question, one, other) == [("SummaryByName", "text")]  # the line's end is with another part
    one, other = (Answer(500, TEXT, b"partial failures: [x], " + parts + b", [z]\n") for parts in (b"[a], [b]", b"[b], [a]"))
    assert compared(question, one, other) == []


def test_an_answer_in_json_is_a_tree_of_its_type() -> None:
    """And what a parser does not see is looked at too."""
    question = Question("/api/v1.3/machine", "Machine")
    assert compared(question, a_json({"num_cores": 2}), a_json({"num_cores": 2})) == []
    assert compared(question, a_json({"num_cores": 3}), a_json({"num_cores": 2})) == [("Machine.num_cores", "value")]
    assert compared(question, Answer(200, JSON, b'{"a":"<"}\n'), Answer(200, JSON, b'{"a":"\\u003c"}')) == [
        ("JSON escapes", "body"), ("JSON end of line", "body"),
    ]  # fmt: skip
    assert compared(question, Answer(200, JSON, b"{"), a_json({})) == [("Machine", "body")]


def test_so_many_samples_as_were_asked_for() -> None:
    """Their number where one was asked for; a container that has none has no key."""
    question = Question("/api/v1.3/containers", "Container", samples=2)
    assert compared(question, a_json({"stats": [1, 2]}), a_json({"stats": [3, 4]})) == []
    assert compared(question, a_json({}), a_json({"stats": [3, 4]})) == [("Container with 2 samples", "length")]
    question = Question("/api/v1.3/docker/a", "ContainerByName", samples=2)
    assert compared(question, a_json({"/a": {"stats": [1]}}), a_json({"/a": {"stats": [1, 2]}})) != []


def test_events_that_only_one_can_have_seen_are_left_out() -> None:
    """Before the later start only the creation of what is still there counts; afterwards everything does."""

    def event(second: int, name: str, kind: str, **data: Any) -> dict[str, Any]:
        return {
            "container_name": name, "timestamp": f"1970-01-01T00:{second // 60:02d}:{second % 60:02d}Z", "event_type": kind, "event_data": data,
        }  # fmt: skip

    question = Question("/api/v1.3/events", "Events")
    old, new = event(3, "/a", "containerCreation"), event(1200, "/b", "containerCreation")
    gone = event(1300, "/b", "containerDeletion", container_deletion={"exit_code": -1})
    early = [event(900, "/b", "oom"), event(3, "/gone", "containerCreation"), event(900, "/a", "oom")]
    short = [event(1250, "/short", "containerCreation"), event(1251, "/short", "containerDeletion")]
    assert compared(question, a_json([old, new, gone]), a_json([*early, old, new, *short, gone])) == []
    assert compared(question, a_json([old, new]), a_json([old, new, gone])) == [("Events[]", "only theirs")]
    assert compared(question, a_json([old, new, gone]), a_json([new, gone])) == [("Events[]", "only ours")]
    wrong = event(1300, "/b", "containerDeletion", container_deletion={"exit_code": 137})
    assert compared(question, a_json([old, new, wrong]), a_json([old, new, gone])) == [
        ("Event.event_data.container_deletion.exit_code", "value")
    ]
    assert compared(question, a_json(None), a_json([])) == [("Events", "type")]


def container(name: str, *aliases: str) -> dict[str, Any]:
    return {"name": name, **({"aliases": list(aliases), "namespace": "docker"} if aliases else {})}


def test_what_is_asked_is_what_both_know() -> None:
    """Every route, names in every form, and prefixes that no container or several have."""
    both = [
        container("/"),
        container("/docker/1f", "web", "1f"),
        container("/docker/2f", "webber", "2f"),
        container("/lab"),
        container("/lab-two"),
    ]
    known = known_to_both(both, [*both, container("/theirs")])
    assert [one.name for one in known] == ["/", "/docker/1f", "/docker/2f", "/lab", "/lab-two"]
    questions = list(asked(known, second=1))
    paths = {question.path for question in questions}
    assert {
        "/api/v1.0/machine",
        "/api/v1.3/docker/web",
        "/api/v1.3/docker/1f",
        "/api/v2.1/stats/lab",
        "/api/v2.0/spec/web?type=docker",
    } <= paths
    assert "/api/v1.0/docker" not in paths and "/api/v1.1/docker" not in paths
    assert not any("theirs" in path for path in paths)
    assert {question.root for question in questions if question.path == "/api/v1.3/subcontainers/lab"} == {"SiblingsByPrefix"}
    assert {question.root for question in questions if question.path == "/api/v1.3/subcontainers/docker/1f"} == {"Containers"}
    assert all(question.root or question.title for question in questions)


def test_a_prefix_that_several_have() -> None:
    """And is not itself a name, which would be found."""
    assert ambiguous(["web", "webber"]) == ""
    assert ambiguous(["weba", "webb", "x"]) == "web"
    assert ambiguous(["a", "b"]) == ""


def test_a_client_that_fails_with_us() -> None:
    """Or ends before it came to a method."""
    theirs = "ok\tv1.3 MachineInfo\tcores=2\nok\tv2.1 Stats\tcontainers=3\n"
    assert list(answers.compare_clients(theirs, theirs)) == []
    (failed,) = answers.compare_clients(theirs.replace("ok\tv2.1 Stats\tc", "error\tv2.1 Stats\tc"), theirs)
    assert (failed.path, failed.kind) == ("client v2.1 Stats", "refused")
    assert [found.path for found in answers.compare_clients("", theirs)] == ["client v1.3 MachineInfo", "client v2.1 Stats"]


@pytest.mark.parametrize("row", EXPECTED, ids=lambda row: row.path)
def test_a_reason_is_given_for_something_that_no_other_row_has(row: object) -> None:
    """Each row has words, and stands once."""
    assert isinstance(row, type(EXPECTED[0]))
    assert row.reason
    assert [other.path for other in EXPECTED].count(row.path) == 1
    assert all(NOT_ASKED.values())


@pytest.mark.parametrize(
    ("path", "kind", "expected"),
    [
        ("Container.stats[].memory.kernel", "value", True),
        ("Container.stats[].memory.usage", "value", False),
        ("Container.stats[].cpu.usage.per_cpu_usage", "only theirs", True),
        ("Container.stats[].cpu.usage.per_cpu_usage", "only ours", False),
        ("Container.stats[].cpu.usage.total", "value", False),
        ('/metrics container_cpu_usage_seconds_total{cpu="cpu01"}', "only theirs", True),
        ("/metrics container_cpu_usage_seconds_total", "only theirs", False),
        ("Containers[]", "only theirs", False),
        ("Container.spec.image", "only theirs", False),
        ("/metrics container_memory_rss HELP", "text", False),
    ],
)
def test_the_table_hides_what_it_says_and_no_more(path: str, kind: str, expected: bool) -> None:
    """The neighbours of what is expected are not."""
    (group,) = report.grouped([("GET /", Difference(path, kind))])
    assert (group.expected is not None) is expected


def test_the_report_groups_by_path_and_gives_one_example() -> None:
    """The unexpected first, each once, with where it was seen; the expected by reason."""
    found = [
        ("GET /1", Difference("Container.stats[].memory.kernel", "value", 0, 5, "/a")),
        ("GET /1", Difference("Container.spec.image", "value", "x", "y", "/a")),
        ("GET /2", Difference("Container.spec.image", "value", "z", "y", "/b")),
    ]
    groups = report.grouped(found)
    assert [(group.path, group.count, len(group.asked)) for group in groups] == [
        ("Container.spec.image", 2, 2), ("Container.stats[].memory.kernel", 1, 1),
    ]  # fmt: skip
    text = report.as_text(groups, questions=2, values=9)
    assert text.splitlines()[:4] == [
        "Container.spec.image  [value, 2 times in 2 answers]", "    ours    x", "    theirs  y", "    at      GET /1 · /a",
    ]  # fmt: skip
    assert "1 differences unexpected, 1 expected" in text
    assert [group["expected"] is None for group in report.as_json(groups)] == [True, False]
