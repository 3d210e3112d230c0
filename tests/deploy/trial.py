"""Acts on streamer.service from inside a machine that systemd runs, and writes what it saw as JSON. Standard library alone.

It only looks; what is right stands in `test_service.py`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

SERVICE: Final = "streamer.service"
STREAMER: Final = "/opt/streamer/bin/streamer"
MESSAGES: Final = Path("/var/log/streamer/messages.jsonl")
ENVIRONMENT: Final = Path("/etc/default/streamer")
CGROUP: Final = Path("/sys/fs/cgroup/docker-" + "5" * 64 + ".scope")
"""A cgroup of the name that Docker gives with its systemd driver: a container as far as the kernel can tell."""


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return (done.stdout + done.stderr).strip()


def shown() -> dict[str, str]:
    """How systemd finds the service."""
    names = "ActiveState,Result,ExecMainStatus,NRestarts,MainPID"
    return dict(line.split("=", 1) for line in run("systemctl", "show", SERVICE, "-p", names).splitlines())


def messages() -> list[dict[str, Any]]:
    lines = MESSAGES.read_text().splitlines() if MESSAGES.exists() else []
    return [message for line in lines if (message := json.loads(line))["type"] != "container.stats"]


def until(condition: Callable[[], Any], seconds: float = 60.0) -> bool:
    """Whether it came true; the test says what should have."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)  # the pace of looking; the deadline is above
    return True


def process(pid: str) -> dict[str, Any]:
    """What the kernel says of the service's process."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    stats = [Path(task, "stat").read_text().rpartition(")")[2].split() for task in Path(f"/proc/{pid}/task").iterdir()]
    return {
        "uid": int(status["Uid"].split()[0]),
        "capabilities": {name: int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")},
        "groups": status["Groups"].split(),
        "seccomp": status["Seccomp"],
        "no_new_privileges": status["NoNewPrivs"],
        "nice": sorted(int(fields[16]) for fields in stats),
        "open_files": re.findall(r"^Max open files +(\d+)", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE),
        "oom_score_adj": Path(f"/proc/{pid}/oom_score_adj").read_text().strip(),
    }


def kill_one() -> bool:
    """A container whose only process the kernel ends for want of memory; whether the agent told of it."""
    CGROUP.mkdir()
    (CGROUP / "memory.max").write_text(str(16 << 20))
    until(lambda: any(m.get("event") == "created" for m in messages()))  # what is gone before anybody looks is no pair
    eater = subprocess.Popen(
        ["/bin/sh", "-c", f"echo $$ >{CGROUP}/cgroup.procs; exec tail /dev/zero"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    eater.wait()
    CGROUP.rmdir()
    return until(lambda: any(m["type"] == "container.oom" for m in messages()))


def journal() -> str:
    return run("journalctl", "--no-pager", "--output", "cat", "--unit", SERVICE)


def look() -> dict[str, Any]:
    """The service's life from its start to its end, and a start that must fail."""
    seen: dict[str, Any] = {"started": shown()}
    seen["process"] = process(seen["started"]["MainPID"])
    seen["groups_file"] = Path("/etc/group").read_text()
    seen["oom_told"] = kill_one()
    seen["healthcheck"] = run(STREAMER, "healthcheck")
    seen["reload"] = run("systemctl", "reload", SERVICE)
    until(lambda: "reloaded" in journal())
    seen["reloaded"] = shown()
    seen["stop"] = run("systemctl", "stop", SERVICE)
    seen["stopped"] = shown()
    seen["messages"] = messages()
    seen["owner"] = MESSAGES.stat().st_uid, oct(MESSAGES.stat().st_mode & 0o777)
    ENVIRONMENT.write_text("STREAMER_SAMPLING__INTERVAL=often\n")
    seen["start_refused"] = run("systemctl", "start", SERVICE)
    seen["refused"] = shown()
    seen["journal"] = journal()
    return seen


if __name__ == "__main__":
    try:
        written = look()
    except Exception as problem:  # noqa: BLE001  whatever went wrong belongs into the test's report
        written = {"problem": repr(problem), "journal": run("journalctl", "--no-pager", "-n", "100")}
    partial = Path(f"{sys.argv[1]}.partial")
    partial.write_text(json.dumps(written))
    os.replace(partial, sys.argv[1])
