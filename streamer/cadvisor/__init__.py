"""cAdvisor's vocabulary, made from memory: its manager's operations, its shapes, its events.

operations.py              what can be asked; `channel.py`: events as they come
freshness.py, processes.py  samples on demand; processes, read on demand
requests.py, errors.py     how it is asked, and how it fails
shapes.py, _v2, _machine   the answers' JSON
views.py                   a container in these shapes: `specs.py` who it is and its limits, `samples.py` its samples
machine.py, events.py      the machine; what happened
tree.py                    cgroup paths and what is below them
go.py                      times, durations and truth values as Go writes them
"""

from streamer.cadvisor.channel import EventChannel
from streamer.cadvisor.errors import InvalidRequest, NotFound, RequestFailed
from streamer.cadvisor.operations import Freshen, Operations, Processes
from streamer.cadvisor.requests import EVENT_TYPES, EventRequest, InfoRequest, RequestOptions

__all__ = [
    "EVENT_TYPES",
    "EventChannel",
    "EventRequest",
    "Freshen",
    "InfoRequest",
    "InvalidRequest",
    "NotFound",
    "Operations",
    "Processes",
    "RequestFailed",
    "RequestOptions",
]
