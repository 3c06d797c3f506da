"""Sparse non-negative codes by the Lasso of SpLiCE, for many rows at a time."""
