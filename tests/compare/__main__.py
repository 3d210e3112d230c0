"""Asks two the same questions and tells what differs: the proof that a cAdvisor can be replaced.

    python -m tests.compare OURS_URL CADVISOR_URL [--client BINARY] [--json] [--prove]

Both watch the same host, a minute at least; cAdvisor with `--housekeeping_interval=1s --allow_dynamic_housekeeping=false`.
What is asked stands in `questions.py`, how a value is compared in `fields.py` and `exposition.py`, what differs on purpose
and why in `expected.py`. BINARY is a program that calls cAdvisor's own Go clients against a URL and prints a line for each
method: `ok` or `error`, a tab, the method, a tab, what came. `--prove` then puts the faults of `breakages.py` into what we
answered: each has to be found.

Exit code 0: nothing differs but what is expected to; 1: something does, or a fault is not found; 2: one of them cannot be asked.
"""

from __future__ import annotations

import argparse
import functools
import http.client
import json
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence

from tests.compare import answers, breakages, exposition, report
from tests.compare.answers import Answer, Since
from tests.compare.breakages import Kept, Proof
from tests.compare.expected import NOT_ASKED, reason_of
from tests.compare.questions import Question, asked, known_to_both
from tests.compare.setting import Setting, setting
from tests.compare.tree import Difference, Walk

Look = Callable[[], list[Difference]]

_SUBCONTAINERS = Question("/api/v1.3/subcontainers", body=b'{"num_stats":1}', method="POST")
_MACHINE = Question("/api/v1.3/machine")
_METRICS = Question("/metrics", root="/metrics")
_SCRAPES_APART_SECONDS = 3.0  # so that ours lies between two samples of theirs
_TIMES = 3  # a difference is one when it is there every time
_AGAIN_SECONDS = 1.5
_ANSWER_SECONDS = 15.0
_FAR_FUTURE_SECONDS = 10_000


