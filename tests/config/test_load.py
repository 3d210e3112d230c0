"""Layers of configuration: what wins, and what an operator is told about a mistake."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer import config
from streamer.config import SinkSettings, load, load_with_origins
from streamer.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refused(path: Path | None, environ: dict[str, str] | None = None, flags: dict[str, Any] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {}, flags or {})
    return caught.value


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    """No file, no variable, no flag: the defaults of the types."""
    assert load(write(tmp_path / "s.toml", ""), {}, {}) == config.Settings()


def test_later_layers_win_key_by_key(tmp_path: Path) -> None:
    """File, then conf.d in the order of names, then environment, then flags; other keys of a section stay."""
    path = write(tmp_path / "s.toml", '[sampling]\ninterval = "1s"\nrescan = "10s"\njitter = 0.2\n[http]\nsamples = 5\n')
    write(tmp_path / "conf.d/20.toml", '[sampling]\nrescan = "30s"\n')
    write(tmp_path / "conf.d/10.toml", '[sampling]\nrescan = "20s"\ninterval = "4s"\n')
    write(tmp_path / "conf.d/30.toml.bak", "not read")
    settings = load(
        path, {"STREAMER_SAMPLING__INTERVAL": "5s", "STREAMER_HTTP__SAMPLES": "6"}, {"sampling.interval": "6s", "scope": None}
    )
    assert (settings.sampling.interval, settings.sampling.rescan, settings.sampling.jitter) == ("6s", "30s", 0.2)
    assert settings.http.samples == 6


def test_sinks_of_a_later_layer_replace_earlier_ones(tmp_path: Path) -> None:
    """A list is one value: flags do not add to the sinks of the file."""
    path = write(tmp_path / "s.toml", '[[sinks]]\nurl = "stdout:"\n')
    assert load(path, {}, {}).sinks == [SinkSettings(url="stdout:")]
    assert load(path, {}, {"sinks": ["file:///a.jsonl", "redis://h/1"]}).sinks == [
        SinkSettings(url="file:///a.jsonl"),
        SinkSettings(url="redis://h/1"),
    ]


@pytest.mark.parametrize(
    ("variable", "value", "key", "wanted"),
    [
        ("STREAMER_SCOPE", "all", "scope", "all"),
        ("STREAMER_REQUIRE_SINKS", "True", "require_sinks", True),
        ("STREAMER_SAMPLING__DYNAMIC", "0", "sampling.dynamic", False),
        ("STREAMER_SAMPLING__JITTER", "0", "sampling.jitter", 0.0),
        ("STREAMER_OUTBOX__BATCH_MESSAGES", "10", "outbox.batch_messages", 10),
        ("STREAMER_LABELS__DENY", "a, b.*,", "labels.deny", ["a", "b.*"]),
        ("STREAMER_LABELS__DENY", '["a,b"]', "labels.deny", ["a,b"]),
        ("STREAMER_LABELS__ALLOW", "", "labels.allow", []),
        ("STREAMER_SINKS", "stdout:,kafka://a:1,b:2, redis://h", "sinks", ["stdout:", "kafka://a:1,b:2", "redis://h"]),
        ("STREAMER_SINKS", '[{"url": "stdout:", "types": ["oom"]}]', "sinks", ["stdout:"]),
    ],
)
def test_environment_values_become_the_type_of_their_key(variable: str, value: str, key: str, wanted: object) -> None:
    """Texts of the environment are read as the key's type; lists as JSON or parted by commas."""
    found: Any = load(None, {variable: value, "PATH": "/bin"}, {})
    for name in key.split("."):
        found = getattr(found, name)
    assert ([sink.url for sink in found] if key == "sinks" else found) == wanted


def test_variables_that_kubernetes_sets_for_a_service_called_streamer_are_left_alone() -> None:
    """Service discovery must not stop the agent."""
    environ = {"STREAMER_SERVICE_HOST": "10.0.0.1", "STREAMER_SERVICE_PORT_HTTP": "80", "STREAMER_PORT": "tcp://10.0.0.1:80"}
    assert load(None, {**environ, "STREAMER_PORT_80_TCP_ADDR": "10.0.0.1"}, {}) == config.Settings()


