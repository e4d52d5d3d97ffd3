"""Draws of a field side by side: what the posterior thinks possible, where a mean is smoother than any field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped

from numpyro_inverse._checks import check_count
from numpyro_inverse.plots._canvas import (
    along,
    axis_label,
    draw_data,
    draw_map,
    draw_profile_data,
    height_over_width,
    legend_above,
    limits,
    panel_height,
)
from numpyro_inverse.plots._select import Data, Field, check_look, pyplot, read_data, select

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import DataArray, Dataset, DataTree

HERE = "plots.draws"
COLUMNS = 4


def draws(
    tree: DataTree | Dataset,
    name: str,
    truth: Shaped[np.ndarray, "*shape"] | None = None,
    *,
    num: int = 4,
    points: Float[np.ndarray, "m d"] | None = None,
    values: Float[np.ndarray, "m"] | None = None,
    group: str = "posterior",
    at: Mapping[str, Any] | None = None,
    image: bool = False,
    label: str | None = None,
) -> Figure:
    """Draw some draws of a field side by side, on one color scale; of a field of one axis, over one another.

    The draws are evenly spread over chains and iterations, so that they are as independent as the run allows. The mean
    of a posterior is smoother than the field; a draw is as rough as the field may be.

    >>> figure = draws(tree, "field", truth=truth, num=8)
    >>> figure.savefig("draws.png")

    Args:
        tree: samples, as :func:`~numpyro_inverse.infer.to_arviz` or :func:`~numpyro_inverse.infer.predict` returns
            them.
        name: the field's site.
        truth: the true field, in the field's shape, where it is known; drawn first. NaN is left blank.
        num: how many draws.
        points: places of data, of shape ``(m, d)`` in the coordinates of the picture, drawn over the field.
        values: what was observed there, of shape ``(m,)`` and in the field's unit, on the same color scale.
        group: the group of ``tree`` that the field is in.
        at: coordinates at which to cut the field, or that choose one of a batch, as for :func:`field`.
        image: draw the first axis downwards and the second to the right, as rows and columns of a photograph, in gray.
        label: what the values are, with their unit; default: ``name``.

    Returns:
        The matplotlib figure; its axes are in ``figure.axes``.

    Raises:
        ValueError: more draws than there are; and as for :func:`field`.
        TypeError: arguments of another kind.
        ImportError: matplotlib is not installed.
    """
    plt = pyplot(HERE)
    num = check_count(HERE, "num", num)
    check_look(HERE, image, label)
    found = select(HERE, tree, group, name, truth, at)
    over = read_data(HERE, points, values, found.names)
    chains, iterations = found.samples.shape[:2]
    if num > chains * iterations:
        raise ValueError(f"{HERE}: `num` is {num}, but there are {chains * iterations} draws.")
    which = ((np.arange(num) + 0.5) * chains * iterations / num).astype(int)
    shown = [(f"chain {i // iterations}, draw {i % iterations}", found.samples[divmod(i, iterations)]) for i in which]
    label = name if label is None else label
    if found.is_map:
        return _maps(plt, found, over, shown, image, label)
    return _lines(plt, found, over, shown, group, label)


def _maps(
    plt: Any, found: Field, over: Data | None, shown: list[tuple[str, DataArray]], image: bool, label: str
) -> Figure:
    panels = shown if found.truth is None else [("truth", found.truth), *shown]
    scale = limits(*(x for _, x in panels), None if over is None else over.values)
    colors: dict[str, Any] = {"cmap": "gray" if image else "viridis"} | scale
    columns = min(len(panels), COLUMNS)
    rows = -(-len(panels) // columns)
    height = panel_height(height_over_width(panels[0][1], found, image))
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.0 * columns + 0.8, rows * height), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, (title, values) in zip(axes.flat, panels, strict=False):
        drawn = draw_map(axis, values, found, image, **colors)
        draw_data(axis, over, image, **colors)
        axis.set_title(title, fontsize="medium")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for number, axis in enumerate(axes.flat):
        if number + columns < len(panels):
            axis.set_xlabel("")
        else:
            axis.tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel(axis_label(panels[0][1], found.names[0 if image else 1]))
    figure.colorbar(drawn, ax=list(axes.flat), label=label)
    return figure


def _lines(
    plt: Any, found: Field, over: Data | None, shown: list[tuple[str, DataArray]], group: str, label: str
) -> Figure:
    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    x, order = along(shown[0][1], found)
    for number, (_, values) in enumerate(shown):
        title = f"{len(shown)} draws of the {group}" if number == 0 else None
        axis.plot(x, values.values[order], color="C0", linewidth=0.8, alpha=0.8, label=title)
    if found.truth is not None:
        axis.plot(x, found.truth.values[order], color="k", linewidth=1, linestyle="--", label="truth")
    draw_profile_data(axis, over)
    axis.set(xlabel=axis_label(shown[0][1], found.names[0]), ylabel=label)
    legend_above(axis)
    return figure
