"""Questions, answers, expectations and the report."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.compare import answers, report
from tests.compare.answers import Answer, Since
from tests.compare.expected import EXPECTED, NOT_ASKED, reason_of
from tests.compare.questions import Question, ambiguous, asked, known_to_both
from tests.compare.setting import Setting
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


@pytest.mark.parametrize("row", EXPECTED, ids=lambda row: f"{row.path} {row.of}")
def test_a_reason_is_given_for_something_that_no_other_row_has(row: object) -> None:
    """Each row has words, and stands once."""
    assert isinstance(row, type(EXPECTED[0]))
    assert row.reason
    assert [(other.path, other.kinds, other.of) for other in EXPECTED].count((row.path, row.kinds, row.of)) == 1
    assert all(NOT_ASKED.values())


SETTING = Setting(
    {
        "/": frozenset({"root", "parent"}), "/docker": frozenset({"raw", "early", "parent"}), "/new": frozenset({"raw"}),
        "/docker/own": frozenset({"docker"}), "/docker/host": frozenset({"docker", "hosted"}), "/docker/none": frozenset({"docker", "alone"}),
    },
    frozenset({"vda"}),
    {"/docker/own": 1_767_323_000.0},
    1_767_322_000.0,
)  # fmt: skip
OWN, HOST, NONE = "/docker/own", "/docker/host", "/docker/none"
UNKNOWN, MADE, STARTED = "0001-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-02T03:03:20.5Z"
FOUND, LATER = "2026-01-02T02:46:41Z", "2026-01-02T02:46:51Z"
NO_LIMIT = 9223372036854771712
EVENT = {"container_name": OWN}


@pytest.mark.parametrize(
    ("hidden", "shown"),
    [
        # path, kind, ours, theirs, whose: what is expected; then, as (of another value) or whole, its neighbours that are not
        (("Container.stats[].memory.kernel", "value", 0, 5, "/new"), [("value", 1, 5, "/new"), ("only ours", 0, None, "/new")]),
        (("Container.stats[].cpu.usage.per_cpu_usage", "only theirs", None, [1], "/new"), [("only ours", [1], None, "/new")]),
        (("Container.spec.has_network", "value", False, True, HOST), [("value", False, True, OWN), ("value", True, False, HOST)]),
        (("Container.spec.has_network", "value", False, True, NONE), [("value", False, True, "/"), ("value", True, False, NONE)]),
        (("Container.stats[].network", "only theirs", None, {}, HOST), [("only theirs", None, {}, OWN), ("only ours", {}, None, HOST)]),
        (("Container.stats[].network", "only theirs", None, {}, NONE), [("only theirs", None, {}, "/"), ("only ours", {}, None, "/new")]),
        (
            ("Container.stats[].network.interfaces[]", "only theirs", None, {"name": "ifb0"}, "/"),
            [("only theirs", None, {"name": "eth0"}, "/"), ("only ours", {"name": "ifb0"}, None, "/")],
        ),
        (("Container.stats[].network.name", "value", "eth0", "ifb0", "/"), [("value", "ifb0", "eth0", "/"), ("value", "a", "b", "/")]),
        (
            ('/metrics container_network_receive_bytes_total{interface="eth0"}', "only theirs", None, 1.0, HOST),
            [("only theirs", None, 1.0, OWN), ("only theirs", None, 1.0, "/"), ("only ours", 1.0, None, HOST), ("value", 1.0, 2.0, HOST)],
        ),
        (
            ("Container.stats[].filesystem[]", "only theirs", None, {"device": "/dev/shm"}, "/"),
            [("only theirs", None, {"device": "/dev/vda1"}, "/"), ("only theirs", None, {"device": "/dev/shm"}, OWN)],
        ),
        (
            ('/metrics container_fs_usage_bytes{device="/dev/shm"}', "only theirs", None, 1.0, "/"),
            [("only theirs", None, 1.0, OWN), ("only ours", 1.0, None, "/"), ("value", 1.0, 2.0, "/")],
        ),
        (
            ('/metrics container_fs_reads_merged_total{device="/dev/vda"}', "only theirs", None, 1.0, OWN),
            [("only theirs", None, 1.0, "/"), ("value", 1.0, 2.0, OWN)],
        ),
        (("Container.stats[].filesystem[].io_time", "value", 0, 9, OWN), [("value", 0, 9, "/"), ("value", 1, 9, OWN)]),
        (("Machine.filesystems[]", "only theirs", None, {"device": "tmpfs"}, ""), [("only theirs", None, {"device": "/dev/vda"}, "")]),
        (("Machine.disk_map.*", "only theirs", None, {"name": "zram0"}, ""), [("only theirs", None, {"name": "vda"}, "")]),
        (("Container.spec.memory.limit", "value", 1 << 34, NO_LIMIT, "/new"), [("value", 1 << 34, 1 << 26, "/new")]),
        (("Container.spec.memory.reservation", "only theirs", None, NO_LIMIT, OWN), [("only theirs", None, 1 << 25, OWN)]),
        (
            ("Container.spec.creation_time", "value", UNKNOWN, MADE, "/docker"),
            [("value", UNKNOWN, MADE, "/new"), ("value", UNKNOWN, MADE, OWN), ("value", FOUND, MADE, "/docker"), ("value", UNKNOWN, MADE, "/")],
        ),
        (("Container.spec.creation_time", "value", FOUND, "2026-01-02T02:46:45Z", "/"), [("value", FOUND, "2026-01-02T02:48:45Z", "/")]),
        (("Event.timestamp", "value", FOUND, MADE, "/docker"), [("value", LATER, MADE, "/docker"), ("value", FOUND, MADE, OWN)]),
        (("Event.timestamp", "value", STARTED, MADE, OWN), [("value", LATER, MADE, OWN), ("value", STARTED, MADE, HOST)]),
        (
            ("/metrics container_creation_time_seconds", "only theirs", None, 1.0, "/docker"),
            [("only theirs", None, 1.0, OWN), ("only theirs", None, 1.0, "/new"), ("value", 1.0, 9.0, "/docker")],
        ),
        (
            ("Container.stats[].memory.container_data.pgfault", "value", 9, "5 (fits: 4 to 6)", "/"),
            [("value", 3, "5 (fits: 4 to 6)", "/"), ("value", 9, "5 (fits: 4 to 6)", OWN)],
        ),
        (("/metrics container_fs_reads_total{device}", "label", "7:0", None, "/"), [("label", "/dev/vda", None, "/"), ("label", None, True, "/")]),
        (("refusal /api/v2.0/stats/…?type=docker", "status", 404, 500, ""), [("status", 400, 500, ""), ("status", 200, 500, ""), ("text", "a", "b", "")]),
        (("refusal /api/v2.1/spec/…?count=x", "status", 400, 500, ""), [("status", 404, 500, ""), ("status", 403, 500, "")]),
        (("refusal of the body {", "status", 400, 500, ""), [("status", 200, 500, ""), ("text", "a", "b", "")]),
        (("Container", "status", 405, 200, ""), [("status", 404, 200, ""), ("status", 404, 500, "")]),
        (("EventsNewest[]", "only ours", EVENT, None, ""), [("only theirs", None, EVENT, "")]),
    ],
    ids=lambda value: f"{value[0]} {value[-1]}" if isinstance(value, tuple) else "",
)  # fmt: skip
def test_the_table_hides_what_it_says_and_no_more(hidden: tuple[Any, ...], shown: list[tuple[Any, ...]]) -> None:
    """The neighbours of what is expected are not."""
    path, kind, ours, theirs, whose = hidden
    assert reason_of(Difference(path, kind, ours, theirs, whose=whose), SETTING) is not None
    for kind, ours, theirs, whose in shown:
        assert reason_of(Difference(path, kind, ours, theirs, whose=whose), SETTING) is None, (kind, ours, theirs, whose)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("Container.stats[].cpu.usage.total", "value"), ("/metrics container_cpu_usage_seconds_total", "only theirs"),
        ("Containers[]", "only theirs"), ("Container.spec.image", "only theirs"), ("/metrics container_memory_rss HELP", "text"),
        ("Events[]", "only ours"), ("Events[]", "only theirs"), ("Container.stats[].network.rx_bytes", "value"),
        ("Container.stats[].network.interfaces[].rx_bytes", "value"), ("Container.stats[].filesystem", "only theirs"),
        ("/metrics container_network_receive_bytes_total", "only theirs"), ("/metrics container_fs_usage_bytes", "only theirs"),
        ('/metrics container_fs_reads_total{device="7:0"}', "only ours"), ("JSON end of line", "body"),
    ],
)  # fmt: skip
def test_what_no_row_expects_of_anybody(path: str, kind: str) -> None:
    """Of no container."""
    for whose in SETTING.sorts:
        assert reason_of(Difference(path, kind, 1, 2, whose=whose), SETTING) is None


def test_the_report_groups_by_path_and_gives_one_example() -> None:
    """The unexpected first, each once, with where it was seen; the expected by reason."""
    found = [
        ("GET /1", Difference("Container.stats[].memory.kernel", "value", 0, 5, "/a")),
        ("GET /1", Difference("Container.spec.image", "value", "x", "y", "/a")),
        ("GET /2", Difference("Container.spec.image", "value", "z", "y", "/b")),
    ]
    groups = report.grouped(found, Setting())
    assert [(group.path, group.count, len(group.asked)) for group in groups] == [
        ("Container.spec.image", 2, 2), ("Container.stats[].memory.kernel", 1, 1),
    ]  # fmt: skip
    text = report.as_text(groups, questions=2, values=9)
    assert text.splitlines()[:4] == [
        "Container.spec.image  [value, 2 times in 2 answers]", "    ours    x", "    theirs  y", "    at      GET /1 · /a",
    ]  # fmt: skip
    assert "1 differences unexpected, 1 expected" in text
    assert [group["expected"] is None for group in report.as_json(groups)] == [True, False]
