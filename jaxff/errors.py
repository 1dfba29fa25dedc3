"""The exception for input that jaxff cannot use."""


class InputError(ValueError):
    """Input that cannot be used; the message says what is wrong, where, and what to do."""
