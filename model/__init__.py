"""The network and the transfer of weights into it; knows nothing of data or of training."""

from model.matting_base import MattingBase

__all__ = ["MattingBase"]