BAD_FILES = [
    # text, line, words of the message
    (
        '[samplin]\ninterval = "1s"\n',
        1,
        ["samplin: there is no such key", 'did you mean "sampling"', "the keys here are host_root,"],
    ),
    (
        'scope = "all"\n\n[sampling]\n# intervall\nintervall = "1s"\n',
        5,
        ["sampling.intervall", 'did you mean "interval"', "max_interval"],
    ),
    ('sampling.intervall = "1s"\n', 1, ["sampling.intervall", 'did you mean "interval"']),
    ("[sampling]\ninterval = 2\n", 2, ["sampling.interval = 2", "must be a duration", 'interval = "1s", the default']),
    ('[sampling]\ninterval = "2"\n', 2, ["sampling.interval", '"2"', "is not a duration", "500ms"]),
    ('[sampling]\ninterval = "0s"\n', 2, ["is not a duration"]),
    ('[sampling]\ninterval = "1ms"\n', 2, ["is shorter than 10ms"]),
    ('[sampling]\ninterval = "20s"\ndynamic = true\n', 0, ["sampling.max_interval = 10s", "shorter than sampling.interval, 20s"]),
    ('[sampling]\njitter = "much"\n', 2, ["sampling.jitter", "must be a number from 0 to 1"]),
    ("[sampling]\njitter = 1.5\n", 2, ["must be a number from 0 to 1"]),
    ("[sampling]\nnetwork = 1\n", 2, ["must be true or false", "network = true"]),
    ("[outbox]\nbatch_messages = 0\n", 2, ["outbox.batch_messages = 0", "a whole number from 1 to 10000"]),
    ("[outbox]\nstats_bytes = 10\n", 2, ["a whole number, at least 1000000"]),
    ('scope = "everything"\n', 1, ["must be one of containers, all"]),
    ('[publishing]\nprefix = "a b"\n', 2, ["publishing.prefix", "must be text like"]),
    ("sampling = 3\n", 1, ["sampling = 3", "is a section, not a value"]),
    ("[labels]\nallow = 'a'\n", 2, ["labels.allow", "must be a list"]),
    ("[labels]\nallow = [\n  'a',\n  1,\n]\n", 2, ["labels.allow[1] = 1", "must be text"]),
    ('[http]\nlisten = ":8080"\n', 2, ["http.listen", "is not HOST:PORT, unix:PATH or off"]),
    ('[http]\nlisten = "127.0.0.1:99999"\n', 2, ["no port number from 0 to 65535"]),
    ('[http]\nlisten = "0.0.0.0:8080"\n', 2, ["other machines can reach this address", "--insecure"]),
    ('[http]\nlisten = "0.0.0.0:8080"\n', 2, ["http.token_file", "http.tls_client_ca_file"]),
    ('[http]\nlisten = "0.0.0.0:8080"\ntls_cert_file = "c"\ntls_key_file = "k"\n', 2, ["nothing controls their access"]),
    ('[http]\ntls_cert_file = "c"\n', 2, ["http.tls_cert_file = ", "needs http.tls_key_file too"]),
    ('[http]\ntls_key_file = "k"\n', 2, ["http.tls_key_file = ", "needs http.tls_cert_file too"]),
    ('[http]\ntls_client_ca_file = "a"\n', 2, ["needs http.tls_cert_file too"]),
    ('[http]\nlisten = "unix:/s"\ntls_cert_file = "c"\ntls_key_file = "k"\n', 3, ["a unix socket speaks no TLS", "unix_mode"]),
    ('[http]\nunix_mode = "rw"\n', 2, ["http.unix_mode", "is not three octal digits", "0660"]),
    ('[http]\nunix_mode = "4755"\n', 2, ["is not three octal digits"]),
    ("[http]\nunix_mode = 660\n", 2, ["must be permissions in octal digits"]),
    ('[http]\nallowed_hosts = ["a.example", "b.example:80"]\n', 2, ["http.allowed_hosts[1]"]),
    ('[http]\nallowed_hosts = ["http://a"]\n', 2, ["http.allowed_hosts[0]"]),
    ('[http]\ncors_origins = ["*"]\n', 2, ["http.cors_origins[0]", "is not an origin", "https://grafana.example:3000"]),
    ('[http]\ncors_origins = ["https://a.example/"]\n', 2, ["is not an origin"]),
    ('[http]\ncors_origins = ["null"]\n', 2, ["is not an origin"]),
    ('[docker]\nhost = "docker.sock"\n', 2, ["docker.host", "is not unix:///path or tcp://host:port"]),
    ('[[sinks]]\nurl = "stdout:"\n\n[[sinks]]\ntypes = ["oom"]\n', 4, ["sinks[1]", "lacks the key url", "kafka://"]),
    ('[[sinks]]\nurl = "stdout:"\n[[sinks]]\nurl = "kafak://h:1"\n', 4, ["sinks[1].url", 'did you mean "kafka"']),
    (
        '[[sinks]]\nurl = "stdout:"\ntypes = ["oom", "stat"]\n',
        3,
        ["sinks[0].types[1]", 'did you mean "stats"', "choose from lifecycle"],
    ),
    ('sinks = [{url = "stdout:"}, {url = "file:relative"}]\n', 1, ["sinks[1].url", "the absolute path of a file"]),
    ('sinks = "stdout:"\n', 1, ["sinks", "must be a list"]),
    ('[[sinks]]\nurl = "redis://:pw@h"\npassword_file = "/x"\n', 3, ["password_file", "the URL has a password too"]),
    ('state_dir = "a\\u0000b"\n', 1, ["NUL"]),
    ("scope = all\n", 1, ["not valid TOML"]),
    ('\n\nscope = "all\n', 3, ["not valid TOML"]),
    ('scope = "all"\nscope = "all"\n', 2, ["not valid TOML"]),
    ("x = " + "[" * 5000, 0, ["nested too deeply"]),
]