def main() -> int:
    """The command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m tests.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ours", metavar="OURS_URL")
    parser.add_argument("theirs", metavar="CADVISOR_URL")
    parser.add_argument("--client", metavar="BINARY", help="a program that calls cAdvisor's Go clients against a URL")
    parser.add_argument("--json", action="store_true", help="print the groups as one JSON document")
    parser.add_argument("--on-purpose", action="store_true", help="print what differs though no question shows it, and end")
    parser.add_argument("--prove", action="store_true", help="then put faults into our answers: which of them are not found?")
    arguments = parser.parse_args()
    if arguments.on_purpose:
        say("\n".join(f"{what}\n    {why}" for what, why in NOT_ASKED.items()))
        return 0
    try:
        comparison = Comparison(arguments.ours, arguments.theirs)
        found = list(comparison.differences())
    except (OSError, ValueError, KeyError, TypeError) as error:
        say(f"{type(error).__name__}: {error}")
        return 2
    if arguments.client:
        outputs = [_run_client(arguments.client, url) for url in (arguments.ours, arguments.theirs)]
        comparison.questions.append(arguments.client)
        found += [(arguments.client, difference) for difference in answers.compare_clients(*outputs)]
    groups = report.grouped(found, comparison.setting)
    asked_for, values = len(comparison.questions), comparison.walk.leaves
    if arguments.json:
        say(json.dumps({"answers": asked_for, "values": values, "groups": report.as_json(groups)}, indent=1))
    else:
        say(report.as_text(groups, questions=asked_for, values=values))
    missed = [one for one in comparison.proof() if not one.found] if arguments.prove else []
    return 0 if all(group.expected for group in groups) and not missed else 1


class Comparison:
    """Two that are asked the same.

    questions  what was asked
    setting    the containers and the machine that both know
    """

    def __init__(self, ours: str, theirs: str) -> None:
        """Raises:
        OSError, ValueError, KeyError, TypeError: one of them cannot be asked.
        """
        self._ours, self._theirs = ours, theirs
        self.walk = Walk()
        self.questions: list[str] = []
        self._kept: dict[str, Kept] = {}
        mine, other = (json.loads(ask(url, _SUBCONTAINERS).body) for url in (ours, theirs))
        self._known = known_to_both(mine, other)
        began = [exposition.started(ask(url, _METRICS).body.decode()) for url in (ours, theirs)]
        self._since = Since(max(began) + _SCRAPES_APART_SECONDS, answers.names_of(mine) & answers.names_of(other))
        self.setting = setting(other, json.loads(ask(theirs, _MACHINE).body), began[0])

    def differences(self) -> Iterator[tuple[str, Difference]]:
        """Asks everything; yields (question, difference)."""
        looks: list[tuple[Question, Look]] = [(_METRICS, self._scrape)]
        looks.extend(
            (question, functools.partial(self._ask_both, question))
            for question in asked(self._known, second=int(time.time()) + _FAR_FUTURE_SECONDS)
        )
        self.questions += [str(question) for question, _ in looks]
        yield from what_stays(looks, self.setting)

    def _ask_both(self, question: Question) -> list[Difference]:
        return self._judged(Kept(question, ask(self._ours, question), (ask(self._theirs, question),)))

    def _scrape(self) -> list[Difference]:
        before = ask(self._theirs, _METRICS)
        time.sleep(_SCRAPES_APART_SECONDS)
        scraped = ask(self._ours, _METRICS)
        time.sleep(_SCRAPES_APART_SECONDS)
        return self._judged(Kept(_METRICS, scraped, (before, ask(self._theirs, _METRICS))))

    def _judged(self, kept: Kept) -> list[Difference]:
        name = kept.question.root or kept.question.title
        if name not in self._kept or len(self._kept[name].ours.body) < len(kept.ours.body):
            self._kept[name] = kept
        return self._judge(kept, self.walk)

    def _judge(self, kept: Kept, walk: Walk) -> list[Difference]:
        if kept.question is not _METRICS:
            return list(answers.compare(walk, kept.question, kept.ours, kept.theirs[0], self._since))
        texts = [answer.body.decode() for answer in (kept.ours, *kept.theirs)]
        walk.leaves += sum(len(family.series) for family in exposition.families(texts[0]).values())
        return [*answers.compare_heads("/metrics", kept.ours, kept.theirs[-1]), *exposition.compare(*texts)]

    def proof(self) -> Iterator[Proof]:
        """Puts every fault into what was answered and looks whether it is found; says so, line by line."""
        for proof in breakages.proofs(self._kept, self.setting, lambda kept: self._judge(kept, Walk())):
            say(str(proof))
            yield proof


def what_stays(looks: Sequence[tuple[Question, Look]], setting: Setting) -> Iterator[tuple[str, Difference]]:
    """What is expected, and what is not but is there each time: between two questions a container may come, a process end."""
    found = [look() for _, look in looks]
    for _ in range(_TIMES - 1):
        time.sleep(_AGAIN_SECONDS)
        for number, (_, look) in enumerate(looks):
            if not all(reason_of(one, setting) for one in found[number]):
                again = set(map(_place, look()))
                found[number] = [one for one in found[number] if reason_of(one, setting) or _place(one) in again]
    for (question, _), differences in zip(looks, found, strict=True):
        yield from ((str(question), difference) for difference in differences)


def _place(difference: Difference) -> tuple[str, str, str]:
    return difference.path, difference.kind, difference.where


def ask(url: str, question: Question) -> Answer:
    """The answer, redirects not followed; no answer, or a closed connection, is one too.

    Raises:
        OSError: nobody listens there.
    """
    place = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port or 80, timeout=_ANSWER_SECONDS)
    headers = {"Content-Type": "application/json"} if question.body else {}
    try:
        connection.connect()
        try:
            connection.request(question.method, place.path.rstrip("/") + question.path, question.body or None, headers)
            response = connection.getresponse()
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        except (http.client.RemoteDisconnected, ConnectionResetError, TimeoutError) as error:
            return Answer(0, {}, str(error).encode())
    finally:
        connection.close()


def _run_client(binary: str, url: str) -> str:
    return subprocess.run([binary, url], stdout=subprocess.PIPE, text=True, timeout=120, check=False).stdout


def say(text: str) -> None:
    """Text, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
