"""The text formats of Prometheus and OpenMetrics.

https://prometheus.io/docs/instrumenting/exposition_formats/ (0.0.4) and
https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md (1.0).
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Format(NamedTuple):
    """One of the two formats.

    type    media type of the body, with its parameters
    end     its last line
    strict  OpenMetrics: counters are named without `_total` in their head, times are seconds
    """

    type: str
    end: str
    strict: bool

    def head(self, name: str, kind: str, text: str) -> str:
        """The lines before a family's samples."""
        if self.strict:
            text = text.replace('"', r"\"")
            if kind == "counter":  # a counter must be called so; rather no type than another name for one that is not
                name, kind = (name.removesuffix("_total"), kind) if name.endswith("_total") else (name, "unknown")
        return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"

    def time(self, time_ms: int) -> str:
        """The end of a line, with the time of its sample."""
        return f" {time_ms / 1000:.3f}\n" if self.strict else f" {time_ms}\n"


TEXT: Final = Format("text/plain; version=0.0.4; charset=utf-8", "", strict=False)
OPENMETRICS: Final = Format("application/openmetrics-text; version=1.0.0; charset=utf-8", "# EOF\n", strict=True)


def number(value: float) -> str:
    """A sample value: shortest exact decimal, `NaN`, `+Inf` or `-Inf`."""
    if value != value:  # noqa: PLR0124  NaN is the one value unequal to itself
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


def escape_help(text: str) -> str:
    """Text as it may stand in a HELP line."""
    return text.replace("\\", r"\\").replace("\n", r"\n")


def escape(text: str) -> str:
    """Text as it may stand between the quotes of a label's value. What is not UTF-8 is told by its bytes: `\\udc80`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
