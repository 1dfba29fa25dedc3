"""The commands of the command line, one module each, over the Python API."""
