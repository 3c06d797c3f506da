"""Report of all diagnoses of an encoder as one self-contained HTML page."""

from flip_sklearn.report.diagnosis import Diagnosis, diagnose
from flip_sklearn.report.examples import Example, Reading
from flip_sklearn.report.findings import Finding

__all__ = ["Diagnosis", "Example", "Finding", "Reading", "diagnose"]
