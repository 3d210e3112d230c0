"""The limits of the process."""

from __future__ import annotations

import resource

import pytest

from streamer.wiring import raise_descriptor_limit

INFINITE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("before", "may", "after", "told"),
    [
        ((1024, 4096), False, (4096, 4096), 4096),
        ((1024, 4096), True, (65_536, 65_536), 65_536),
        ((4096, 4096), False, (4096, 4096), 4096),
        ((4096, 4096), True, (65_536, 65_536), 65_536),
        ((1024, 524_288), False, (524_288, 524_288), 524_288),
        ((1024, 2_000_000), True, (2_000_000, 2_000_000), 1_000_000),
        ((1024, INFINITE), True, (1024, INFINITE), 1024),
    ],
)
def test_descriptors_are_raised_as_far_as_we_may(
    before: tuple[int, int], may: bool, after: tuple[int, int], told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`may`: the hard limit, too (getrlimit(2): CAP_SYS_RESOURCE)."""
    now = before

    def put(_: int, wanted: tuple[int, int]) -> None:
        nonlocal now
        if wanted[1] > now[1] and not may:
            raise ValueError("not allowed to raise maximum limit")
        now = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _: now)
    monkeypatch.setattr(resource, "setrlimit", put)
    assert raise_descriptor_limit() == told
    assert now == after
