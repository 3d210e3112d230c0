"""Adds up the reports of several pytest runs and says the sum as pytest says its own: `python total.py REPORT…`."""

import sys
from xml.etree import ElementTree

_SAYS = (("failures", "failed"), ("errors", "error"), ("skipped", "skipped"))


def total(reports: list[str]) -> str:
    """`12 passed, 1 skipped in 3.41s`, of JUnit reports."""
    suites = [suite for report in reports for suite in ElementTree.parse(report).iter("testsuite")]
    count = {name: sum(int(suite.attrib[name]) for suite in suites) for name in ("tests", "failures", "errors", "skipped")}
    passed = count["tests"] - count["failures"] - count["errors"] - count["skipped"]
    others = "".join(f", {count[name]} {word}" for name, word in _SAYS if count[name])
    seconds = sum(float(suite.attrib["time"]) for suite in suites)
    return f"{passed} passed{others} in {seconds:.2f}s"


if __name__ == "__main__":
    print(f" {total(sys.argv[1:])} ".center(80, "="))  # noqa: T201  it is a command
