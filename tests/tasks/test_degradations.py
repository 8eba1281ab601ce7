"""Operators, their pseudo-inverses, and the masks."""

import pytest
import torch

from ebmzoo.mcmc import PerImageNoise, as_noise
from ebmzoo.tasks import Colorize, Inpaint, SuperResolve, box_mask, centre_mask, scattered_mask

SHAPE = (3, 8, 12)
OPERATORS = {
    "colorize": Colorize(),
    "superres 2": SuperResolve(2),
    "superres 4": SuperResolve(4),
    "box": Inpaint(box_mask(SHAPE, (2, 1, 7, 6))),
    "blocks": Inpaint(scattered_mask(SHAPE, 0.4, as_noise(1), 5)),
}


def images(dtype=torch.float64, n=5):
    return torch.rand((n, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=dtype) * 2 - 1


def matrix(function, shape):
    """A linear function of one example as a matrix."""
    size = int(torch.tensor(shape).prod())
    basis = torch.eye(size, dtype=torch.float64).view(size, *shape)
    return torch.stack([function(one[None]).flatten() for one in basis], 1)


@pytest.mark.parametrize("name", OPERATORS)
def test_pseudo_inverse(name):
    operator, x = OPERATORS[name], images()
    y = operator.degrade(x)
    assert y.shape[1:] == operator.measured_shape(SHAPE)
    # A A+ A = A and A+ A A+ = A+, of the operators themselves; appendix B.
    torch.testing.assert_close(operator.degrade(operator.lift(y)), y, rtol=0, atol=1e-15)
    torch.testing.assert_close(operator.lift(operator.degrade(operator.lift(y))), operator.lift(y), rtol=0, atol=1e-15)
    # What is completed has the measurement, whatever it is completed from, and keeps the rest of that.
    other = images().flip(0) * 3
    whole = operator.complete(y, other)
    torch.testing.assert_close(operator.degrade(whole), y, rtol=0, atol=1e-14)
    torch.testing.assert_close(whole - operator.seen(whole), other - operator.seen(other), rtol=0, atol=1e-14)
    torch.testing.assert_close(operator.complete(y, x), x, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["colorize", "superres 2", "superres 4", "box"])
def test_it_is_the_matrix_of_moore_and_penrose(name):
    operator = OPERATORS[name]
    a = matrix(operator.degrade, SHAPE)
    torch.testing.assert_close(matrix(operator.lift, operator.measured_shape(SHAPE)), torch.linalg.pinv(a))


def test_what_the_operators_do():
    x = images()
    torch.testing.assert_close(Colorize().degrade(x)[2, 0, 3, 4], (x[2, 0, 3, 4] + x[2, 1, 3, 4] + x[2, 2, 3, 4]) / 3)
    torch.testing.assert_close(SuperResolve(4).degrade(x)[1, 2, 0, 1], x[1, 2, :4, 4:8].mean())
    hole = Inpaint(box_mask(SHAPE, (2, 1, 7, 6))).degrade(x)
    assert not hole[..., 1:6, 2:7].any()
    hole[..., 1:6, 2:7] = x[..., 1:6, 2:7]
    assert torch.equal(hole, x)


def test_centred_squares_are_shares_of_64_px():
    for px, side in ((20, 20), (30, 30), (40, 40)):
        hidden = centre_mask((3, 64, 64), px)[0, 0]
        assert hidden.sum() == side**2 and hidden[32 - side // 2, 32 - side // 2] and hidden[31 + side // 2, 32]
        assert torch.equal(hidden, hidden.flip(0)) and torch.equal(hidden, hidden.T)
    assert [int(centre_mask((1, size, size), 30).sum()) for size in (8, 9, 16, 32)] == [16, 9, 64, 256]


def test_scattered_blocks_hide_their_share():
    hidden = scattered_mask((3, 64, 64), 0.3, as_noise(0), n=40)
    assert torch.equal(hidden.flatten(1).sum(1), torch.full((40,), 19 * 64))  # 19 of 64 blocks of 8 x 8 px: 29.7%
    blocks = hidden.view(40, 8, 8, 8, 8)
    assert torch.equal(blocks.all(4).all(2), blocks.any(4).any(2))
    assert (hidden.float().mean(0) > 0).all()  # no place is spared
    # Where 8 does not divide the side, blocks differ in size, and pixels count: 9 of them are half a block.
    odd = scattered_mask((1, 28, 28), 0.3, as_noise(0), n=40).flatten(1).sum(1)
    assert ((odd - 0.3 * 28**2).abs() <= 4.5).all() and len(odd.unique()) > 1
    rows = PerImageNoise.of_rows(3, range(4))
    alone = scattered_mask(SHAPE, 0.3, PerImageNoise.of_rows(3, [2]), 1)
    assert torch.equal(scattered_mask(SHAPE, 0.3, rows, 4)[2:3], alone)


def test_what_cannot_be():
    with pytest.raises(ValueError, match=r"needs a model of colour images \(3, H, W\), this one makes \(1, 8, 8\)"):
        Colorize().measured_shape((1, 8, 8))
    with pytest.raises(ValueError, match=r"do not divide into blocks of 3 x 3 px"):
        SuperResolve(3).measured_shape((1, 8, 8))
    with pytest.raises(ValueError, match="scale is 2 or more, not 1"):
        SuperResolve(1)
    with pytest.raises(ValueError, match="the mask has 12 x 8 px, the images 8 x 8"):
        Inpaint(box_mask(SHAPE, (0, 0, 1, 1))).measured_shape((3, 8, 8))
    with pytest.raises(ValueError, match=r"box \(2, 1, 13, 6\) .* does not lie in 12 x 8 px"):
        box_mask(SHAPE, (2, 1, 13, 6))
    with pytest.raises(ValueError, match="between 0 and 1, not 1.0"):
        scattered_mask(SHAPE, 1.0, as_noise(0))
    with pytest.raises(ValueError, match="1 to 63 px of 64, not 64"):
        centre_mask(SHAPE, 64)
