"""The judge of `/metrics`."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.compare.exposition import compare, families, pattern, started

TEXT = r"""# HELP container_cpu_usage_seconds_total Cumulative cpu time consumed in seconds.
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container_label_a="",cpu="total",id="/a",image="",name=""} 2.5 1700000000000
container_cpu_usage_seconds_total{container_label_a="b,c=\"d\"} \\n",cpu="total",id="/b",image="i",name="web"} 3e+03 1700000000000
# HELP container_memory_rss Size of RSS in bytes.
# TYPE container_memory_rss gauge
container_memory_rss{id="/a"} 1.048576e+08 1700000000000
# HELP container_spec_memory_limit_bytes Memory limit for the container.
# TYPE container_spec_memory_limit_bytes gauge
container_spec_memory_limit_bytes{id="/a"} 0
# HELP go_gc_duration_seconds A summary.
# TYPE go_gc_duration_seconds summary
go_gc_duration_seconds{quantile="0"} 1e-05
go_gc_duration_seconds_sum 0.5
go_gc_duration_seconds_count 3
# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.79566373e+09
"""


def found(ours: str, before: str = TEXT, after: str = TEXT) -> list[tuple[str, str]]:
    return [(one.path, one.kind) for one in compare(ours, before, after)]


def test_it_reads_what_a_parser_that_is_not_ours_reads() -> None:
    """Names, labels with everything in them, values, timestamps; labels that say nothing left out."""
    theirs = {
        (sample.name, frozenset((name, value) for name, value in sample.labels.items() if value), sample.value)
        for family in text_string_to_metric_families(TEXT)
        for sample in family.samples
    }
    ours = {
        (dict(labels).get("__name__", name), frozenset(label for label in labels if label[0] != "__name__"), value)
        for name, family in families(TEXT).items()
        for labels, (value, _) in family.series.items()
    }
    assert ours == theirs
    assert families(TEXT)["container_memory_rss"].series[frozenset({("id", "/a")})] == (104857600.0, 1700000000000)
    assert started(TEXT) == 1795663730


@pytest.mark.parametrize(
    "line", ["one", "one{a=1} 2", 'one{a="1" 2', "one two three", 'container_memory_rss{id="/a"} 1 1700000000000']
)
def test_a_line_that_is_none_is_refused(line: str) -> None:
    """And a series that is there twice."""
    with pytest.raises(ValueError, match=r"not|twice|float"):
        families(TEXT + line + "\n")


def test_the_same_does_not_differ() -> None:
    """A moment later, without the empty labels, with a counter and a gauge that moved."""
    later = TEXT.replace(" 2.5 1700000000000", " 2.7 1700000002000").replace("1.048576e+08", "1.05e+08")
    ours = TEXT.replace(" 2.5 1700000000000", " 2.6 1700000001000").replace('container_label_a="",', "")
    assert found(ours, TEXT, later) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("Size of RSS", "size of RSS", ("/metrics container_memory_rss HELP", "text")),
        ("container_memory_rss gauge", "container_memory_rss counter", ("/metrics container_memory_rss TYPE", "text")),
        ("container_memory_rss", "container_memory_rss_bytes", ("/metrics container_memory_rss", "only theirs")),
        ("container_memory_rss", "container_memory_rss_bytes", ("/metrics container_memory_rss_bytes", "only ours")),
        ("1.048576e+08", "2.048576e+08", ("/metrics container_memory_rss", "value")),
        ("1.048576e+08", "NaN", ("/metrics container_memory_rss", "value")),
        (" 2.5 1700000000000", " 9.5 1700000000000", ('/metrics container_cpu_usage_seconds_total{cpu="total"}', "value")),
        (" 2.5 1700000000000", " 2.5 1700000009000", ('/metrics container_cpu_usage_seconds_total{cpu="total"}', "timestamp")),
        (" 2.5 1700000000000", " 2.5", ('/metrics container_cpu_usage_seconds_total{cpu="total"}', "timestamp")),
        ('_bytes{id="/a"} 0', '_bytes{id="/a"} 0 1700000000000', ("/metrics container_spec_memory_limit_bytes", "timestamp")),
        ('_bytes{id="/a"} 0', '_bytes{id="/a"} 1', ("/metrics container_spec_memory_limit_bytes", "value")),
        (',name="web"', "", ("/metrics container_cpu_usage_seconds_total{name}", "label")),
        ('container_memory_rss{id="/a"}', 'container_memory_rss{id="/a",x="y"}', ("/metrics container_memory_rss{x}", "label")),
        ('cpu="total",id="/a"', 'cpu="cpu00",id="/a"', ('/metrics container_cpu_usage_seconds_total{cpu="cpu00"}', "only ours")),
        ('cpu="total",id="/a"', 'cpu="cpu00",id="/a"', ('/metrics container_cpu_usage_seconds_total{cpu="total"}', "only theirs")),
    ],
)  # fmt: skip
def test_each_difference_is_found_where_it_is(old: str, new: str, expected: tuple[str, str]) -> None:
    """One change, one place."""
    assert old in TEXT
    assert expected in found(TEXT.replace(old, new))


def test_a_series_that_came_or_went_between_the_scrapes_is_nobodys_fault() -> None:
    """Theirs must be there both times to be missed, and gone both times for ours to be too many."""
    more = TEXT + 'container_memory_rss{id="/c"} 1 1700000000000\n'
    assert found(TEXT, TEXT, more) == []
    assert found(more, more, TEXT) == []
    assert found(TEXT, more, more) == [("/metrics container_memory_rss", "only theirs")]
    assert found(more, TEXT, TEXT) == [("/metrics container_memory_rss", "only ours")]


def test_what_is_about_the_machine_has_the_time_of_looking_at_it() -> None:
    """Whether it has one at all is compared."""
    text = TEXT + "# TYPE machine_cpu_cores gauge\nmachine_cpu_cores 2 1700000000000\n"
    assert found(text.replace("cores 2 17", "cores 2 16"), text, text) == []
    assert found(text.replace("cores 2 1700000000000", "cores 2"), text, text) == [("/metrics machine_cpu_cores", "timestamp")]


def test_a_pattern_says_what_is_measured_and_not_of_whom() -> None:
    """The container's own labels are left out, all others are sorted."""
    labels = frozenset(
        {("id", "/a"), ("name", "x"), ("container_label_b", "c"), ("scope", "hierarchy"), ("failure_type", "pgfault")}
    )
    assert pattern("m", labels) == '/metrics m{failure_type="pgfault",scope="hierarchy"}'
    assert pattern("m", frozenset({("id", "/a")})) == "/metrics m"


