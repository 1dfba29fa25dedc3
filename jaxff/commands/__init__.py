"""The commands of the command line, one module each.

They are thin layers over the Python interface.
"""
