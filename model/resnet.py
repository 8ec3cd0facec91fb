"""The ResNet encoders: torchvision's network at output stride 16, six channels in.

They give features at five scales to the decoder. They never load weights themselves.
"""

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from model.batch_norm import BatchNorm2d


class ResNetEncoder(ResNet):
    """torchvision's ResNet without its classifier, the last stage dilated instead of strided.

    The stride of the first convolution of `layer4` becomes a dilation of the others, so that the
    deepest features have 1/16 of the input's size (DeepLabV3, https://arxiv.org/abs/1706.05587).
    blocks: how many bottlenecks each of the four stages has.
    """

    channels = (6, 64, 256, 512, 2048)

    def __init__(self, blocks: list[int]) -> None:
        super().__init__(
            Bottleneck,
            blocks,
            replace_stride_with_dilation=[False, False, True],
            norm_layer=BatchNorm2d,
        )
        self.conv1 = nn.Conv2d(6, 64, kernel_size=7, stride=2, padding=3, bias=False)
        # The same initialisation that torchvision gives the convolution which this one replaces.
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        del self.avgpool, self.fc

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """x: (B, 6, H, W). Returns the features at 1/1, 1/2, 1/4, 1/8 and 1/16 of the size,
        with `channels` channels; odd sizes are rounded up at each halving."""
        half = self.relu(self.bn1(self.conv1(x)))
        quarter = self.layer1(self.maxpool(half))
        eighth = self.layer2(quarter)
        sixteenth = self.layer4(self.layer3(eighth))
        return x, half, quarter, eighth, sixteenth
