"""benchmarks/causes/vaebm_noise.py, as quickly as it goes: its law is what its chains do."""

from benchmarks.causes import vaebm_noise


def test_the_noise_that_chains_leave_is_that_of_the_law(capsys):
    vaebm_noise.main(["--quick"])
    law, curvatures, digits, noise = capsys.readouterr().out.strip().split("\n\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in law.splitlines()[2:]]
    assert len(rows) == 16
    assert all(abs(float(row[5]) / float(row[4]) - 1) < 4 / (2 * 200 * 64) ** 0.5 + 5e-3 for row in rows)
    assert [len(part.splitlines()) for part in (curvatures, digits, noise)] == [2 + 2, 2 + 2 * 2, 2 + 3]
