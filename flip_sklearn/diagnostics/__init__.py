"""Diagnoses of an encoder: what its vectors keep of the words, view by view, as tidy results."""
