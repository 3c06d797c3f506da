"""Scores and best words of raw embeddings, computed block by block."""
