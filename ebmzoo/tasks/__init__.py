"""What a trained model is used for: restoration and interpolation."""

from .degradations import Colorize, Degradation, Inpaint, SuperResolve, box_mask, centre_mask, scattered_mask
from .interpolation import interpolate, slerp
from .restoration import Restoration, Restorer, chain_in_x, largest_squared_gain

__all__ = [
    "Colorize",
    "Degradation",
    "Inpaint",
    "Restoration",
    "Restorer",
    "SuperResolve",
    "box_mask",
    "centre_mask",
    "chain_in_x",
    "interpolate",
    "largest_squared_gain",
    "scattered_mask",
    "slerp",
]
