"""The rendered book: complete, open to all, and whole with no network. `make test` builds it in _build/trial."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from plan import notebooks, pages  # noqa: E402
from stage import config  # noqa: E402

HTML = ROOT / "_build" / "trial" / "html"
STAGING = ROOT / "_build" / "trial" / "staging"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.book
LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "audio": "src",
    "video": "src",
    "object": "data",
}


class Page(HTMLParser):
    """What a page loads, links to and shows."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.images: list[dict[str, str | None]] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if "id" in values:
            self.ids.add(values["id"])
        if tag == "img":
            self.images.append(values)
        if values.get(LOADED.get(tag, "")):
            self.loads.append(values[LOADED[tag]])
        elif tag == "link" and values.get("rel") not in ("next", "prev", "index", "search", "author", "canonical"):
            self.loads.append(values["href"])
        elif tag == "a" and values.get("href"):
            self.links.append(values["href"])


@pytest.fixture(scope="session")
def html():
    assert (HTML / "index.html").is_file(), (
        "build it with: .venv/bin/python workflow/build.py book --trial --profile smoke"
    )
    return {
        path.relative_to(HTML).as_posix(): Page(path) for path in HTML.rglob("*.html") if "_static" not in path.parts
    }


def local(page: Page, address: str) -> Path | None:
    """The file that an address of a page means, or None if it leads elsewhere."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    return (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path


def test_every_page_was_rendered(html):
    assert {f"{page}.html" for page in pages(ROOT)} <= set(html)


def test_pages_load_nothing_from_elsewhere(html):
    remote = re.compile(r"^(?:https?:)?//")
    found = {(name, address) for name, page in html.items() for address in page.loads if remote.match(address)}
    assert not found
    missing = {
        (name, address)
        for name, page in html.items()
        for address in page.loads
        if not address.startswith("data:") and not (local(page, address) or Path("missing")).is_file()
    }
    assert not missing


def test_styles_load_nothing_from_elsewhere():
    address = re.compile(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)'\"]+")
    assert not {
        (file.name, match)
        for file in HTML.rglob("*.css")
        for match in address.findall(file.read_text(encoding="utf-8"))
    }


def test_links_inside_the_book_lead_somewhere(html):
    broken = set()
    for name, page in html.items():
        for address in page.links:
            target = local(page, address)
            if target is None or "genindex" in address:
                continue
            anchor = unquote(urlsplit(address).fragment)
            other = html.get(target.relative_to(HTML).as_posix()) if target.is_relative_to(HTML) else None
            if not target.is_file() or (anchor and other and anchor not in other.ids):
                broken.add((name, address))
    assert not broken


def test_pictures_have_words(html):
    bare = {
        (name, image.get("src"), image.get("alt"))
        for name, page in html.items()
        for image in page.images
        if len((image.get("alt") or "").split()) < 3 or "_images/" in (image.get("alt") or "")
    }
    assert not bare, "an alternative text of at least three words is missing"


def test_no_trace_of_the_machine():
    found = [
        file.relative_to(HTML).as_posix()
        for file in HTML.rglob("*")
        if file.suffix in {".html", ".js", ".ipynb", ".md", ".css"}
        and "_static" not in file.parts
        and str(ROOT) in file.read_text(encoding="utf-8")
    ]
    assert not found


@pytest.mark.parametrize("page", notebooks(ROOT))
def test_executed_notebook(page):
    content = nbformat.read(STAGING / f"{page}.ipynb", as_version=4)
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code if cell.source.strip()), "a cell was not executed"
    outputs = [(cell, output) for cell in code for output in cell.outputs]
    assert not [output for _, output in outputs if output.output_type == "error"]
    for cell, output in outputs:
        if any(kind.startswith("image/") for kind in output.get("data", {})):
            shown = cell.metadata.get("mystnb", {})
            assert shown.get("figure", {}).get("caption"), f"a figure without caption:\n{cell.source}"
            assert shown.get("image", {}).get("alt"), f"a figure without alternative text:\n{cell.source}"
    assert content.cells[-1].metadata.tags == ["provenance"]


def test_notebook_pages_say_where_they_come_from(html):
    for page in notebooks(ROOT):
        assert "Where this page comes from" in html[f"{page}.html"].text
        words = " ".join(re.sub(r"<[^>]+>", "", html[f"{page}.html"].text).split())
        assert f"ulm run {Path(page).name} -p" in words


def test_status_lists_the_whole_inventory(html):
    from ulm import tables

    text = html["book/status.html"].text
    for item in tables.inventory():
        name = item["id"].split("/")[1].replace("-", " ").capitalize()
        assert f"{name}: " in text


def test_buttons_appear_with_a_repository_and_only_then():
    without, given = config(ROOT, ""), config(ROOT, "https://example.org/book")
    assert "repository" not in without
    assert not without["html"]["use_repository_button"]
    assert given["repository"]["url"] == "https://example.org/book"
    assert given["launch_buttons"]["colab_url"]
    assert given["launch_buttons"]["binderhub_url"]


# ---------------------------------------------------------------------------------------------- in a browser


def browse(address: str, folder: Path) -> tuple[str, str]:
    """The page after its scripts ran, and what it wrote to the console; every host name is unknown."""
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder}"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=15000", "--enable-logging=stderr"),
        *("--dump-dom", address),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=180)
    return result.stdout, "\n".join(line for line in result.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("name", pages(ROOT))
def test_page_opens_without_network(html, tmp_path, name):
    shown, console = browse((HTML / f"{name}.html").as_uri(), tmp_path)
    formulas = len(re.findall(r'class="math', html[f"{name}.html"].text))
    assert shown.count("<mjx-container") >= formulas, "raw LaTeX is left on the page"
    assert '<g data-mml-node="merror"' not in shown, "MathJax does not understand a formula"
    assert "Error" not in console, console


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_search_works_from_files(tmp_path):
    page, console = browse(f"{(HTML / 'search.html').as_uri()}?q=normaliser", tmp_path)
    found = page.split('id="search-results"')[1]
    assert "book/protocol.html" in found
    assert "Error" not in console, console
