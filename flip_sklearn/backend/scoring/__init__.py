"""Scores of raw embeddings and the best words of each row, block by block."""
