"""A network for tests that do not care which: of few parameters, and fast.

Its entries are named so that a file of it is taken for one of MobileNetV2, in whose place it is.
"""

from torch import Tensor, nn

from model.batch_norm import BatchNorm2d


class Block(nn.Module):
    def __init__(self, of: int, to: int) -> None:
        super().__init__()
        convolution = nn.Conv2d(of, to, 3, stride=2, padding=1, bias=False)
        self.conv = nn.Sequential(nn.Sequential(convolution, BatchNorm2d(to), nn.ReLU()))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class TinyEncoder(nn.Module):
    """Features at five scales, as every encoder gives them."""

    channels = (6, 8, 8, 8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(Block(of, to) for of, to in zip(self.channels, self.channels[1:], strict=False))
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """x: (B, 6, H, W). Returns the features at 1/1, 1/2, 1/4, 1/8 and 1/16 of the size."""
        features = [x]
        for block in self.features:
            features.append(block(features[-1]))
        return features[0], features[1], features[2], features[3], features[4]
