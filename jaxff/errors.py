"""The exception for input that jaxff cannot use."""


class InputError(ValueError):
    """Wrong input; the message says what is wrong, where, and what to do."""
