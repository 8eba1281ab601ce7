"""The mean over processes: of one, and of two."""

import torch

from ebmzoo.parts.processes import average_gradients, mean_over_processes

from ..processes import two_processes


def test_a_single_process_has_its_own_value():
    value = torch.tensor(3.0)
    assert mean_over_processes(value) is value


def work(rank):
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    value = torch.tensor([1.0, 10.0 * rank + 2], requires_grad=True)
    found = mean_over_processes(value)
    a, b, none = (torch.zeros(shape, requires_grad=True) for shape in ((2,), (1, 3), (4,)))
    (a.sum() * (rank + 1) + (b * torch.arange(3.0)).sum() * rank).backward()
    average_gradients([a, none, b])
    average_gradients([none])
    slopes = [a.grad.tolist(), b.grad.tolist(), none.grad]
    return {"found": found, "given": value.detach(), "graph": found.requires_grad, "slopes": slopes}


def test_two_processes_have_their_mean_and_keep_what_they_gave():
    ranks = two_processes(work)
    for rank, each in enumerate(ranks):
        assert each["found"].tolist() == [1.0, 7.0] and not each["graph"]
        assert each["given"].tolist() == [1.0, 10.0 * rank + 2]
        assert each["slopes"] == [[1.5, 1.5], [[0.0, 0.5, 1.0]], None]
