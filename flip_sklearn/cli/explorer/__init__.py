"""The page of ``flip-sklearn explore``."""
