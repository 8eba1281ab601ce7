"""What holds for every test; torch and Lightning take seconds, and are not for the process that deals the tests out."""

import pytest


@pytest.fixture(autouse=True)
def _seeded(monkeypatch):
    """A test draws the same numbers in whatever order, and on however many workers, the tests run."""
    import torch

    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)  # left by a seed_everything of the test before
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _log_handler():
    """Lightning's keeps the stream of its first import, which is not to be a test's."""
    import lightning.pytorch  # noqa: F401


@pytest.fixture(autouse=True, scope="session")
def _no_work_without_values():
    """Networks made on the meta device normalise and iterate for no norm: up to 0.1 s a layer, for no values."""
    from torch.nn import functional
    from torch.nn.utils.parametrizations import _SpectralNorm
    from torch.nn.utils.parametrize import ParametrizationList

    init, iterate = ParametrizationList.__init__, _SpectralNorm._power_method
    normalize = functional.normalize

    def normalized(x, *how, **more):
        return x.clone() if x.is_meta else normalize(x, *how, **more)

    def untried(self, modules, original, unsafe=False):
        init(self, modules, original, unsafe or original.is_meta)

    def power_method(self, matrix, iterations):
        if not (matrix.is_meta and iterations == 15):  # those of its constructor
            iterate(self, matrix, iterations)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ParametrizationList, "__init__", untried)
        patch.setattr(_SpectralNorm, "_power_method", power_method)
        patch.setattr(functional, "normalize", normalized)
        yield
