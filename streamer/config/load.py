"""Layers -> `Settings`: defaults, the TOML file, `conf.d/*.toml` beside it, the environment, flags; the later wins per key.

Each layer is checked by itself, so that an error names the very file and line, variable or flag that must change.
"""

from __future__ import annotations

import errno
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Struct

from streamer.config.forms import bare, form, mask, suggest, words
from streamer.config.settings import Settings, SinkSettings, seconds
from streamer.config.together import At, conflicts
from streamer.errors import ConfigError

DEFAULT_FILE: Final = Path("/etc/streamer/streamer.toml")

FLAGS: Final[dict[str, str]] = {
    "sinks": "--sink",
    "http.listen": "--listen",
    "http.insecure": "--insecure",
    "sampling.interval": "--interval",
    "state_dir": "--state-dir",
    "scope": "--scope",
    "require_sinks": "--require-sinks",
    "host_root": "--host-root",
    "log_level": "--log-level",
    "log_format": "--log-format",
}
"""Configuration key -> its flag."""

PREFIX: Final = "STREAMER_"
_NOT_OURS: Final = re.compile(r"STREAMER_(?:SERVICE_HOST|SERVICE_PORT(?:_.*)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_.*)?)?)")
"""What Kubernetes puts into every pod's environment when a Service is called `streamer`."""

_MOST_BYTES: Final = 1_000_000  # a mistaken --config /dev/zero must not fill the memory
_SHOWN: Final = 80  # characters of a bad value in a message


class Layer(NamedTuple):
    """One place of configuration. `text`: of a file, to find lines. Values outside of files are texts."""

    kind: Literal["file", "environment", "flags"]
    values: dict[str, Any]
    name: str = ""
    text: str = ""

    def place(self, at: At) -> tuple[str, int]:
        """(file, line), (`environment STREAMER_SCOPE`, 0) or (`--scope`, 0)."""
        names = [name for name in at if isinstance(name, str)]
        if self.kind == "file":
            return self.name, _line(self.text, at)
        if self.kind == "environment":
            return f"environment {variable(names[:1] if names[:1] == ['sinks'] else names)}", 0
        return next((flag for key, flag in FLAGS.items() if names[: key.count(".") + 1] == key.split(".")), "flag"), 0

    def spell(self, at: At, value: Any) -> str:
        """How this layer would say it: `interval = "1s"`, `STREAMER_SAMPLING__INTERVAL=1s`, `--interval 1s`."""
        if self.kind == "file":
            return f"{at[-1]} = {json.dumps(value)}"
        text = value if isinstance(value, str) else json.dumps(value)
        place = self.place(at)[0].removeprefix("environment ")
        return f"{place}={text}" if self.kind == "environment" else f"{place} {text}"


def load(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """The effective configuration.

    path     the TOML file; None: `/etc/streamer/streamer.toml` if there is one
    environ  the process's environment; only `STREAMER_…` is looked at
    flags    configuration key (`sampling.interval`) -> text, or list of URLs for `sinks`; None: not given

    Raises:
        ConfigError: names the key, the value, file and line (or variable, or flag) and the remedy.
    """
    return _load([*_files(path), _environment(environ), _flags(flags)])


def load_with_origins(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any]) -> tuple[Settings, dict[str, str]]:
    """As `load`, and where each key that was given comes from: `sampling.interval` -> `/etc/streamer/streamer.toml:3`."""
    layers = [*_files(path), _environment(environ), _flags(flags)]
    settings = _load(layers)
    origins: dict[str, str] = {}
    for layer in layers:
        for at in _leaves(layer.values):
            file, line = layer.place(at)
            origins[_dotted(at)] = f"{file}:{line}" if line else file
    return settings, origins


def _load(layers: list[Layer]) -> Settings:
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge(merged, _section(layer.values, Settings, (), layer))
    settings = msgspec.convert(merged, Settings)
    _check_together(settings, layers)
    return settings


def password(sink: SinkSettings) -> str | None:
    """What `password_file` holds, without the line end; None when there is no such file configured.

    Raises:
        ConfigError: the file cannot be read or is empty.
    """
    if not sink.password_file:
        return None
    secret = _read(Path(sink.password_file), key="sinks.password_file").rstrip("\r\n")
    if not secret:
        raise ConfigError(
            "the file is empty", key="sinks.password_file", value=sink.password_file, remedy="write the password into it"
        )
    return secret


