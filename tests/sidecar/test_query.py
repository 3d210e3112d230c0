"""Query strings: what is read, and how what is wrong is said."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.sidecar.query import Param, Refused, flag, parse, whole, word

PARAMS = (
    Param("limit", whole(1, 50), 7, "most of them, 1 to 50"),
    Param("all", flag, False, "true: the others, too"),
    Param("name", word, None, "only those of this name"),
)


def test_what_is_not_given_has_its_default() -> None:
    """Every parameter is there, also one given as a bare name."""
    assert parse(b"", PARAMS, strict=True) == {"limit": 7, "all": False, "name": None}
    assert parse(b"limit=50&all&name=a%20b", PARAMS, strict=True) == {"limit": 50, "all": True, "name": "a b"}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (b"limit=0", "limit='0' is not a whole number from 1 to 50"),
        (b"limit=%C2%B2", "limit='²' is not a whole number"),
        (b"limit=1_0", "limit='1_0' is not a whole number"),
        (b"limit=" + b"9" * 5000, "is not a whole number"),
        (b"all=maybe", "all='maybe' is not true or false"),
        (b"name=", "name='' is empty"),
        (b"limit=1&limit=2", "limit is given twice"),
        (b"limits=1", "unknown query parameter 'limits'"),
        (b"&".join([b"a=1"] * 40), "too many query parameters"),
    ],
)
def test_what_is_wrong_is_named(query: bytes, said: str) -> None:
    """400 with the parameter, its value and what was expected; a client's text is cut to a readable length."""
    with pytest.raises(Refused) as refused:
        parse(query, PARAMS, strict=True)
    assert refused.value.status == 400
    assert said in refused.value.error
    assert refused.value.remedy
    assert len(refused.value.error) < 250


def test_a_near_miss_is_suggested_and_probes_may_add_their_own() -> None:
    """An unknown parameter is refused where a filter may be meant, and passed over where probes ask."""
    with pytest.raises(Refused, match="limt") as refused:
        parse(b"limt=1", PARAMS, strict=True)
    assert "did you mean limit?" in refused.value.remedy
    assert parse(b"verbose&limit=2", PARAMS, strict=False)["limit"] == 2


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(query: bytes) -> None:
    """No query string raises anything else."""
    with contextlib.suppress(Refused):
        assert set(parse(query, PARAMS, strict=True)) == {"limit", "all", "name"}
