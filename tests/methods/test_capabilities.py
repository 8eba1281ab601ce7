"""Which methods can do what only some tasks ask for; what all are asked for stands in the list of `cases`."""

import pytest

from ebmzoo.methods import capabilities
from ebmzoo.methods.capabilities import LACKS, Decodes, HasLogDensity, InfersByChain, Tilts

from .cases import PROTOCOLS, seeded

CODED = {Decodes, HasLogDensity}
SOME = {
    "vae": {Decodes},
    "wgan": {Decodes},
    "ecvae": CODED,
    "cooperative": CODED,
    "dual-mcmc": CODED | {InfersByChain},
    "bidvl": CODED,
    "vaebm": CODED | {Tilts},
    "ebm": {HasLogDensity},
    "gan": set(),
}


@pytest.mark.parametrize("name", SOME)
def test_what_a_method_can_do_besides(name):
    method = seeded(name)
    assert {one for one in (Decodes, HasLogDensity, InfersByChain, Tilts) if isinstance(method, one)} == SOME[name]


def test_each_capability_is_asked_for_in_one_of_the_two_lists():
    own = {getattr(capabilities, name) for name in capabilities.__all__ if name != "LACKS"}
    assert own == PROTOCOLS | {Decodes, HasLogDensity, InfersByChain, Tilts} >= set(LACKS)
