"""What a benchmark is asked for on the command line: some of its parts, by default all."""

import argparse
from collections.abc import Iterable


def chosen_parts(description: str, known: Iterable[str]) -> list[str]:
    """The parts that were asked for; ``--help`` shows the description, and another name is an error that lists all."""
    known = list(known)
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=known, metavar="part", help=f"{', '.join(known)}; default: all")
    return parser.parse_args().parts or known
