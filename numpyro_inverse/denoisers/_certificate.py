"""A bound, and what it is worth."""

from __future__ import annotations

from typing import NamedTuple


class Certificate(NamedTuple):
    """A number that bounds something from above, or only estimates it.

    Attributes:
        bound: the number.
        method: how it was found, in words.
        certified: whether it is never below what it bounds. An estimate, such as a power iteration, never is.
        conditions: under which that holds; empty if always.
    """

    bound: float
    method: str
    certified: bool
    conditions: str = ""
