"""Training, scoring and sparse coding in torch, without scikit-learn."""
