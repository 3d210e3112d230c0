"""What is told of an agent that crashes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.faults.world import AgentProcess

_CRASHING = """
import os, signal, time
def crash(*_):
    os.kill(os.getpid(), signal.SIGSEGV)
signal.signal(signal.SIGTERM, crash)
print("ready", flush=True)
while not {at_once}: time.sleep(60)
crash()
"""


class Crashing(AgentProcess):
    """It ends by SIGSEGV: at once, or when it is asked to end."""

    def __init__(self, log: Path, *, at_once: bool) -> None:
        super().__init__([], log)
        self._program = _CRASHING.format(at_once=at_once)

    def spawn(self, log: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-X", "faulthandler", "-c", self._program], stdout=log, stderr=log)


def test_a_crash_is_told_with_its_place(tmp_path: Path) -> None:
    """When it is waited for, and when it is signalled afterwards."""
    agent = Crashing(tmp_path / "log", at_once=True)
    agent.start()
    assert not agent.until(lambda: False, "did something", 20)
    agent.resume()
    waited, signalled = agent.problems
    assert waited.startswith("the agent ended by itself with -11 while it did something\nFatal Python error: Segmentation fault")
    assert signalled.startswith("the agent ended by itself with -11\nFatal Python error: Segmentation fault")
    assert all("in crash\n" in problem for problem in agent.problems)


def test_a_crash_at_the_end_is_no_end_in_order(tmp_path: Path) -> None:
    agent = Crashing(tmp_path / "log", at_once=False)
    agent.start()
    assert agent.until(lambda: "ready" in agent.said(), "did not start", 20)
    assert agent.stop() == -11
    (problem,) = agent.problems
    assert problem.startswith("the agent was asked to end and ended with -11\nFatal Python error: Segmentation fault")
    assert "in crash\n" in problem


def test_an_agent_that_was_killed_did_not_crash(tmp_path: Path) -> None:
    agent = Crashing(tmp_path / "log", at_once=False)
    agent.start()
    agent.kill()
    assert not agent.problems
