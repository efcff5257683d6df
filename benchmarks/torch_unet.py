"""The network of `keras_ext.models.UNet` in PyTorch, written as one writes it there."""

import math

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Two convolutions, told of the time between, and what they are added to."""

    def __init__(self, channels, condition, groups=8):
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(groups, channels) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.modulation = nn.Linear(condition, 2 * channels)

    def forward(self, x, condition):
        """`x` (b, c, h, w), `condition` (b, d)."""
        y = self.convs[0](functional.silu(self.norms[0](x)))
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        return x + self.convs[1](functional.silu(self.norms[1](y) * (1 + scale) + shift))


class UNet(nn.Module):
    """Levels of blocks, each half the size of the one above.

    Args:
        depth: channels of the data.
        channels: list of ints, those of each level.
        blocks: blocks on each side of a level.
    """

    def __init__(self, depth, channels, blocks, groups=8):
        super().__init__()
        self.features = 4 * channels[0]
        self.time = nn.Sequential(
            nn.Linear(self.features, self.features),
            nn.SiLU(),
            nn.Linear(self.features, self.features),
            nn.SiLU(),
        )
        self.first = nn.Conv2d(depth, channels[0], 3, padding=1)

        def level(c):
            return nn.ModuleList(Block(c, self.features, groups) for _ in range(blocks))

        pairs = list(zip(channels, channels[1:], strict=False))
        self.down = nn.ModuleList(level(c) for c in channels)
        self.halves = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.up = nn.ModuleList(level(c) for c in channels[:-1])
        self.narrow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.norm = nn.GroupNorm(groups, channels[0])
        self.last = nn.Conv2d(channels[0], depth, 3, padding=1)

    def forward(self, x, t):
        """`x` (b, c, h, w), `t` (b,) in [0, 1]."""
        exponents = torch.arange(0, self.features, 2, dtype=torch.float32) / self.features
        angles = 1000.0 * t[:, None] * torch.exp(-math.log(10000.0) * exponents)
        condition = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        x = self.first(x)
        passed = []
        for level, blocks in enumerate(self.down):
            if level:
                x = self.halves[level - 1](x)
            for block in blocks:
                x = block(x, condition)
            passed.append(x)
        for level in reversed(range(len(self.up))):
            x = functional.interpolate(self.narrow[level](x), scale_factor=2.0)
            x = x + passed[level]
            for block in self.up[level]:
                x = block(x, condition)
        return self.last(functional.silu(self.norm(x)))
