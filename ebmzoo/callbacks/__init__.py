"""When things are measured or done: averages of weights, evaluation, pictures, progress, watching over a run."""

from ebmzoo.callbacks.ema import EMA, averaged_weights
from ebmzoo.callbacks.evaluate import Evaluate
from ebmzoo.callbacks.guard import Diverged, Guard
from ebmzoo.callbacks.last import LastCheckpoint
from ebmzoo.callbacks.monitors import MonitoredCheckpoint, MonitoredStopping, monitored
from ebmzoo.callbacks.network_evaluations import NetworkEvaluations
from ebmzoo.callbacks.pictures import Pictures
from ebmzoo.callbacks.preemption import SaveOnTermination
from ebmzoo.callbacks.progress import Progress
from ebmzoo.callbacks.summary import Summary

__all__ = [
    "EMA",
    "Diverged",
    "Evaluate",
    "Guard",
    "LastCheckpoint",
    "MonitoredCheckpoint",
    "MonitoredStopping",
    "NetworkEvaluations",
    "Pictures",
    "Progress",
    "SaveOnTermination",
    "Summary",
    "averaged_weights",
    "monitored",
]
