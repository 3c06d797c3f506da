"""Pictures of results: a Display keeps the arrays, `plot` draws them."""
