"""What a trained model is used for: restoration and interpolation."""

from typing import TYPE_CHECKING

from ebmzoo.lazy import attach

if TYPE_CHECKING:
    from .degradations import Colorize as Colorize
    from .degradations import Degradation as Degradation
    from .degradations import Inpaint as Inpaint
    from .degradations import SuperResolve as SuperResolve
    from .degradations import box_mask as box_mask
    from .degradations import centre_mask as centre_mask
    from .degradations import scattered_mask as scattered_mask
    from .interpolation import interpolate as interpolate
    from .interpolation import slerp as slerp
    from .restoration import Restoration as Restoration
    from .restoration import Restorer as Restorer
    from .restoration import chain_in_x as chain_in_x
    from .restoration import largest_squared_gain as largest_squared_gain
else:
    attach(__name__)
