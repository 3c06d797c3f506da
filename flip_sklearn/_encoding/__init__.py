"""Ways from texts to vectors, one a file, and the cache between; :mod:`flip_sklearn.encoders` is the door."""
