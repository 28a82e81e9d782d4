"""Bare arrays for functions on many small matrices: `bare_arrays`, their memory (`scratch`), `algebra`, `calls`."""
