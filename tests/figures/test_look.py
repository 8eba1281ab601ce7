import torch

from ebmzoo.figures.look import batches_of_samples, sampler_settings
from ebmzoo.mcmc import Langevin

from ..callbacks.fakes import model


def test_samples_do_not_depend_on_the_number_of_processes():
    tiny = model().eval()
    alone = list(batches_of_samples(tiny, 23, 5, seed=3))
    assert [len(batch) for batch in alone] == [5, 5, 5, 5, 3]
    for world in (2, 3, 7):
        for rank in range(world):
            part = list(batches_of_samples(tiny, 23, 5, seed=3, rank=rank, world_size=world))
            assert len(part) == len(alone[rank::world])
            for ours, theirs in zip(part, alone[rank::world], strict=True):
                assert torch.equal(ours, theirs)
    assert not torch.equal(alone[0], alone[1])
    assert not torch.equal(alone[0], next(batches_of_samples(tiny, 23, 5, seed=4)))


def test_sampler_settings_hold_every_field():
    class Method:
        def test_sampler(self):
            return Langevin(steps=15, step_size=0.1, temperature=1e-5), 40

    found = sampler_settings(Method())
    assert {k: found[k] for k in ("sampler", "steps", "step_size", "temperature")} == {
        "sampler": "Langevin",
        "steps": 40,
        "step_size": 0.1,
        "temperature": 1e-5,
    }
    assert found["details"]["steps"] == 40 and "noise_first" in found["details"]
    nothing = sampler_settings(object())
    assert nothing.pop("details") == {} and set(nothing.values()) == {None}
