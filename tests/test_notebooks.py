"""The notebooks say what the pages say, and run as they stand."""

import re
import shlex
from pathlib import Path

import nbformat
import notebooks
import pytest
from nbclient import NotebookClient

from .test_readme import SHORT

ROOT = Path(__file__).parent.parent
PAGE = """# A page

See [metrics](metrics.md#fid) and [a site](https://example.org/a.md).

```sh
CKPT=a/last.ckpt
export HERE=$PWD/b
ebmzoo test --ckpt_path $CKPT \\
    --only likelihood
```

<!-- needs: a GPU -->
```sh
ebmzoo fit
```

<!-- file: mine.py -->
```python
x = 1
```
Then:

```python
import mine
```

```yaml
a: 1
```
"""


def test_the_blocks_of_a_page_are_cells():
    found = notebooks.notebook(PAGE)
    nbformat.validate(found)
    assert [(cell.cell_type, cell.source) for cell in found.cells] == [
        ("markdown", "# A page\n\nSee [metrics](metrics.html#fid) and [a site](https://example.org/a.md)."),
        ("code", "import os\n\nos.environ['CKPT'] = 'a/last.ckpt'\nos.environ['HERE'] = f'{os.getcwd()}/b'"),
        ("code", "%%sh -e\nebmzoo test --ckpt_path $CKPT \\\n    --only likelihood"),
        ("markdown", "<!-- needs: a GPU -->\n```sh\nebmzoo fit\n```"),
        ("code", "%%writefile mine.py\nx = 1"),
        ("markdown", "Then:"),
        ("code", "import mine"),
        ("markdown", "```yaml\na: 1\n```"),
    ]


def test_the_same_page_gives_the_same_file(tmp_path):
    notebooks.write(tmp_path / "a")
    notebooks.write(tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["extending.ipynb", "tutorial.ipynb"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", notebooks.PAGES)
def test_a_notebook_runs(page, tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    book = notebooks.notebook((ROOT / "docs" / page).read_text())
    for cell in book.cells:  # shortened, as tests/test_docs.py does
        cell.source = re.sub(r"^ebmzoo fit .*$", rf"\g<0> {shlex.join(SHORT)}", cell.source, flags=re.MULTILINE)
        cell.source = re.sub(
            r"^ebmzoo test (?!.*--only).*$", r"\g<0> --only likelihood", cell.source, flags=re.MULTILINE
        )
    NotebookClient(book, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert all(cell.execution_count for cell in book.cells if cell.cell_type == "code")
