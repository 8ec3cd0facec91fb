"""The MobileNetV2 encoder: torchvision's network at output stride 16, six channels in.

It gives features at five scales to the decoder. It never loads weights itself.
"""

from torch import Tensor, nn
from torchvision.models import MobileNetV2

from model.batch_norm import BatchNorm2d


class MobileNetV2Encoder(MobileNetV2):
    """torchvision's MobileNetV2 without its last convolution and classifier, the last stage
    dilated instead of strided (DeepLabV3, https://arxiv.org/abs/1706.05587)."""

    channels = (6, 16, 24, 32, 320)

    def __init__(self) -> None:
        super().__init__(norm_layer=BatchNorm2d)
        first = nn.Conv2d(6, 32, kernel_size=3, stride=2, padding=1, bias=False)
        # The same initialisation that torchvision gives the convolution which this one replaces.
        nn.init.kaiming_normal_(first.weight, mode="fan_out")
        self.features[0][0] = first
        del self.features[18], self.classifier

        # In place, autograd would first copy what goes into each ReLU6, for its gradient.
        for module in self.modules():
            if isinstance(module, nn.ReLU6):
                module.inplace = False

        # features.14 would halve the size once more; the blocks behind it see as far as before
        # because their 3x3 convolutions are spread by two.
        depthwise = [self.features[number].conv[1][0] for number in (14, 15, 16, 17)]
        depthwise[0].stride = (1, 1)
        for convolution in depthwise[1:]:
            convolution.dilation = convolution.padding = (2, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """x: (B, 6, H, W). Returns the features at 1/1, 1/2, 1/4, 1/8 and 1/16 of the size,
        with `channels` channels; odd sizes are rounded up at each halving."""
        features = [x]
        for number, block in enumerate(self.features):
            x = block(x)
            if number in (1, 3, 6, 17):
                features.append(x)
        return features[0], features[1], features[2], features[3], features[4]
