import torch

from ebmzoo.figures.plots import scatter


def test_scatter_draws_points_where_they_are():
    corners = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    alone = scatter(corners, corners)
    dense = scatter(torch.cat([corners, torch.rand(4000, 2) * 0.5 + 0.4]), corners)
    right = slice(alone.shape[2] // 2, None)
    ink = (alone[:, :, right].float() - dense[:, :, right].float()).abs().sum(0)
    rows, columns = torch.nonzero(ink[60:-60] > 30, as_tuple=True)  # without the title, which has the number
    # The new points lie in the upper right of the samples' panel and nowhere else.
    assert len(rows) > 100
    assert rows.float().mean() < (ink.shape[0] - 120) / 2
    assert columns.float().mean() > ink.shape[1] / 2
    assert alone.dtype == torch.uint8 and alone.shape[0] == 3