@pytest.mark.parametrize(("text", "line", "words"), BAD_FILES)
def test_a_mistake_in_the_file_is_told_with_key_value_line_and_remedy(
    tmp_path: Path, text: str, line: int, words: list[str]
) -> None:
    """Every kind of mistake names what must change and where."""
    path = write(tmp_path / "s.toml", text)
    error = refused(path)
    assert str(error).startswith(f"{path}:{line}: " if line else str(path) if "nested" in words[0] else "")
    for word in words:
        assert word in str(error)
    assert error.remedy or "nested" in str(error)


def test_the_line_is_found_in_the_file_that_holds_the_mistake(tmp_path: Path) -> None:
    """A good main file and a bad one in conf.d: the bad one is named."""
    path = write(tmp_path / "s.toml", '[sampling]\ninterval = "1s"\n')
    bad = write(tmp_path / "conf.d/a.toml", '# interval\n[docker]\ntimeout = "5"\n')
    assert str(refused(path)).startswith(f"{bad}:3: docker.timeout")


def test_lines_are_found_behind_texts_of_several_lines(tmp_path: Path) -> None:
    """What looks like the key within a text does not count."""
    path = write(
        tmp_path / "s.toml",
        'host_name = """\n[sampling]\ninterval = "x"\n"""\nlabels = {deny = [\n"b"]}\n[sampling]\n"interval" = "x"\n',
    )
    assert refused(path).line == 8


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"STREAMER_SAMPLING__INTERVALL": "1s"}, ["STREAMER_SAMPLING__INTERVALL: sampling.intervall", 'did you mean "interval"']),
        ({"STREAMER_SMAPLING__INTERVAL": "1s"}, ["smapling", 'did you mean "sampling"']),
        ({"STREAMER_SAMPLING__INTERVAL": "often"}, ["STREAMER_SAMPLING__INTERVAL", "= often", "is not a duration"]),
        ({"STREAMER_HTTP__SAMPLES": "many"}, ["a whole number from 1 to 3600", "STREAMER_HTTP__SAMPLES=120, the default"]),
        ({"STREAMER_REQUIRE_SINKS": "maybe"}, ["must be true or false", "STREAMER_REQUIRE_SINKS=false"]),
        ({"STREAMER_LABELS__ALLOW": "[1"}, ["is not a JSON list"]),
        ({"STREAMER_SINKS": "nats://h"}, ["STREAMER_SINKS", "sinks[0].url = nats://h", "names no kind of sink"]),
        ({"STREAMER_SAMPLING": "1s"}, ["STREAMER_SAMPLING: sampling", "is a section"]),
        ({"STREAMER_HTTP": "x", "STREAMER_HTTP__LISTEN": "off"}, ["http is given as a value too"]),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(environ: dict[str, str], words: list[str]) -> None:
    """The operator learns which variable to change."""
    for word in words:
        assert word in str(refused(None, environ))