def test_a_device_that_only_we_number_is_the_same_series() -> None:
    """Its value is compared, and that it is named differently is said."""
    theirs = TEXT + '# TYPE container_fs_reads_total counter\ncontainer_fs_reads_total{id="/a"} 8 1700000000000\n'
    ours = theirs.replace('reads_total{id="/a"}', 'reads_total{device="7:0",id="/a"}')
    assert found(ours, theirs, theirs) == [("/metrics container_fs_reads_total{device}", "label")]
    wrong = ours.replace(" 8 17", " 9 17")
    assert found(wrong, theirs, theirs) == [
        ("/metrics container_fs_reads_total{device}", "label"), ("/metrics container_fs_reads_total", "value"),
    ]  # fmt: skip
    named = ours.replace("7:0", "/dev/vdb")
    assert [(one.path, one.ours) for one in compare(named, theirs, theirs)] == [("/metrics container_fs_reads_total{device}", True)]


def test_of_a_family_that_is_missing_each_container_is_told() -> None:
    """So that a row can say for which of them that is meant; a label that only those have is no difference of its own."""
    more = '# TYPE container_fs_io_current gauge\ncontainer_fs_io_current{device="/dev/shm",id="/a"} 0\ncontainer_fs_io_current{device="/dev/vda",id="/b",name="web"} 0\n'
    assert found(TEXT, TEXT + more, TEXT + more) == [
        ('/metrics container_fs_io_current{device="/dev/shm"}', "only theirs"),
        ('/metrics container_fs_io_current{device="/dev/vda"}', "only theirs"),
    ]
    assert [one.whose for one in compare(TEXT, TEXT + more, TEXT + more)] == ["/a", "/b"]
