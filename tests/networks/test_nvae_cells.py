"""The cells of NVAE and the spectral norms of many kernels at once."""

import torch

from ebmzoo.networks.nvae_cells import DecoderCell, EncoderCell, conv, plain, spectral_norms


def test_spectral_norms_of_many_kernels_and_their_gradient():
    torch.manual_seed(0)
    shapes = [(6, 4, 3), (6, 4, 3), (5, 2, 1)]
    layers = [conv(inputs, outputs, size).double() for outputs, inputs, size in shapes]
    layers.append(plain(8, 8, 5, groups=8).double())
    free = [layer.parametrizations.weight.original if i < 3 else layer.weight for i, layer in enumerate(layers)]
    with torch.no_grad():  # one large singular value each, so that few iterations find it
        for weight in free:
            weight.add_(torch.outer(torch.randn(len(weight)), torch.randn(weight[0].numel())).view_as(weight), alpha=2)
    for _ in range(30):
        norms = spectral_norms(layers, 4, move=True)
    exact = torch.stack([torch.linalg.matrix_norm(layer.weight.flatten(1), 2) for layer in layers])
    torch.testing.assert_close(norms, exact, rtol=1e-10, atol=0)
    expected = torch.autograd.grad((exact**2).sum(), free)
    for actual, gradient in zip(torch.autograd.grad((norms**2).sum(), free), expected, strict=True):
        torch.testing.assert_close(actual, gradient, rtol=1e-8, atol=1e-10)


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
