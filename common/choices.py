"""What several parts offer a choice of, said once. Imports nothing."""

BACKBONES = ("resnet50", "resnet101", "mobilenetv2")