def test_a_mistake_in_a_flag_names_the_flag() -> None:
    """Also one that only shows together with other keys."""
    assert str(refused(None, flags={"sampling.interval": "x"})).startswith("--interval: sampling.interval = x: is not a duration")
    assert str(refused(None, flags={"sinks": ["redis://"]})).startswith("--sink: sinks[0].url = redis://: has no host")
    assert str(refused(None, flags={"http.listen": "0.0.0.0:1"})).startswith("--listen: http.listen = 0.0.0.0:1: other machines")
    assert load(None, {}, {"http.listen": "0.0.0.0:1", "http.insecure": True}).http.insecure


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@",
        "redis://u:hunter2@h:port/0",
        "redis://:hun/ter2@h/0",
        "redis://:hunter2@h/zero",
        "kafka://u:hunter2@a:1,b:x",
        "http://u:hunter2@h",
        "redis://[:hunter2@h",
        "redis://h:0?password=hunter2",
        "kafka://u:hunter2 @h:1",
    ],
)
def test_no_mistake_makes_a_password_visible(tmp_path: Path, url: str) -> None:
    """Impossible URLs are quoted without their passwords, whichever layer they come from."""
    path = write(tmp_path / "s.toml", f'[[sinks]]\nurl = "{url}"\n')
    for error in (refused(path), refused(None, {"STREAMER_SINKS": url}), refused(None, flags={"sinks": [url]})):
        assert "hunter2" not in str(error) and "ter2" not in str(error)
        assert "***" in str(error)


def test_the_value_of_an_unknown_key_is_not_shown(tmp_path: Path) -> None:
    """`password = …` in a sink is a likely mistake."""
    error = refused(write(tmp_path / "s.toml", '[[sinks]]\nurl = "redis://h"\npassword = "hunter2"\n'))
    assert "hunter2" not in str(error) and 'did you mean "password_file"' in str(error) and error.line == 3


def test_a_file_that_cannot_be_had_is_a_configuration_error(tmp_path: Path) -> None:
    """Missing, a directory, not text, endless: the path and what to do."""
    assert "No such file" in str(refused(tmp_path / "none.toml")) and "exists" in refused(tmp_path / "none.toml").remedy
    assert "directory" in str(refused(tmp_path)) and "conf.d" in refused(tmp_path).remedy
    (tmp_path / "latin").write_bytes(b"# ok\nhost_name = '\xe9'\n")
    assert refused(tmp_path / "latin").line == 2 and "UTF-8" in str(refused(tmp_path / "latin"))
    assert "larger than" in str(refused(Path("/dev/zero")))


def test_an_unreadable_file_names_the_user(tmp_path: Path) -> None:
    """The remedy says who must be allowed to read it."""
    path = write(tmp_path / "s.toml", "")
    path.chmod(0)
    tmp_path.chmod(0o755)
    root = os.geteuid() == 0
    if root:
        for parent in path.parents[:3]:
            parent.chmod(parent.stat().st_mode | 0o011)
        os.seteuid(65534)
    try:
        error = refused(path)
    finally:
        if root:
            os.seteuid(0)
    assert "Permission denied" in str(error) and "let user id" in error.remedy


def test_where_each_given_key_comes_from_is_known(tmp_path: Path) -> None:
    """File and line, variable or flag; defaults have no origin."""
    path = write(tmp_path / "s.toml", '[sampling]\ninterval = "1s"\nrescan = "9s"\n')
    _, origins = load_with_origins(path, {"STREAMER_SAMPLING__INTERVAL": "2s"}, {"scope": "all"})
    assert origins == {
        "sampling.interval": "environment STREAMER_SAMPLING__INTERVAL",
        "sampling.rescan": f"{path}:3",
        "scope": "--scope",
    }


def test_a_password_file_is_read_without_its_line_end(tmp_path: Path) -> None:
    """Editors end files with a line end; passwords do not have one."""
    path = write(tmp_path / "pw", "s3cret \n")
    assert config.password(SinkSettings(url="redis://h", password_file=str(path))) == "s3cret "
    assert config.password(SinkSettings(url="redis://h")) is None
    for bad in (write(tmp_path / "empty", "\n"), tmp_path / "none"):
        with pytest.raises(ConfigError, match=r"sinks\.password_file"):
            config.password(SinkSettings(url="redis://h", password_file=str(bad)))


