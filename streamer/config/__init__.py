"""Configuration: TOML files, then the environment, then flags, into one frozen value.

settings.py  every key with its type, default and help
forms.py     what a value must look like beyond its type
together.py  what one key alone does not show
load.py      layers -> `Settings`, or a `ConfigError` that names key, value, line and remedy
describe.py  the documented default file, the effective configuration, the key table, the JSON Schema
"""

from streamer.config.describe import default_toml, describe, effective_toml, json_schema, key_of
from streamer.config.forms import mask
from streamer.config.load import DEFAULT_FILE, FLAGS, load, load_with_origins, password
from streamer.config.settings import (
    Docker,
    Http,
    Kmsg,
    Labels,
    Listen,
    Metrics,
    Outbox,
    Publishing,
    Sampling,
    Settings,
    SinkSettings,
    listen_address,
    seconds,
)
from streamer.config.together import exposed, http_conflicts

__all__ = [
    "DEFAULT_FILE",
    "FLAGS",
    "Docker",
    "Http",
    "Kmsg",
    "Labels",
    "Listen",
    "Metrics",
    "Outbox",
    "Publishing",
    "Sampling",
    "Settings",
    "SinkSettings",
    "default_toml",
    "describe",
    "effective_toml",
    "exposed",
    "http_conflicts",
    "json_schema",
    "key_of",
    "listen_address",
    "load",
    "load_with_origins",
    "mask",
    "password",
    "seconds",
]
