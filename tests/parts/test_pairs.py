"""Which pairs a generator's updates take, in which order, by the decoder as it is then."""

import pytest
import torch
from torch import nn

from ebmzoo.parts import Pairs

Z, REVISED = torch.arange(6.0).view(3, 2), torch.arange(9.0).view(3, 3)


class Decoder:
    """z·W, whose weights a user changes between updates; counts its calls."""

    def __init__(self):
        self.weight, self.calls = torch.ones(2, 3), 0

    def __call__(self, z):
        self.calls += 1
        return z @ self.weight


def test_the_first_update_takes_what_was_generated_and_those_after_it_decode_anew():
    decode, generated = Decoder(), torch.full((3, 3), 7.0)
    updates = Pairs(updates=3)(decode, Z, generated, REVISED)
    first, revised = next(updates)
    assert first is generated and torch.equal(revised, REVISED) and decode.calls == 0
    for factor in (2.0, 3.0):
        decode.weight = torch.full((2, 3), factor)  # the update
        again, revised = next(updates)
        assert torch.equal(again, factor * Z.sum(1, keepdim=True).expand(3, 3)) and torch.equal(revised, REVISED)
    assert list(updates) == [] and decode.calls == 2


def test_a_memory_gives_the_newest_pairs_of_all_chains_decoded_now():
    pairs, decode = Pairs(updates=1, memory=5), Decoder()
    seen = []
    for chain in range(3):
        decode.weight = torch.full((2, 3), chain + 1.0)
        ((generated, revised),) = pairs(decode, Z + 10 * chain, torch.zeros(3, 3), REVISED + 10 * chain)
        rows = sorted(zip(generated[:, 0].tolist(), revised[:, 0].tolist(), strict=True))
        seen.append(rows)
    codes = [Z.sum(1) + 20 * chain for chain in range(3)]
    assert seen[0] == [(1.0, 0.0), (5.0, 3.0), (9.0, 6.0)]
    newest = torch.cat(codes[1:])[1:]  # five of the last six, in order of age
    expected = sorted(zip((3 * newest).tolist(), [13.0, 16.0, 20.0, 23.0, 26.0], strict=True))
    assert seen[2] == expected and len(seen[1]) == 5


def test_what_is_kept_has_no_graph_and_no_module_buffer():
    pairs = Pairs(memory=4)
    kept = pairs.kept(Z.clone().requires_grad_(), REVISED)
    assert [leaf.requires_grad for leaf in kept] == [False, False] and not pairs.state_dict()
    assert Pairs().kept(Z, REVISED) == (Z, REVISED)
    revised = REVISED.double()
    ((generated, _),) = pairs(nn.Linear(2, 3), Z.float(), Z, revised.float())
    assert generated.requires_grad and generated.shape == (4, 3)


def test_no_update_is_refused():
    with pytest.raises(ValueError, match="a chain gives at least 1 update, not 0"):
        Pairs(updates=0)