@given(st.binary(max_size=200) | st.sampled_from([text.encode() for text, _, _ in BAD_FILES]))
def test_any_file_is_a_configuration_or_a_configuration_error(content: bytes) -> None:
    """No bytes in a file end in anything else."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "s.toml")
        path.write_bytes(content)
        with contextlib.suppress(ConfigError):
            load(path, {}, {})


@given(
    st.sampled_from([key.key.replace(".", "__").upper() for key in config.describe() if "[]" not in key.key] + ["SINKS"]),
    st.text(max_size=60),
)
def test_any_value_of_a_variable_is_taken_or_refused(name: str, value: str) -> None:
    """Environment values never end in a traceback."""
    told = f"STREAMER_{name}"
    try:
        load(None, {told: value}, {})
    except ConfigError as error:
        told = str(error)
    assert f"STREAMER_{name}" in told


@pytest.mark.parametrize(
    ("text", "wanted"), [("250ms", 0.25), ("1s", 1), ("1.5m", 90), ("24h", 86400), ("2d", 172800), ("0.5s", 0.5)]
)
def test_durations_are_seconds(text: str, wanted: float) -> None:
    """A positive number and a unit."""
    assert config.seconds(text) == wanted


@pytest.mark.parametrize(
    "text",
    ["", "1", "s", "-1s", "0s", "0.0m", "1 s", " 1s", "1e3s", "infs", "nans", "1_0s", "1w", "\u0661s", "1s\n", "9" * 400 + "d"],
)
def test_anything_else_is_not_a_duration(text: str) -> None:
    """Also what Python itself would take for a number."""
    with pytest.raises(ValueError, match="is not a duration"):
        config.seconds(text)


@pytest.mark.parametrize(
    ("text", "wanted", "loopback"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080, ""), True),
        ("[::1]:80", ("::1", 80, ""), True),
        ("localhost:0", ("localhost", 0, ""), True),
        ("unix:/run/s.sock", ("", 0, "/run/s.sock"), True),
        ("0.0.0.0:1", ("0.0.0.0", 1, ""), False),
        ("[::]:1", ("::", 1, ""), False),
        ("host.example:1", ("host.example", 1, ""), False),
    ],
)
def test_listen_addresses(text: str, wanted: tuple[str, int, str], loopback: bool) -> None:
    """Host and port or a path, and whether others can reach it."""
    found = config.listen_address(text)
    assert found is not None and (tuple(found), found.loopback) == (wanted, loopback)
    assert config.listen_address("off") is None


@pytest.mark.parametrize("text", ["", "8080", ":8080", "unix:", "::1:80", "h:", "h:-1", "h:65536", "h:8o", "h:\u0661"])
def test_impossible_listen_addresses_are_refused(text: str) -> None:
    """Before anything is bound."""
    with pytest.raises(ValueError, match=r"is not|has no"):
        config.listen_address(text)


@pytest.mark.parametrize(
    ("http", "exposed"),
    [
        ({"listen": "0.0.0.0:1", "insecure": True}, True),
        ({"listen": "127.0.0.1:1", "insecure": True}, False),
        ({"listen": "unix:/s"}, False),
        ({"listen": "off"}, False),
        ({"listen": "h.example:1", "token_file": "/t"}, False),
        ({"listen": "[::]:1", "tls_cert_file": "/c", "tls_key_file": "/k", "tls_client_ca_file": "/a"}, False),
        (
            {
                "listen": "[::1]:1",
                "allowed_hosts": ["a", "192.0.2.1", "::1", "[::1]", "a_b.c-d"],
                "cors_origins": ["http://[::1]:1"],
            },
            False,
        ),
    ],
)
def test_who_is_reached_by_others_asks_them_who_they_are_or_says_that_it_does_not(http: dict[str, object], exposed: bool) -> None:
    """Each of the ways is enough, and is what it is called."""
    settings = load(None, {}, {f"http.{key}": value for key, value in http.items()})
    assert config.exposed(settings.http) == exposed
