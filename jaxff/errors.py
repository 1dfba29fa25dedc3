"""The exception for input that jaxff cannot use."""


class InputError(ValueError):
    """Input that cannot be used.

    The message says what is wrong, where, and what to do.
    """
