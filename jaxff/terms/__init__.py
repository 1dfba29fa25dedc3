"""The terms of potentials, one module for each functional form."""
