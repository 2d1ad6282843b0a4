"""The exceptions that users see. Every message names the cause and the fix."""

from __future__ import annotations


class AlphaRefineError(Exception):
    """Base of all errors that this project raises on purpose."""


class InputError(AlphaRefineError, ValueError):
    """An image, a region or an argument that cannot be used. The tracker stays usable after it."""


class CheckpointError(AlphaRefineError):
    """Weights that are missing, damaged, unsafe, or do not fit the network."""


class DataError(AlphaRefineError):
    """A data set or a sequence that is missing or not in the documented layout."""


class EvaluationError(AlphaRefineError):
    """An evaluation by the VOT toolkit that did not succeed."""
