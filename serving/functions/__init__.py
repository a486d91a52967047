"""The API's functions, one module each, under the reference's names."""
