"""Studies on one self-contained page."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpyro_inverse._checks import check_fraction, check_instance, describe

STYLE = (
    "body{font-family:system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;font-size:.85rem}td,th{padding:.2rem .6rem;border-bottom:1px solid #ddd;"
    "text-align:right}th:first-child{text-align:left}img{max-width:100%}h2{margin-top:2.5rem}"
)


class Study(Protocol):
    """What a report shows; ``table`` and ``plot`` are optional."""

    def verdict(self, level: float = 0.05) -> str:
        """One sentence."""


def report(
    studies: dict[str, Study], path: str | os.PathLike, *, title: str = "Calibration report", level: float = 0.05
) -> Path:
    """Write verdicts, tables and figures of studies to one HTML page without external files.

    >>> # not run: docs/calibration.md does it
    >>> report({"SBC": sbc(...), "coverage": coverage(...)}, "calibration.html")  # doctest: +SKIP

    Args:
        studies: by heading; anything with a ``verdict``, such as everything in this package returns.
        path: of the page; written whole or not at all.
        title: of the page.
        level: of the verdicts.

    Returns:
        The path.

    Raises:
        ValueError: no study; a ``level`` that is not in (0, 1).
        TypeError: something without a ``verdict``; a heading or title that is no string, a path that is none.
    """
    check_instance("report", "studies", studies, Mapping, "a dict of studies by heading")
    check_instance("report", "path", path, str | os.PathLike, "a path")
    check_instance("report", "title", title, str, "a string")
    level = check_fraction("report", "level", level)
    if not studies:
        raise ValueError("report: `studies` must hold at least one study; got none.")
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for heading, study in studies.items():
        check_instance("report", "studies", heading, str, "a dict with headings that are strings")
        if not callable(getattr(study, "verdict", None)):
            raise TypeError(f"report: `studies[{heading!r}]` must have a `verdict`; got {describe(study)}.")
        parts += [f"<h2>{html.escape(heading)}</h2>", f"<p>{html.escape(study.verdict(level))}</p>"]
        table = getattr(study, "table", None)
        if table is not None:
            parts.append(table.to_html(border=0, float_format=lambda v: f"{v:.4g}"))
        if callable(getattr(study, "plot", None)):
            parts.append(_figure(study, heading))
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>"
    )
    path = Path(path)
    draft = path.with_name(path.name + ".part")
    draft.write_text(page, encoding="utf-8")
    os.replace(draft, path)
    return path


def _figure(study: Any, heading: str) -> str:
    from matplotlib import pyplot as plt

    figure = study.plot()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    plt.close(figure)
    image = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(heading)}" src="data:image/png;base64,{image}">'
