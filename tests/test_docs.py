"""The pages of docs/: their code runs as it stands, or says what it needs and names only what exists."""

import html
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import yaml
from notebooks import BLOCK
from PIL import Image

import ebmzoo
from ebmzoo.cli.main import VERBS, main
from ebmzoo.lazy import names

from .test_readme import SHORT

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
ROOMS = ["callbacks", "checkpoints", "data", "figures", "mcmc", "methods", "metrics", "networks", "parts", "tasks"]
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
COMMAND = re.compile(r"^ {4}(ebmzoo|python|pip|make|torchrun|srun|pytest|git|export|import|from) ", re.MULTILINE)


class Block(NamedTuple):
    page: str
    mark: str
    word: str
    kind: str
    body: str

    def commands(self):
        """The commands of a shell block as lists of words, `$NAME` replaced by what the block's page gave it."""
        if self.kind != "sh":
            return []
        lines = self.body.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


BLOCKS = [Block(page, *found.groups(default="")) for page, text in PAGES.items() for found in BLOCK.finditer(text)]
RUN = [page for page in PAGES if any(block.page == page and block.mark != "needs" for block in BLOCKS)]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder that knows the configs and has a few photographs, to run a page's code in."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:  # a page's own modules
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def run(words, names):
    """One command of a page, shortened."""
    words = [re.sub(r"\$(\w+)", lambda found: names.get(found[1], ""), word) for word in words]
    if len(words) == 1 and (given := re.fullmatch(r"(\w+)=(.+)", words[0])):
        names[given[1]] = given[2]
    elif words[0] == "make":
        target_exists(words[1])
    elif words[0] == "ebmzoo":
        short = {"fit": SHORT, "test": [] if "--only" in words else ["--only", "likelihood"]}.get(words[1], [])
        assert main([*words[1:], *short]) == 0, words
    else:
        assert words[0] == "export", f"{words[0]}: say what it needs"


def target_exists(target):
    environment = {key: value for key, value in os.environ.items() if key != "MAKEFLAGS"}
    subprocess.run(["make", "-n", target], cwd=ROOT, env=environment, check=True, capture_output=True)


@pytest.mark.timeout(600)  # whole commands: seconds on an idle machine, minutes on a crowded one
@pytest.mark.thorough  # tests/test_sixth_method.py and the verbs' own tests hold what the pages show
@pytest.mark.parametrize("page", RUN)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, elsewhere):
    names, variables = {"__name__": page}, {"PWD": str(elsewhere)}
    for block in (block for block in BLOCKS if block.page == page and block.mark != "needs"):
        if block.mark == "file":
            Path(block.word).write_text(block.body)
        elif block.kind == "python":
            exec(compile(block.body, page, "exec"), names)
        for words in block.commands():
            run(words, variables)


