"""The networks and the transfer of weights into them; knows nothing of data or of training."""

from model.matting_base import MattingBase
from model.matting_refine import MattingRefine

__all__ = ["MattingBase", "MattingRefine"]
