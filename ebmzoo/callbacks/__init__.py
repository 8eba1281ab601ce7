"""When things are measured or done: averages of weights, evaluation, pictures, progress, watching over a run."""

from typing import TYPE_CHECKING

from ebmzoo.lazy import attach

if TYPE_CHECKING:
    from .ema import EMA as EMA
    from .ema import averaged_weights as averaged_weights
    from .evaluate import Evaluate as Evaluate
    from .guard import Diverged as Diverged
    from .guard import Guard as Guard
    from .last import LastCheckpoint as LastCheckpoint
    from .last import SaveOnTermination as SaveOnTermination
    from .monitors import MonitoredCheckpoint as MonitoredCheckpoint
    from .monitors import MonitoredStopping as MonitoredStopping
    from .monitors import monitored as monitored
    from .network_evaluations import NetworkEvaluations as NetworkEvaluations
    from .pictures import Pictures as Pictures
    from .progress import Progress as Progress
    from .progress import Summary as Summary
else:
    attach(__name__)
