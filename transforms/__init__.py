"""PTransforms: thin steps over domain and io, each from one batch to the next."""
