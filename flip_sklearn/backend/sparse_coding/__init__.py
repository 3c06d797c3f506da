"""Sparse non-negative codes: the Lasso of SpLiCE, many rows at a time."""
