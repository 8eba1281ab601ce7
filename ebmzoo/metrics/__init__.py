"""Numbers of tensors, whoever made them: fidelity, modes, and the protocol without which no number exists."""

from typing import TYPE_CHECKING

from ebmzoo.lazy import attach

if TYPE_CHECKING:
    from .digit_classifier import DigitClassifier as DigitClassifier
    from .digit_classifier import load_digit_classifier as load_digit_classifier
    from .digit_classifier import report as classifier_report  # noqa: F401 - it is offered
    from .digit_classifier import sha256_of as sha256_of
    from .digit_classifier import stacked_report as stacked_report
    from .extractors import Extractor as Extractor
    from .extractors import find_extractor as find_extractor
    from .fidelity import StreamingFID as StreamingFID
    from .fidelity import fidelity as fidelity
    from .fidelity import frechet_distance as frechet_distance
    from .fidelity import metric_settings as metric_settings
    from .modes import Modes as Modes
    from .modes import mode_coverage as mode_coverage
    from .protocol import METRICS as METRICS
    from .protocol import Protocol as Protocol
    from .protocol import Results as Results
    from .protocol import check_extractor as check_extractor
    from .protocol import config_hash as config_hash
    from .protocol import git_revision as git_revision
    from .protocol import versions as versions
    from .reconstruction import reconstruction_errors as reconstruction_errors
    from .reconstruction import ssim_window as ssim_window
else:
    attach(__name__)