@pytest.mark.thorough
def test_your_own_images_need_nothing_but_their_folder(elsewhere):
    (elsewhere / "photos").mkdir()
    for number in range(40):
        pixels = np.full((20, 30, 3), 6 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(elsewhere / "photos" / f"{number}.png")
    (block,) = (block for block in BLOCKS if block.word.startswith("a folder photos/"))
    for words in block.commands():
        run(words, {})


def test_what_one_writes_oneself_is_short():
    files = [
        block for block in BLOCKS if block.page == "extending.md" and block.mark == "file" and block.kind == "python"
    ]
    lengths = {block.word: sum(1 for line in block.body.splitlines() if line.strip()) for block in files}
    assert {"spots.py", "small_energy.py", "random_walk.py", "score_matching.py"} <= set(lengths)
    assert max(lengths.values()) <= 30, lengths


def test_every_block_is_of_a_kind_that_is_checked():
    assert {block.kind for block in BLOCKS} <= {"sh", "python", "yaml", "text"}
    for page, text in PAGES.items():
        assert not COMMAND.search(BLOCK.sub("", text)), f"{page} has commands outside a fenced block"
    for block in BLOCKS:
        if block.kind == "yaml":
            yaml.safe_load(block.body)
        elif block.kind == "python":
            compile(block.body, block.page, "exec")


def test_commands_that_are_not_run_name_what_exists(capfd):
    @cache
    def help_of(verb):
        capfd.readouterr()
        assert main([verb, "--help"]) == 0
        return capfd.readouterr().out

    commands = [words for block in BLOCKS if block.mark == "needs" for words in block.commands()]
    assert len(commands) >= 10
    for words in commands:
        if "ebmzoo" not in words and "ebmzoo.cli.main" not in words:
            continue
        at = next(i for i, word in enumerate(words) if word in ("ebmzoo", "ebmzoo.cli.main"))
        verb, *rest = words[at + 1 :]
        assert verb in VERBS, words
        for word in rest:
            if word.startswith("configs/"):
                assert (ROOT / word).is_file(), word
            if word.startswith("--") and not word.startswith(("--model.", "--data.")):
                assert re.search(rf"{re.escape(word.partition('=')[0])}\b", help_of(verb)), (verb, word)


def sources():
    return "\n".join(path.read_text() for path in sorted((ROOT / "ebmzoo").rglob("*.py")))


def test_methods_pages_name_lines_of_the_code():
    """What stands in a table's column "line" is a name of the package, defined in it."""
    text, checked = sources(), 0
    defined = set(re.findall(r"(?:def|class) (\w+)", text))
    defined |= set(re.findall(r"\b(?=(\w+)(?:: [^=\n]+)? = )", text)) | set(re.findall(r"\b(\w+)=", text))
    for page, words in PAGES.items():
        if not page.startswith("methods/"):
            continue
        column = None
        for line in words.splitlines():
            cells = [cell.strip() for cell in line.replace("\\|", "").split("|")[1:-1]]
            if "line" in cells or "where" in cells:
                column = cells.index("line" if "line" in cells else "where")
            elif not cells:
                column = None
            elif column is not None and column < len(cells):
                for name in re.findall(r"`([A-Za-z_][\w.]*)`", cells[column]):
                    assert name.rpartition(".")[2] in defined, (page, name)
                    checked += 1
    assert checked > 25


def test_paths_that_the_pages_name_exist():
    for page, text in PAGES.items():
        for path in re.findall(r"`((?:ebmzoo|configs|benchmarks|tests)/[\w/.*-]+)`", text):
            assert list(ROOT.glob(path.rstrip("/"))), (page, path)


class Page(HTMLParser):
    """The links of a page of the site, and the anchors in it that links may lead to."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src"):
                self.links.append(value or "")
            elif name == "id":
                self.anchors.add(value)


def dead_links(site):
    """Every link of a site, "page link", that leads to no file, or to no anchor, of it."""
    pages = {path: Page(path.read_text()) for path in site.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            to = urlsplit(link)
            if to.scheme or to.netloc:
                continue
            start = site if to.path.startswith("/") else path.parent  # the page for what is not found has these
            target = Path(os.path.normpath(start / unquote(to.path).lstrip("/"))) if to.path else path
            anchors = pages[target].anchors if target in pages else set()
            if not target.exists() or (to.fragment and unquote(to.fragment) not in anchors):
                dead.append(f"{path.relative_to(site).as_posix()} {link}")
    return sorted(dead)


def test_dead_links_are_found(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "a.png").touch()
    (tmp_path / "b.html").write_text('<h1 id="x y">b</h1><a href="#x%20y">1</a><a href="#z">2</a><a href="in">3</a>')
    (tmp_path / "in" / "c.html").write_text(
        '<img src="../a.png"><img src="a.png"><a href="../b.html#x%20y">1</a><a href="../b.html#y">2</a>'
        '<a href="/b.html">3</a><a href="/c.html">4</a><a href="https://example.org/d.html#e">5</a>'
    )
    assert dead_links(tmp_path) == ["b.html #z", "in/c.html ../b.html#y", "in/c.html /c.html", "in/c.html a.png"]


def parameters_documented(words):
    """The names that a Google docstring's section of arguments has rows for."""
    section = re.search(r"^Args:\n((?: {4}.*\n?|\n)*)", inspect.cleandoc(words), re.MULTILINE)
    return re.findall(r"^ {4}\*{0,2}(\S.*?):(?: |$)", section[1], re.MULTILINE) if section else []


def test_every_parameter_has_a_row_of_its_own():
    checked = 0
    for room in (*ROOMS, "parts.objectives"):
        module = importlib.import_module(f"ebmzoo.{room}")
        for name, thing in inspect.getmembers(module, callable):
            if name.startswith("_"):
                continue
            if documented := parameters_documented(thing.__doc__ or ""):
                own = inspect.signature(thing).parameters.values()
                taken = {one.name for one in own if one.kind is not one.VAR_KEYWORD or one.name in documented}
                assert sorted(documented) == sorted(taken), (room, name)
                checked += 1
    assert checked > 100


def anchors(text):
    """What links may lead to in a page of the site: each heading's words, as the site's maker writes them."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading.encode("ascii", "ignore").decode()) for heading in headings)
    return {re.sub(r"[-\s]+", "-", words.strip().lower()) for words in plain}


def test_links_between_pages_lead_somewhere():
    checked = 0
    for page, text in PAGES.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", text)):
            to = urlsplit(link)
            if to.scheme or to.netloc:
                continue
            name = os.path.normpath(Path(page).parent / to.path) if to.path else page
            assert (DOCS / name).is_file(), (page, link)
            assert not to.fragment or to.fragment in anchors(PAGES[name]), (page, link)
            checked += 1
    assert checked > 50


@pytest.mark.slow
def test_the_site_builds_and_its_links_lead_somewhere(tmp_path):
    pytest.importorskip("mkdocs")
    site = tmp_path / "site"
    # Not --quiet: what is not said is not counted by --strict either.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)  # and the one for what is not found
    assert not dead_links(site)
    # Nothing is fetched when it is read.
    fetched = re.compile(r"(?:src|<link[^>]+(?:stylesheet|preconnect)[^>]+href)=.?https?:")
    assert not [page.name for page in pages if fetched.search(page.read_text())]
    # Each parameter is a row of its own, with its default.
    text = html.unescape((site / "api" / "methods.html").read_text())
    row = "OptimizerFactory makes the energy's; the released code: Adam (0, 0.9) at 1e-4. spec(Adam, lr=0.0001"
    assert "".join(row.split()) in "".join(re.sub(r"<[^>]+>", " ", text).split())


def test_every_public_method_has_a_page():
    pages = "\n".join(text for page, text in PAGES.items() if page.startswith("methods/"))
    shelf = set(names("methods")) & set(ebmzoo.__all__) - {"Method"}
    assert len(shelf) == 11
    for name in shelf:
        module = sys.modules[getattr(ebmzoo, name).__module__].__name__.replace(".", "/")
        assert f"{module}.py" in pages, name
