"""One self-contained HTML page about an encoder: what was measured, and what the figures say."""

from flip_sklearn.report.diagnosis import Diagnosis, diagnose
from flip_sklearn.report.examples import Example, Reading
from flip_sklearn.report.findings import Finding

__all__ = ["Diagnosis", "Example", "Finding", "Reading", "diagnose"]
