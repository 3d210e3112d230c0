"""What may be asked: JSON bodies and query strings, as clients in Go and with curl send them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.cadvisor.errors import InvalidRequest, RequestFailed
from streamer.cadvisor.requests import (
    EVENT_TYPES,
    EventRequest,
    InfoRequest,
    RequestOptions,
    Window,
    checked,
    event_request,
    info_request,
    request_options,
    window,
)

NS = 1_000_000_000
ZERO = "0001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (b"", Window(60)),
        (b" \n", Window(60)),
        (b"null", Window(60)),
        (b"{}", Window(60)),
        (b'{"num_stats":3}', Window(3)),
        (b'{"num_stats":0,"start":null}', Window(0)),
        (b'{"NUM_STATS":-1}', Window(-1)),
        (b'{"num_stats":2} and more', Window(2)),
        (f'{{"num_stats":2,"start":"{ZERO}","end":"{ZERO}"}}'.encode(), Window(2)),
        (b'{"start":"2023-11-14T22:13:20Z","end":1700000001,"other":[]}', Window(60, 1_700_000_000 * NS, 1_700_000_001 * NS)),
    ],
)
def test_a_body_asks_for_samples(body: bytes, asked: Window) -> None:
    """Nothing asked means the newest 60; Go's client always sends its zero times, which mean none."""
    assert window(info_request(body)) == asked


@pytest.mark.parametrize(
    "body", [b"[]", b"1", b"{bad", b'{"num_stats":"1"}', b'{"num_stats":1.5}', b'{"num_stats":true}', b'{"start":"2020"}', b'{"end":{}}', b"[" * 9999, b"\xff", b'{"num_stats":9223372036854775808}']
)  # fmt: skip
def test_a_body_that_makes_no_sense_is_an_error(body: bytes) -> None:
    """With cAdvisor's words before the reason."""
    with pytest.raises(InvalidRequest, match=r"^unable to decode the json value: ."):
        info_request(body)


def test_a_negative_count_is_an_error_and_not_the_end_of_the_connection() -> None:
    """-1 means all; what is below would be a panic there."""
    with pytest.raises(InvalidRequest, match="-2"):
        info_request(b'{"num_stats":-2}')
    with pytest.raises(InvalidRequest, match="-2"):
        window(InfoRequest(-2))
    with pytest.raises(InvalidRequest, match="-2"):
        checked(RequestOptions(count=-2))
    with pytest.raises(InvalidRequest, match="-2"):
        event_request("/", {"max_events": "-2"})


def test_options_of_v2() -> None:
    """Defaults, then everything said; only the exact word `true` is recursive."""
    assert request_options({}) == RequestOptions("name", 64, False, None)
    assert request_options({"type": "docker", "count": "-1", "recursive": "true", "max_age": "1m30s"}) == RequestOptions(
        "docker", -1, True, 90.0
    )
    assert request_options({"recursive": "1", "max_age": "0s", "x": "y"}) == RequestOptions(max_age=0.0)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"type": "x"}, """unknown 'type' "x\""""),
        ({"count": "x"}, "failed to parse 'count' option: x"),
        ({"count": "-2"}, "invalid 'count' option: only -1 and larger values allowed, not -2"),
        ({"max_age": "x"}, """failed to parse 'max_age' option: time: invalid duration "x\""""),
    ],
)
def test_options_that_make_no_sense_fail_by_cadvisors_words(query: dict[str, str], text: str) -> None:
    """To the letter: clients show them."""
    with pytest.raises(RequestFailed, match=f"^{re.escape(text)}$"):
        request_options(query)


def test_events_asked_for() -> None:
    """Flags are Go's truth values; no flag means no event; both forms of times."""
    assert event_request("/a", {}) == (EventRequest("/a"), False)
    asked, stream = event_request(
        "/",
        {
            "stream": "1",
            "subcontainers": "T",
            "oom_events": "true",
            "deletion_events": "t",
            "creation_events": "no",
            "max_events": "3",
        },
    )
    assert stream
    assert asked == EventRequest("/", True, frozenset({"oom", "containerDeletion"}), 3)
    asked, _ = event_request("/", {"all_events": "true", "start_time": "1700000000", "end_time": "2023-11-14T22:13:21Z"})
    assert (asked.event_types, asked.start_ns, asked.end_ns) == (frozenset(EVENT_TYPES), 1_700_000_000 * NS, 1_700_000_001 * NS)
    assert event_request("/", {"max_events": "many", "start_time": "yesterday", "stream": "x"}) == (EventRequest("/"), False)


@given(st.binary(max_size=60))
def test_any_body_is_a_request_or_an_error(body: bytes) -> None:
    """Nothing else comes out, whatever goes in."""
    try:
        assert isinstance(window(info_request(body)), Window)
    except RequestFailed:
        pass


@given(
    st.dictionaries(
        st.sampled_from(["type", "count", "recursive", "max_age", "max_events", "start_time", "stream"]), st.text(max_size=30)
    )
)
def test_any_query_is_a_request_or_an_error(query: dict[str, str]) -> None:
    """The same for query strings."""
    for parse in (request_options, lambda given: event_request("/", given)):
        try:
            parse(query)
        except RequestFailed:
            pass
