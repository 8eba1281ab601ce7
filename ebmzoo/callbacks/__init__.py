"""When things are measured or done: averages of weights, evaluation, pictures, progress."""

from ebmzoo.callbacks.ema import EMA, averaged_weights
from ebmzoo.callbacks.evaluate import Evaluate
from ebmzoo.callbacks.pictures import Pictures
from ebmzoo.callbacks.progress import Progress

__all__ = ["EMA", "Evaluate", "Pictures", "Progress", "averaged_weights"]
