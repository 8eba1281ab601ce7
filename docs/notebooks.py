"""The tutorials as notebooks: `python docs/notebooks.py FOLDER` writes them; on the site each page offers its own.

A page is the only source. Its `python` blocks are cells; its `sh` blocks are too, and fail where a command does; what
a shell would remember (`NAME=value`, `export`) is put into the environment; `<!-- file: NAME -->` before a block writes
that file; a block after `<!-- needs: what -->` stays text.
"""

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from nbformat import NotebookNode, v4

PAGES = ["tutorial.md", "extending.md"]
BLOCK = re.compile(r"(?:<!-- (needs|file): ([^\n]+) -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
ASSIGNMENT = re.compile(r"(?:export )?(\w+)=")


class Block(NamedTuple):
    """A fenced block of a page: ``mark`` is "needs", "file" or "", ``word`` what it names, ``kind`` the language."""

    mark: str
    word: str
    kind: str
    body: str


def environment(line: str) -> str:
    """The Python of a shell's assignment; a kernel's folder is the notebook's, not where Jupyter was started.

    Example:
        >>> environment('export PYTHONPATH=$PWD')
        "os.environ['PYTHONPATH'] = f'{os.getcwd()}'"
    """
    (word,) = (word for word in shlex.split(line) if word != "export")
    name, _, value = word.partition("=")
    inside = value.replace("$PWD", "{os.getcwd()}")
    return f"os.environ[{name!r}] = {'f' if inside != value else ''}{inside!r}"


def code(block: Block) -> list[str]:
    """The cells of a block; none if it is not run."""
    if block.mark == "needs":
        return []
    if block.mark == "file":
        return [f"%%writefile {block.word}\n{block.body}"]
    if block.kind == "python":
        return [block.body]
    if block.kind != "sh":
        return []
    lines = block.body.splitlines()
    kept = [environment(line) for line in lines if ASSIGNMENT.match(line)]
    commands = [line for line in lines if not ASSIGNMENT.match(line)]
    cells = ["\n".join(["import os", "", *kept])] if kept else []
    return cells + (["\n".join(["%%sh -e", *commands])] if any(map(str.strip, commands)) else [])


def notebook(page: str) -> NotebookNode:
    """A page's text, Markdown, as a notebook; links to other pages lead to those of the site that it lies in."""
    page = re.sub(r"\]\((\w+)\.md", r"](\1.html", page)
    found: list[tuple[Callable[..., NotebookNode], str]] = []
    end = 0
    for block in BLOCK.finditer(page):
        cells = code(Block(*block.groups(default="")))
        found.append((v4.new_markdown_cell, page[end : block.start() if cells else block.end()]))
        found += [(v4.new_code_cell, cell) for cell in cells]
        end = block.end()
    found = [(make, text.strip("\n")) for make, text in [*found, (v4.new_markdown_cell, page[end:])] if text.strip()]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(
        cells=[make(text, id=f"cell-{number}") for number, (make, text) in enumerate(found)],  # the same at every build
        metadata={"kernelspec": kernel},
    )


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Called by mkdocs for each page: those that are notebooks too say so below their heading."""
    if page.file.src_uri not in PAGES:
        return markdown
    name = page.file.src_uri.replace(".md", ".ipynb")
    heading, _, rest = markdown.partition("\n")
    return f'{heading}\n\n<a href="{name}" download>This page as a notebook</a>\n{rest}'


def on_post_build(config: Any, **kwargs: Any) -> None:
    """Called by mkdocs when the site is written."""
    write(Path(config["site_dir"]))


def write(folder: Path) -> None:
    """Write every page's notebook into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        text = (Path(__file__).parent / page).read_text()
        nbformat.write(notebook(text), folder / page.replace(".md", ".ipynb"))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
