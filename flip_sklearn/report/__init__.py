"""One self-contained HTML page about an encoder: what was measured, and what the figures say."""

from flip_sklearn.report._examples import Example, Reading
from flip_sklearn.report._findings import Finding
from flip_sklearn.report.diagnosis import Diagnosis, diagnose

__all__ = ["Diagnosis", "Example", "Finding", "Reading", "diagnose"]
