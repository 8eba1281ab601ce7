"""The verb that puts finished runs side by side, in a pipe, on a terminal and in files."""

import io
import shlex

import pytest
from markupsafe import escape
from rich.console import Console

from ebmzoo.cli.main import main
from tests.report.test_compare import finished


def test_compare_prints_the_table_and_writes_markdown_and_page(tmp_path, capsys):
    folders = [str(finished(tmp_path / name, name.upper(), fid=fid)) for name, fid in (("a", 2.5), ("b", 1.5))]
    assert main(["compare", *folders, "--out", str(tmp_path / "its page")]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[:3] == [  # in a pipe
        "run  FID (digits)  seeds  iterations  sampler",
        "a    2.5           1      10          one step",
        "b    1.5 *         1      10          one step",
    ]
    assert str(tmp_path / "its page" / "compare.html") in printed
    assert "| b | 1 | 10 | one step | **1.5** |" in (tmp_path / "its page" / "compare.md").read_text()
    command = shlex.join(["ebmzoo", "compare", *folders, "--out", str(tmp_path / "its page")])
    assert str(escape(command)) in (tmp_path / "its page" / "compare.html").read_text()


@pytest.mark.parametrize("words", [[], ["a", "--seperate"]])
def test_what_compare_cannot_read_is_one_line(capsys, words):
    assert main(["compare", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("ebmzoo: error: ") and said.count("\n") == 1
    assert ("did you mean separate?" if words else "arguments are required: RUN") in said


def test_compare_refuses_different_protocols_in_one_line(tmp_path, capsys):
    a = finished(tmp_path / "a", fid=1.0)
    b = finished(tmp_path / "b", "ECVAE", protocol={"n": 50}, fid=2.0)
    assert main(["compare", str(a), str(b)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "n is 500 and 50" in said and "--separate" in said
    assert main(["compare", str(a), str(b), "--separate"]) == 0


def test_a_terminal_has_one_table_of_the_columns_that_fit_and_the_names_of_the_others(tmp_path, capsys):
    from ebmzoo.cli.compare import _show
    from ebmzoo.report.compare import compare
    from ebmzoo.report.results import load

    finished(tmp_path / "a", fid=2.5, kid=1.0, elbo_nats=-60.0, recall=0.5, fit_cpu_s=3.0)
    for width, hidden in ((60, ["iterations", "sampler", "KID (digits)", "ELBO, nats"]), (200, [])):
        out = io.StringIO()
        _show(Console(file=out, force_terminal=True, width=width, color_system=None), compare(load([tmp_path])))
        text = out.getvalue()
        assert text.count("┏") == 1 and max(map(len, text.split("\n└")[0].splitlines())) <= width
        said = f"{len(hidden)} more, with --out FOLDER or in a pipe: {'; '.join(hidden)}."
        assert (said in " ".join(text.split())) == bool(hidden) and "2.5" in text
