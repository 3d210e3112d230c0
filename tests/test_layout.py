"""What holds the tree together and no tool of its own checks: sizes, reasons, lock files, a quick start."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "streamer").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

LONGEST_FILE = 440  # lines; about 400 is meant, a little more is better than a bad cut
HEAVY = {"aiokafka", "cramjam", "docker", "orjson", "psutil", "redis", "starlette", "uvicorn"}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_every_module_is_short_and_says_what_it_is(path: Path) -> None:
    """A file begins with one docstring that tells its purpose, and can be read in one go."""
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{relative(path)} does not say what it is"
    assert text.count("\n") <= LONGEST_FILE, f"{relative(path)} is too long to be read in one go"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_every_exception_from_a_rule_gives_its_reason(path: Path) -> None:
    """`noqa`, `type: ignore` and a blind except name the rule, and after two spaces why it does not hold here."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if "noqa" in line or "type: ignore" in line:
            assert re.search(r"(noqa: [A-Z]+\d+(, ?[A-Z]+\d+)*|type: ignore\[[a-z-]+(, ?[a-z-]+)*\])\s+\S", line), (
                f"{relative(path)}:{number}"
            )


def test_nothing_heavy_is_loaded_for_help() -> None:
    """`streamer --help` loads no client library and no server."""
    code = "import sys\ntry: import streamer.cli; streamer.cli.main()\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "usage: streamer" in done.stdout
    assert not HEAVY & set(done.stderr.split())


def locked(path: str) -> dict[str, str]:
    """Name to version of a lock file."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / path).read_text(), re.MULTILINE))


def names(requirements: list[str]) -> set[str]:
    """`docker>=7.1,<8` to `docker`."""
    return {re.split(r"[\s<>=!~\[;]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def test_lock_files_hold_everything_that_is_asked_for() -> None:
    """A dependency that was added to pyproject.toml without `bash deploy/lock` shows here."""
    groups = PROJECT["dependency-groups"]
    assert names(PROJECT["project"]["dependencies"]) <= locked("deploy/requirements.lock").keys()
    assert names(groups["build"]) <= locked("deploy/requirements-build.lock").keys()
    assert names(groups["dev"]) <= locked("tests/requirements.lock").keys()
    assert names(PROJECT["build-system"]["requires"]) == names(groups["build"])


def test_what_is_tested_is_what_is_run() -> None:
    """The tests' lock file holds the same versions as the two of the program."""
    tested = locked("tests/requirements.lock")
    for path in ("deploy/requirements.lock", "deploy/requirements-build.lock"):
        assert locked(path).items() <= tested.items()


@pytest.mark.parametrize("path", ["deploy/requirements.lock", "deploy/requirements-build.lock", "tests/requirements.lock"])
def test_lock_files_name_hashes_and_no_place(path: str) -> None:
    """Where packages come from is the machine's business; what they are is ours."""
    text = (ROOT / path).read_text()
    assert "://" not in text
    assert all("--hash=sha256:" in entry for entry in re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:])


def test_ci_runs_what_everybody_runs() -> None:
    """Nothing is checked in CI that a developer does not check by the same command."""
    lines = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) == 1
    assert "tests/run" in lines[0]
