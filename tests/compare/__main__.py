"""Asks two the same questions and tells what differs: the proof that a cAdvisor can be replaced.

    python -m tests.compare OURS_URL CADVISOR_URL [--client BINARY] [--json]

Both watch the same host, a minute at least; cAdvisor with `--housekeeping_interval=1s --allow_dynamic_housekeeping=false`.
What is asked stands in `questions.py`, how a value is compared in `fields.py` and `exposition.py`, what differs on purpose
and why in `expected.py`. BINARY is a program that calls cAdvisor's own Go clients against a URL and prints a line for each
method: `ok` or `error`, a tab, the method, a tab, what came.

Exit code 0: nothing differs but what is expected to; 1: something does; 2: one of them cannot be asked.
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

from tests.compare import answers, exposition, report
from tests.compare.answers import Answer, Since
from tests.compare.expected import NOT_ASKED, reason_of
from tests.compare.questions import Question, asked, known_to_both
from tests.compare.tree import Difference, Walk

Look = Callable[[], list[Difference]]

_SUBCONTAINERS = Question("/api/v1.3/subcontainers", body=b'{"num_stats":1}', method="POST")
_METRICS = Question("/metrics")
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
    arguments = parser.parse_args()
    if arguments.on_purpose:
        say("\n".join(f"{what}\n    {why}" for what, why in NOT_ASKED.items()))
        return 0
    walk = Walk()
    questions: list[str] = []
    try:
        found = list(compare(arguments.ours, arguments.theirs, walk, questions))
    except (OSError, ValueError, KeyError, TypeError) as error:
        say(f"{type(error).__name__}: {error}")
        return 2
    if arguments.client:
        outputs = [_run_client(arguments.client, url) for url in (arguments.ours, arguments.theirs)]
        questions.append(arguments.client)
        found += [(arguments.client, difference) for difference in answers.compare_clients(*outputs)]
    groups = report.grouped(found)
    if arguments.json:
        say(json.dumps({"answers": len(questions), "values": walk.leaves, "groups": report.as_json(groups)}, indent=1))
    else:
        say(report.as_text(groups, questions=len(questions), values=walk.leaves))
    return 0 if all(group.expected for group in groups) else 1


def compare(ours: str, theirs: str, walk: Walk, questions: list[str]) -> Iterator[tuple[str, Difference]]:
    """Asks everything; yields (question, difference). What was asked is added to `questions`."""
    mine, other = (json.loads(ask(url, _SUBCONTAINERS).body) for url in (ours, theirs))
    names = answers.names_of(mine) & answers.names_of(other)
    began = max(exposition.started(ask(url, _METRICS).body.decode()) for url in (ours, theirs))
    since = Since(began + _SCRAPES_APART_SECONDS, names)
    looks: list[tuple[Question, Look]] = [(_METRICS, lambda: _scrape(ours, theirs, walk))]
    looks.extend(
        (question, functools.partial(_ask_both, ours, theirs, question, walk, since))
        for question in asked(known_to_both(mine, other), second=int(time.time()) + _FAR_FUTURE_SECONDS)
    )
    questions += [str(question) for question, _ in looks]
    yield from what_stays(looks)


def what_stays(looks: Sequence[tuple[Question, Look]]) -> Iterator[tuple[str, Difference]]:
    """What is expected, and what is not but is there each time: between two questions a container may come, a process end."""
    found = [look() for _, look in looks]
    for _ in range(_TIMES - 1):
        time.sleep(_AGAIN_SECONDS)
        for number, (_, look) in enumerate(looks):
            if not all(map(reason_of, found[number])):
                again = set(map(_place, look()))
                found[number] = [one for one in found[number] if reason_of(one) or _place(one) in again]
    for (question, _), differences in zip(looks, found, strict=True):
        yield from ((str(question), difference) for difference in differences)


def _place(difference: Difference) -> tuple[str, str, str]:
    return difference.path, difference.kind, difference.where


def _ask_both(ours: str, theirs: str, question: Question, walk: Walk, since: Since) -> list[Difference]:
    return list(answers.compare(walk, question, ask(ours, question), ask(theirs, question), since))


def _scrape(ours: str, theirs: str, walk: Walk) -> list[Difference]:
    before = ask(theirs, _METRICS)
    time.sleep(_SCRAPES_APART_SECONDS)
    scraped = ask(ours, _METRICS)
    time.sleep(_SCRAPES_APART_SECONDS)
    after = ask(theirs, _METRICS)
    texts = [answer.body.decode() for answer in (scraped, before, after)]
    walk.leaves += sum(len(family.series) for family in exposition.families(texts[0]).values())
    return [*answers.compare_heads("/metrics", scraped, after), *exposition.compare(*texts)]


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
