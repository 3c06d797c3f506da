"""Report of all diagnoses of an encoder as one self-contained HTML page."""

from flip_sklearn.report.diagnosis import Diagnosis, diagnose
from flip_sklearn.report.directions import ViewDirections
from flip_sklearn.report.examples import Example, Reading
from flip_sklearn.report.findings import Finding
from flip_sklearn.report.sets import ComparedSentences

__all__ = ["ComparedSentences", "Diagnosis", "Example", "Finding", "Reading", "ViewDirections", "diagnose"]
