"""The page's files: sent as they are, with the headers that keep them harmless, and written so that they need none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.sidecar import static
from tests.sidecar.conftest import House

FOLDER = Path(static.__file__).with_name("page")
FILES = sorted(path.name for path in FOLDER.iterdir())
SCRIPTS = [name for name in FILES if name.endswith(".js")]
LONGEST = 240
WIDEST = 140


@pytest.fixture
def a_house() -> House:
    return House()


def test_every_file_is_sent() -> None:
    assert set(static.all_files()) == set(FILES)
    assert {static.INDEX, "app.js", "style.css", "icon.svg"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
async def test_a_file_comes_as_what_it_is(a_house: House, name: str) -> None:
    """Its bytes, its type, and a policy under which nothing but these files runs or is loaded; once, until it is another."""
    path = "/" if name == static.INDEX else f"/page/{name}"
    async with a_house.client() as client:
        got = await client.get(path)
        again = await client.get(path, headers={"if-none-match": got.headers["etag"]})
    assert got.content == (FOLDER / name).read_bytes()
    assert got.headers["content-type"] == static.TYPES[Path(name).suffix]
    assert got.headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert got.headers["x-content-type-options"] == "nosniff" and got.headers["cache-control"] == "no-cache"
    assert not got.headers["etag"].startswith("W/")
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == got.headers["content-security-policy"]


@pytest.mark.parametrize(
    "name", ["", "index.html", "nothing.js", "app", "..%2froutes.py", "%2e%2e/routes.py", "app.js/", "app.js%00"]
)
async def test_nothing_else_is_sent(a_house: House, name: str) -> None:
    async with a_house.client() as client:
        got = await client.get(f"/page/{name}")
    assert got.status_code == 404 and "remedy" in got.json()


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_made_of_markup_or_loaded_from_elsewhere(name: str) -> None:
    """Data never meets a parser of HTML or code; no address of another host; no style or script that the policy refuses."""
    text = (FOLDER / name).read_text()
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc|\beval\b|Function\("
    )
    assert not re.search(forbidden, text)
    elsewhere = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w[\w./#-]*", text))
    assert elsewhere <= {"http://www.w3.org/2000/svg", "https://html.spec.whatwg.org/multipage/server-sent-events.html"}
    if name.endswith(".html"):
        assert not re.search(r"\sstyle=|\son\w+=|<style|<script>", text)


def imports(name: str) -> Iterator[tuple[str, str]]:
    """(file, name) for each thing that a script takes from another."""
    for names, source in re.findall(
        r"^import \{(.+?)\} from \"\./(.+?)\";$", (FOLDER / name).read_text(), re.MULTILINE | re.DOTALL
    ):
        yield from ((source, each.strip()) for each in names.split(","))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_short_and_takes_what_there_is(name: str) -> None:
    """It says what it is for; what it imports is exported there, and it is used."""
    text = (FOLDER / name).read_text()
    assert text.startswith(("// ", "/*")) and text.count("\n") <= LONGEST
    assert max(map(len, text.splitlines())) <= WIDEST
    for source, taken in imports(name):
        assert re.search(rf"^export (async )?(class|function|const) {taken}\b", (FOLDER / source).read_text(), re.MULTILINE), taken
        assert len(re.findall(rf"\b{taken}\b", text)) > 1, f"{taken} is imported for nothing"


def test_every_script_is_run() -> None:
    """None was left behind."""
    reached, ahead = set(), ["app.js"]
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead += [source for source, _ in imports(name)]
    assert reached == set(SCRIPTS)


def test_every_id_that_is_looked_for_is_there() -> None:
    page = (FOLDER / static.INDEX).read_text()
    ids = re.findall(r"\bid=\"([\w-]+)\"", page)
    assert len(ids) == len(set(ids))
    wanted = {found for name in SCRIPTS for found in re.findall(r"byId\(\"([\w-]+)\"\)", (FOLDER / name).read_text())}
    assert wanted <= set(ids)
