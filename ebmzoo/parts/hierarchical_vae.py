"""The hierarchical VAE of VAEBM: NVAE's structure with a Gaussian decoder."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ebmzoo.networks.layers import check_image, check_input, is_set, spectral_norms
from ebmzoo.networks.nvae_cells import DecoderCell, EncoderCell, conv
from ebmzoo.parts.gaussian import Gaussian

from .latent_vae import Draw, Latents, LatentVAE


class HierarchicalVAE(LatentVAE):
    """NVAE (Vahdat & Kautz, 2020, arXiv:2007.03898) with a Gaussian decoder, as VAEBM uses it, without posterior flows.

    Groups of latents at one or several scales, drawn from the top (the smallest maps) down. A learned state of the top
    goes down through decoder cells; each group's prior is read off the state, and its latents are mixed into it. The
    encoder's features, with the state mixed in, give the posterior *relative* to the prior (residual Normal): means and
    log standard deviations add up, each sum is bounded softly to ±5, and σ = exp(·) + 0.01. The top group's prior is
    N(0, I). The decoder learns a σ for every pixel: its log has one floor, which sampling and likelihood share.

    The defaults are VAEBM's network for CIFAR-10 (129.1M parameters; 130.7M with the flows that it trains and no sample
    ever uses). Others: its ablation ``groups=20``; CelebA and church 64
    ``width=48, scales=3, groups=5``; CelebA-HQ 256 ``width=32, scales=5, groups=4``; small ``width=48, scales=2,
    groups=4, latents=12, cells=1`` (7.1M parameters) and ``width=32, groups=6, latents=8, cells=1`` (1.0M).

    Args:
        image_shape: (C, H, W); H and W multiples of 2^``scales``.
        width: channels of the first convolution; twice as many at the largest scale, and double at each below.
        scales: number of scales; the largest maps of latents have half the image's size.
        groups: groups of latents per scale.
        latents: latent channels per group.
        cells: cells of encoder and decoder per group.
        min_log_sigma: floor of the decoder's log σ.
        kl_weight: β.

    Raises:
        ValueError: on a size that does not halve often enough, or another input shape.

    Example:
        >>> vae = HierarchicalVAE((3, 8, 8), width=4, scales=2, groups=2, latents=3, cells=1)
        >>> vae.noise_shapes
        ((3, 2, 2), (3, 2, 2), (3, 4, 4), (3, 4, 4))
        >>> vae.generate(*(torch.zeros(5, *shape) for shape in vae.noise_shapes)).mean.shape
        torch.Size([5, 3, 8, 8])
    """

    penalised: Tensor

    def __init__(
        self,
        image_shape: tuple[int, ...],
        width: int = 128,
        scales: int = 1,
        groups: int = 30,
        latents: int = 20,
        cells: int = 2,
        min_log_sigma: float = -2.0,
        kl_weight: float = 1.0,
    ) -> None:
        super().__init__()
        channels, height, width_px = check_image(tuple(image_shape), 2**scales, self)
        self.image_shape, self.min_log_sigma, self.kl_weight = tuple(image_shape), min_log_sigma, kl_weight
        self.least_sigma = math.exp(min_log_sigma)
        # Channels and sizes of the scales, from the largest maps (half the image) down.
        widths = [width * 2**scale for scale in range(1, scales + 1)]
        sizes = [(height >> scale, width_px >> scale) for scale in range(1, scales + 1)]
        top_down = [scale for scale in reversed(range(scales)) for _ in range(groups)]
        self.noise_shapes = tuple((latents, *sizes[scale]) for scale in top_down)

        # Encoder, bottom up: cells before each group's features, and a halving cell between scales.
        stem = [conv(channels, width, 3), EncoderCell(width, width), EncoderCell(width, widths[0], down=True)]
        self.stem = nn.Sequential(*stem)
        self.encoder = nn.ModuleList()
        for index, scale in enumerate(reversed(top_down)):
            block = nn.Sequential()
            if index and index % groups == 0:
                block.append(EncoderCell(widths[scale - 1], widths[scale], down=True))
            block.extend(EncoderCell(widths[scale], widths[scale]) for _ in range(cells))
            self.encoder.append(block)
        self.top_features = nn.Sequential(nn.ELU(), conv(widths[-1], widths[-1]), nn.ELU())
        # One of each per group below the top: the state goes into the encoder's features, and gives the prior.
        self.encoder_combiners = nn.ModuleList(conv(widths[s], widths[s]) for s in top_down[1:])
        self.priors = nn.ModuleList(nn.Sequential(nn.ELU(), conv(widths[s], 2 * latents)) for s in top_down[1:])
        self.posteriors = nn.ModuleList(conv(widths[s], 2 * latents, 3) for s in top_down)

        # Decoder, top down: cells before each group but the first, a doubling cell between scales.
        self.top = nn.Parameter(torch.randn(widths[-1], *sizes[-1]))
        self.decoder, self.decoder_combiners = nn.ModuleList(), nn.ModuleList()
        for index, scale in enumerate(top_down):
            block = nn.Sequential()
            if index and index % groups == 0:
                block.append(DecoderCell(widths[scale + 1], widths[scale], up=True))
            block.extend(DecoderCell(widths[scale], widths[scale]) for _ in range(cells if index else 0))
            self.decoder.append(block)
            self.decoder_combiners.append(conv(widths[scale] + latents, widths[scale]))
        self.head = nn.Sequential(
            DecoderCell(widths[0], width, expansion=3, up=True),
            DecoderCell(width, width, expansion=3),
            nn.ELU(),
            conv(width, 2 * channels, 3),
        )
        self.register_buffer("penalised", torch.tensor(False))

    def generate(self, *noise: Tensor) -> Latents:
        return self._descend(len(noise[0]), lambda index, prior, state: prior.draw(noise[index]))

    def evaluate(self, *z: Tensor) -> Latents:
        return self._descend(len(z[0]), lambda index, prior, state: z[index])

    def infer(self, x: Tensor, draw: Draw) -> Latents:
        check_input(x, self.image_shape, self)
        features, h = [], self.stem(x)
        for block in self.encoder:
            h = block(h)
            features.append(h)
        features[-1] = self.top_features(features[-1])
        features.reverse()
        posterior: list[Gaussian] = []

        def pick(index: int, raw: Gaussian, state: Tensor) -> Tensor:
            h = features[index]
            if index:
                h = h + self.encoder_combiners[index - 1](state)
            shift = _halves(self.posteriors[index](h))
            posterior.append(_bounded(raw.mean + shift.mean, raw.log_sigma + shift.log_sigma))
            return posterior[-1].draw(draw(posterior[-1].mean.shape))

        return self._descend(len(x), pick, raw=True)._replace(posterior=tuple(posterior))

    def _descend(self, batch: int, pick: Callable[[int, Gaussian, Tensor], Tensor], raw: bool = False) -> Latents:
        """From the top down; ``pick`` gives each group's latents from its index, its prior and the state.

        With ``raw`` it is given the prior's mean and log σ before they are bounded, to which a residual is added.
        """
        state = self.top.expand(batch, *self.top.shape)
        z: list[Tensor] = []
        priors: list[Gaussian] = []
        for index, block in enumerate(self.decoder):
            state = block(state)
            if index:
                unbounded = _halves(self.priors[index - 1](state))
                priors.append(_bounded(*unbounded))
            else:
                zero = state.new_zeros(batch, *self.noise_shapes[0], dtype=_wide(state))
                unbounded = Gaussian(zero, zero)
                priors.append(unbounded)
            z.append(pick(index, unbounded if raw else priors[-1], state))
            state = self.decoder_combiners[index](torch.cat([state, z[-1].to(state.dtype)], dim=1))
        mean, log_sigma = _halves(self.head(state))
        x = Gaussian(_soft(mean), _soft(log_sigma).clamp_min(self.min_log_sigma))
        return Latents(tuple(z), tuple(priors), x)

    def generator(self) -> list[nn.Module | nn.Parameter]:
        return [self.top, self.priors, self.decoder, self.decoder_combiners, self.head]

    def regularisation(self) -> Tensor:
        """Spectral norms of all convolutions plus the largest |gain| of each BatchNorm, summed.

        Power iteration follows the norms, 4 steps a call and 40 in the first; its vectors move in training only.
        """
        steps, move = 4 if is_set(self.penalised) else 40, self.training
        if move and steps == 40:
            self.penalised.fill_(True)
        convs = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]
        gains = [layer.weight.abs().max() for layer in self.modules() if isinstance(layer, nn.BatchNorm2d)]
        with torch.autocast(self.top.device.type, enabled=False):
            return spectral_norms(convs, steps, move).sum() + torch.stack(gains).sum()


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _halves(parameters: Tensor) -> Gaussian:
    """Mean and log σ, (B, 2C, H, W) cut along the channels, in fp32 at least."""
    mean, log_sigma = parameters.to(_wide(parameters)).chunk(2, dim=1)
    return Gaussian(mean, log_sigma)


def _soft(value: Tensor) -> Tensor:
    return 5 * torch.tanh(value / 5)


def _bounded(mean: Tensor, log_sigma: Tensor) -> Gaussian:
    """Both bounded softly to ±5; σ = exp(·) + 0.01, so that no group can collapse onto a point."""
    return Gaussian(_soft(mean), (_soft(log_sigma).exp() + 0.01).log())