def variable(names: list[str]) -> str:
    """`["sampling", "interval"]` -> `STREAMER_SAMPLING__INTERVAL`."""
    return PREFIX + "__".join(names).upper()


# Layers


def _files(path: Path | None) -> list[Layer]:
    main = path or DEFAULT_FILE
    found = [main] if path is not None or os.path.lexists(main) else []
    try:
        found += sorted(entry for entry in (main.parent / "conf.d").iterdir() if entry.suffix == ".toml")
    except (FileNotFoundError, NotADirectoryError):
        pass  # conf.d is optional
    except OSError as error:
        raise ConfigError(f"cannot be listed: {error.strerror}", file=str(main.parent / "conf.d"), remedy=_remedy(error)) from error
    return [_file(file) for file in found]


def _file(path: Path) -> Layer:
    text = _read(path)
    try:
        return Layer("file", tomllib.loads(text), str(path), text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line ([0-9]+)", str(error))
        number = int(line[1]) if line else text.count("\n") + 1
        problem = re.sub(r" \(at .*\)$", "", str(error))
        raise ConfigError(
            f"not valid TOML: {problem}", file=str(path), line=number, remedy='write key = value; texts in "quotes"'
        ) from error
    except RecursionError as error:
        raise ConfigError("not valid TOML: nested too deeply", file=str(path)) from error


def _read(path: Path, key: str = "") -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ConfigError(f"is larger than {_MOST_BYTES} bytes", key=key, file=str(path), remedy="give the right file")
        return content.decode()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", key=key, file=str(path), remedy=_remedy(error)) from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError("is not text in UTF-8", key=key, file=str(path), line=line, remedy="save it as UTF-8") from error


def _remedy(error: OSError) -> str:
    known = {
        errno.ENOENT: "give the path of a file that exists",
        errno.EISDIR: "give a file, not a directory; further files go into conf.d beside it",
        errno.EACCES: f"let user id {os.geteuid()} read it",
    }
    return known.get(error.errno or 0, "give a file that can be read")


def _environment(environ: Mapping[str, str]) -> Layer:
    values: dict[str, Any] = {}
    for name in sorted(environ):
        if name.startswith(PREFIX) and not _NOT_OURS.fullmatch(name):
            _put(values, name.removeprefix(PREFIX).lower().split("__"), environ[name], name)
    return Layer("environment", values)


def _put(values: dict[str, Any], names: list[str], value: Any, place: str) -> None:
    for name in names[:-1]:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):  # STREAMER_HTTP=x beside STREAMER_HTTP__LISTEN=y
            raise ConfigError(f"{name} is given as a value too", file=f"environment {place}", remedy="unset one of them")
    values[names[-1]] = value


def _flags(flags: Mapping[str, Any]) -> Layer:
    values: dict[str, Any] = {}
    for key, value in flags.items():
        if value is not None:
            _put(values, key.split("."), value, key)
    return Layer("flags", values)


def _merge(into: dict[str, Any], later: dict[str, Any]) -> None:
    for name, value in later.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value


def _leaves(values: dict[str, Any], at: At = ()) -> list[At]:
    found: list[At] = []
    for name, value in values.items():
        found += _leaves(value, (*at, name)) if isinstance(value, dict) else [(*at, name)]
    return found


# One layer's values


def _section(value: Any, wanted: type[Struct], at: At, layer: Layer) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _problem(layer, at, value, "is a section, not a value", f"set one of its keys: {', '.join(wanted.__struct_fields__)}")
    fields = {field.name: field for field in msgspec.structs.fields(wanted)}
    for name in value:
        if name not in fields:
            raise _unknown(layer, (*at, name), fields)
    for field in fields.values():
        if field.required and field.name not in value:
            known = form(field.type)
            raise _problem(layer, at, None, f"lacks the key {field.name}", known.remedy if known else "")
    return {name: _value(item, fields[name].type, (*at, name), layer, fields[name]) for name, item in value.items()}


