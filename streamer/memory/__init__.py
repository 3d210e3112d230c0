"""Recent state, fed by messages alone: what the sidecar answers from. Pure: the time is that of the messages.

Because only messages come in, the same memory serves one host (fed by its manager) or many (fed by a stream):
everything is kept by host id. Every collection here has a bound; `Memory.bytes` says what the large ones amount to.
"""

from streamer.memory.container import RATED, Container
from streamer.memory.events import Event, Events
from streamer.memory.layout import COLUMNS, INDEX, StatsSample
from streamer.memory.memory import ID_PREFIX_MIN, Limits, Memory, Stream
from streamer.memory.samples import Samples
from streamer.memory.summary import Derived, Span, Summary, Usage

__all__ = [
    "COLUMNS",
    "ID_PREFIX_MIN",
    "INDEX",
    "RATED",
    "Container",
    "Derived",
    "Event",
    "Events",
    "Limits",
    "Memory",
    "Samples",
    "Span",
    "StatsSample",
    "Stream",
    "Summary",
    "Usage",
]
