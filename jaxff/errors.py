"""The one exception for input that jaxff cannot use."""


class InputError(ValueError):
    """Input that cannot be used: one sentence that says what, where and how to mend it."""