def _value(value: Any, wanted: Any, at: At, layer: Layer, field: msgspec.structs.FieldInfo) -> Any:
    kind = bare(wanted)
    if isinstance(kind, type) and issubclass(kind, Struct):
        return _section(value, kind, at, layer)
    if get_origin(kind) is list:
        items = value if layer.kind == "file" else _items(value, at, layer)
        if not isinstance(items, list):
            raise _problem(layer, at, value, f"must be {words(wanted)}", _example(layer, at, field))
        return [_value(item, get_args(kind)[0], (*at, number), layer, field) for number, item in enumerate(items)]
    try:
        text = value.lower() if kind is bool and isinstance(value, str) else value
        converted = msgspec.convert(text, kind if form(wanted) else wanted, strict=layer.kind == "file")
    except (msgspec.ValidationError, OverflowError) as error:
        raise _problem(layer, at, value, f"must be {words(wanted)}", _example(layer, at, field)) from error
    if (known := form(wanted)) is not None:
        try:
            known.check(converted)
        except ValueError as error:
            problem = str(error).removeprefix(f"{converted!r} ").partition(":")[0] if known.check is seconds else str(error)
            raise _problem(layer, at, value, problem, known.remedy) from None
    return converted


_BETWEEN_URLS: Final = re.compile(r",\s*(?=[a-z]+://|stdout:)")  # the commas inside kafka://a:1,b:2 do not part URLs


def _items(value: Any, at: At, layer: Layer) -> Any:
    """A list given as text: JSON, or parted by commas. Sinks may be given by their URL alone."""
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                raise _problem(layer, at, value, "is not a JSON list", 'write ["a", "b"], or a,b') from None
        else:
            parts = _BETWEEN_URLS.split(text) if at == ("sinks",) else text.split(",")
            value = [part.strip() for part in parts if part.strip()]
    if at == ("sinks",) and isinstance(value, list):
        return [{"url": item} if isinstance(item, str) else item for item in value]
    return value


def _example(layer: Layer, at: At, field: msgspec.structs.FieldInfo) -> str:
    default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    if default is msgspec.NODEFAULT or isinstance(default, Struct):
        known = form(field.type)
        return known.remedy if known else ""
    names = tuple(name for name in at if isinstance(name, str))
    return f"for example {layer.spell(names, default)}, the default"


def _unknown(layer: Layer, at: At, known: Mapping[str, object]) -> ConfigError:
    """The value is left out: it may be a password under a name of the operator's own."""
    where = f"the keys of {_dotted(at[:-1])} are" if len(at) > 1 else "the keys here are"
    file, line = layer.place(at)
    problem = f"there is no such key{suggest(str(at[-1]), known)}"
    return ConfigError(problem, key=_dotted(at), file=file, line=line, remedy=f"{where} {', '.join(known)}")


def _problem(layer: Layer, at: At, value: Any, problem: str, remedy: str) -> ConfigError:
    file, line = layer.place(at)
    text = value if isinstance(value, str) and layer.kind != "file" else json.dumps(value, default=str, ensure_ascii=False)
    shown = "" if value is None else mask(text)
    return ConfigError(
        problem,
        key=_dotted(at),
        value=shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…",
        line=line,
        file=file,
        remedy=remedy,
    )


def _dotted(at: At) -> str:
    """`("sinks", 1, "url")` -> `sinks[1].url`, counted from 0 as in TOML paths."""
    return "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in at).removeprefix(".")


def _line(text: str, at: At) -> int:
    """The line on which a value begins; 0 when it is not found.

    The parser tells no positions, so it is asked: the value begins on the first line that mentions its name and with
    which (and the lines after it, up to the first end that is valid TOML) the beginning of the file holds the value.
    """
    lines = text.splitlines(keepends=True)
    name = next((part for part in reversed(at) if isinstance(part, str)), "")
    for first, line in enumerate(lines):
        if name not in line or line.lstrip().startswith("#"):
            continue
        for last in range(first + 1, len(lines) + 1):
            try:
                begun = tomllib.loads("".join(lines[:last]))
            except tomllib.TOMLDecodeError:
                continue
            if _holds(begun, at):
                return first + 1
            break
    return 0


def _holds(values: Any, at: At) -> bool:
    for name in at:
        try:
            values = values[name]
        except (KeyError, IndexError, TypeError):
            return False
    return True


# All layers together


def _check_together(settings: Settings, layers: list[Layer]) -> None:
    """What one key alone does not show."""
    for at, value, problem, remedy in conflicts(settings):
        given = [layer for layer in layers if _holds(layer.values, at)]
        if given:
            raise _problem(given[-1], at, value, problem, remedy)
        raise ConfigError(problem, key=_dotted(at), value=value, remedy=remedy)
