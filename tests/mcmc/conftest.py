import pytest

from ebmzoo.mcmc import engine


@pytest.fixture(autouse=True)
def no_programs():
    """Each test records its own."""
    engine._programs.clear()
