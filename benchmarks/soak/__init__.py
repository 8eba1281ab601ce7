"""What a training has to endure, in its long form: kills, damaged files, odd configs, faults that the guard names."""

from .configs import fuzz, mutated
from .files import flips, kill
from .guard import faults, healthy

__all__ = ["faults", "flips", "fuzz", "healthy", "kill", "mutated"]
