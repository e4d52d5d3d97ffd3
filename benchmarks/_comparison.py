"""A row of the first table of docs/benchmarks.md, and its verdict: how far ahead of the best peer, or behind."""

from functools import cache
from typing import NamedTuple

from benchmarks._record import load


@cache
def records(benchmark):
    """Stored records, in their order."""
    return load(benchmark)["records"]


def value(benchmark, case, method, metric):
    """A stored number, or None."""
    for r in records(benchmark):
        if (r["case"], r["method"], r["metric"]) == (case, method, metric):
            return r["value"]
    return None


def number(x):
    """Three digits, or as many as an integer has."""
    if x is None:
        return "not measured"
    if isinstance(x, bool | int) or abs(x) >= 1000:
        return f"{x:,.0f}"
    text = f"{x:.3g}"
    return text if abs(x) < 0.1 or x == int(x) else f"{x:#.3g}".rstrip(".")


class Row(NamedTuple):
    """A row of the first table: ``ours`` and ``peers`` are numbers by label, None where not measured.

    ``more`` says whether more is better; without peers there is no verdict. ``accuracy`` says at what accuracy, ``why``
    what is to be said of the verdict. Numbers are compared by their ratio, or, where ``difference`` names a unit, by
    their difference.
    """

    what: str
    asked: str
    ours: dict
    peers: dict
    more: bool
    accuracy: str
    why: str = ""
    difference: str | None = None


def ahead(row):
    """How far our best number is ahead of the peers' best, and of whom: a factor above 1 or a positive difference."""
    ours = [x for x in row.ours.values() if x is not None]
    peers = {name: x for name, x in row.peers.items() if x is not None}
    if not ours or not peers:
        return None
    pick = max if row.more else min
    name = pick(peers, key=peers.get)
    pair = (pick(ours), peers[name]) if row.more else (peers[name], pick(ours))
    return (pair[0] / pair[1] if row.difference is None else pair[0] - pair[1]), name


def verdict(row):
    """In words."""
    found = ahead(row)
    if found is None:
        return "not measured" if row.peers else row.why
    factor, name = found
    if row.difference is not None:
        amount = f"{abs(factor):.2g}{row.difference}"
        text = f"{amount} ahead of {name}" if factor >= 0 else f"**behind** {name}, {amount}"
    elif 0.95 < factor < 1.05:
        text = f"level with {name}"
    elif factor > 1:
        text = f"{number(factor)} times ahead of {name}"
    else:
        text = f"**behind** {name}, {number(1 / factor)} times"
    return text + (f"; {row.why}" if row.why else "")
