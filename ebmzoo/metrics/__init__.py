"""Numbers of tensors, whoever made them: fidelity, modes, and the protocol without which no number exists."""

from ebmzoo.metrics.digit_classifier import DigitClassifier, load_digit_classifier, stacked_report
from ebmzoo.metrics.digit_classifier import report as classifier_report
from ebmzoo.metrics.extractors import Extractor, find_extractor
from ebmzoo.metrics.fidelity import METRICS, StreamingFID, fidelity, frechet_distance, metric_settings
from ebmzoo.metrics.modes import Modes, mode_coverage
from ebmzoo.metrics.protocol import Protocol, Results, config_hash, git_revision, versions

__all__ = [
    "METRICS",
    "DigitClassifier",
    "Extractor",
    "Modes",
    "Protocol",
    "Results",
    "StreamingFID",
    "classifier_report",
    "config_hash",
    "fidelity",
    "find_extractor",
    "frechet_distance",
    "git_revision",
    "load_digit_classifier",
    "metric_settings",
    "mode_coverage",
    "stacked_report",
    "versions",
]
