"""One agent per host: container facts in, schema'd messages out.

kernel -> sources -> manager -> messages -> outbox -> sinks, with memory -> sidecar beside it.
`streamer/README.md` is the guide to this package.
"""

__version__ = "0.1.0"
