"""The cells of NVAE."""

import torch

from ebmzoo.networks.nvae_cells import DecoderCell, EncoderCell


def test_cells_are_skip_plus_a_tenth_of_the_branch():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8, 8)
    cells = [EncoderCell(4, 4), EncoderCell(4, 8, down=True), DecoderCell(4, 4), DecoderCell(4, 2, up=True)]
    for cell, shape in zip(cells, [(4, 8), (8, 4), (4, 8), (2, 16)], strict=True):
        y = cell.eval()(x)
        assert y.shape == (2, shape[0], shape[1], shape[1])
        torch.testing.assert_close(y, cell.skip(x) + 0.1 * cell.branch(x))
        gate = cell.branch[-1]
        h = cell.branch[:-1](x)
        opened = gate(h) / h
        assert ((opened > 0) & (opened < 1)).all()  # one gate for each channel
        torch.testing.assert_close(opened, opened[:, :, :1, :1].expand_as(opened), rtol=1e-4, atol=1e-4)
