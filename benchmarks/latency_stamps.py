"""The agent with a clock behind its sinks: `python -m benchmarks.latency_stamps FILE run …` is `streamer run …`.

FILE gets a line for each lifecycle and OOM record that a sink was acknowledged: monotonic ns, a blank, the record. It is written
after the acknowledgement, so that it delays nothing but what comes next, by some microseconds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from streamer import wiring
from streamer.cli import main
from streamer.contracts import Receipt
from streamer.model.messages import LIFECYCLE, OOM
from streamer.model.wire import Entry

_TOPICS: Final = (LIFECYCLE, OOM)


def stamp(sink: Any, file: int) -> Any:
    """The same sink; what it was acknowledged is noted in a file."""
    send = sink.send

    async def stamped(batch: Sequence[Entry]) -> Receipt:
        receipt: Receipt = await send(batch)
        at_ns = time.monotonic_ns()
        lines = [b"%d %s\n" % (at_ns, entry.value) for entry in batch if entry.topic in _TOPICS and entry.value]
        if lines:
            os.write(file, b"".join(lines))
        return receipt

    sink.send = stamped
    return sink


def _run(path: str, arguments: list[str]) -> int:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    make = wiring.make
    wiring.make = lambda *given: stamp(make(*given), file)
    return main(arguments)


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1], sys.argv[2:]))
