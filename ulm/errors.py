"""The one error type for input that a user can put right."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: the message says what was found, what was expected and what to do.

    The command line prints the message alone and exits with 2.
    """
