"""The commands of the command line, one module each: thin layers over the Python API."""
