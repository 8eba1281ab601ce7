import pytest

from ebmzoo.mcmc.backend import _programs


@pytest.fixture(autouse=True)
def no_programs():
    """Each test records its own."""
    _programs.clear()
