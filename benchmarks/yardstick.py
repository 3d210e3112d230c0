"""The yardstick: a C loop that preads the files of the agent's own plan and does nothing else, which is what the kernel charges."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final

from benchmarks import cpu
from benchmarks.cgroups import compiled

_US: Final = 1e6
PACED: Final = 1  # the agent hands over to its sampling thread that often in a second
UNPACED: Final = 0


class Yardstick:
    """`pread_loop.c`, built in this directory, and what it shall read: `take` first, then `us` as often as wanted.

    in_ticks  this kernel tells the CPU of a process too coarsely: counted is what the whole machine did not spend idle
    """

    def __init__(self, directory: Path) -> None:
        self._program, self._list = compiled("pread_loop", directory), directory / "files"
        self._files = 0
        self.in_ticks: Final = cpu.told_in_ticks()

    def take(self, listing: list[list[str]]) -> None:
        """The files of each container, as many for one as for another."""
        self._files = len(listing[0])
        self._list.write_text("".join(f"{file}\n" for files in listing for file in files))

    def us(self, seconds: int, slices: int) -> float:
        """CPU in µs per container and round: a round each second, in so many goes; UNPACED: one after the other without a pause.

        Raises:
            RuntimeError: so little was read that no CPU was counted.
            subprocess.CalledProcessError: a file could not be read, or all of them not be held open.
        """
        command = [str(self._program), str(self._list), str(self._files), str(seconds), str(slices)]
        done: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        used = done["not_idle_seconds"] if self.in_ticks else done["user_seconds"] + done["system_seconds"]
        if used <= 0:
            raise RuntimeError(f"no CPU was counted for {done['reads']} reads of the C loop: take more --containers or --seconds")
        return used * _US / (done["reads"] / self._files)
