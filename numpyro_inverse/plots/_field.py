"""Posterior of a field at a glance: mean, standard deviation and how well they were sampled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped

from numpyro_inverse._checks import check_choice
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
from numpyro_inverse.plots._select import Data, Field, check_look, of_shape, pyplot, read_data, select

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import DataArray, Dataset, DataTree

HERE = "plots.field"
DIAGNOSTIC_CELLS = 4096  # a diagnostic costs about a millisecond a cell; on larger fields it is taken of some
BAND = 0.89  # ArviZ's default probability


def field(
    tree: DataTree | Dataset,
    name: str,
    truth: Shaped[np.ndarray, "*shape"] | None = None,
    *,
    data: Shaped[np.ndarray, "*shape"] | None = None,
    points: Float[np.ndarray, "m d"] | None = None,
    values: Float[np.ndarray, "m"] | None = None,
    group: str = "posterior",
    diagnostic: str = "ess",
    at: Mapping[str, Any] | None = None,
    image: bool = False,
    label: str | None = None,
) -> Figure:
    r"""Draw a field's posterior mean, standard deviation and a sampling diagnostic side by side.

    A field of two axes is drawn as maps, in its physical coordinates; with ``truth``, the truth comes first and shares
    the mean's colors. One on a mesh of the plane is drawn on its triangles, one at scattered points as colored points.
    A field of one axis, or at points of a line, is drawn as mean, 89 % equal-tailed band and truth, above its standard
    deviation and the diagnostic. Means and standard deviations are computed in double precision.

    >>> figure = field(tree, "field", truth=truth)
    >>> figure.savefig("field.png")

    Args:
        tree: samples, as :func:`~numpyro_inverse.infer.to_arviz` or :func:`~numpyro_inverse.infer.predict` returns
            them.
        name: the field's site.
        truth: the true field, in the field's shape, where it is known. NaN is left blank.
        data: data of the field's shape and unit (a blurred photograph, say), drawn first with the mean's colors.
        points: places of data, of shape ``(m, d)`` in the coordinates of the picture, drawn over the field.
        values: what was observed there, of shape ``(m,)`` and in the field's unit; they share the mean's colors.
            Without them only the places are marked.
        group: the group of ``tree`` that the field is in.
        diagnostic: ``"ess"``, the bulk effective sample size per cell, or ``"rhat"``, the rank-normalized
            :math:`\hat R` per cell (Vehtari et al., Bayesian Analysis 16, 2021). The panel's title has the worst. On
            a field of more than 4096 cells it is computed on a regular subset of them, as the title says.
        at: coordinates at which to cut the field (the nearest are taken), or that choose one of a batch, for a field
            with further axes: ``at={"z": 0.5}``, ``at={"replicate": 0}``.
        image: draw the first axis downwards and the second to the right, as rows and columns of a photograph, in gray.
            Default: the first to the right and the second upwards.
        label: what the values are, with their unit, for the color bars; default: ``name``.

    Returns:
        The matplotlib figure; its axes are in ``figure.axes``.

    Raises:
        ValueError: a group or site that does not exist, samples that are not finite, a truth of another shape, a field
            that has not one or two axes or is a batch, a diagnostic that does not exist, ``data`` for a field that is
            not a map, points of another dimension, values without points.
        TypeError: arguments of another kind.
        ImportError: matplotlib is not installed.
    """
    plt = pyplot(HERE)
    check_choice(HERE, "diagnostic", diagnostic, ("ess", "rhat"))
    check_look(HERE, image, label)
    found = select(HERE, tree, group, name, truth, at)
    over = read_data(HERE, points, values, found.names)
    mean, sd = _moments(found.samples)
    label = name if label is None else label
    if not found.is_map:
        if data is not None:
            raise ValueError(
                f"{HERE}: `data` are drawn as a map, and site {name!r} is a line; give `points`, `values`."
            )
        return _profiles(plt, found, over, mean, sd, diagnostic, group, label)
    if data is not None:
        data = of_shape(HERE, "data", data, mean.shape, f"site {name!r} is drawn as")
    return _maps(plt, found, data, over, mean, sd, diagnostic, group, image, label)


def _moments(samples: DataArray) -> tuple[DataArray, DataArray]:
    """Mean and standard deviation over the draws, accumulated in double precision."""
    mean = np.mean(samples.values, axis=(0, 1), dtype=np.float64)
    sd = np.std(samples.values, axis=(0, 1), dtype=np.float64)
    like = samples[0, 0]
    return like.copy(data=mean), like.copy(data=sd)


def _maps(
    plt: Any,
    found: Field,
    data: np.ndarray | None,
    over: Data | None,
    mean: DataArray,
    sd: DataArray,
    diagnostic: str,
    group: str,
    image: bool,
    label: str,
) -> Figure:
    worst, quality = _diagnose(found.samples, diagnostic)
    truth = None if found.truth is None else found.truth.values
    same = {"cmap": "gray" if image else "viridis"} | limits(mean, truth, None if over is None else over.values)
    given = {"data": data, "truth": truth}
    panels: list[tuple[str, DataArray, dict[str, Any]]] = [
        *((title, mean.copy(data=shown), same) for title, shown in given.items() if shown is not None),
        (f"{group} mean", mean, same),
        (f"{group} standard deviation", sd, {"cmap": "magma", "vmin": 0.0}),
        (worst, quality, {"cmap": "cividis" if diagnostic == "ess" else "cividis_r"}),
    ]
    size = (3.5 * len(panels), panel_height(height_over_width(mean, found, image)))
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharex=True, sharey=True, layout="constrained")
    for axis, (title, shown, colors) in zip(axes, panels, strict=True):
        drawn = draw_map(axis, shown, found, image, **colors)
        if shown is not quality:
            draw_data(axis, over, image, with_values=colors is same, **colors)
        axis.set_title(title, fontsize="medium")
        figure.colorbar(drawn, ax=axis, label="" if shown is quality else label)
    axes[0].set_ylabel(axis_label(mean, found.names[0 if image else 1]))
    return figure


def _profiles(
    plt: Any,
    found: Field,
    over: Data | None,
    mean: DataArray,
    sd: DataArray,
    diagnostic: str,
    group: str,
    label: str,
) -> Figure:
    worst, quality = _diagnose(found.samples, diagnostic)
    figure, axes = plt.subplots(3, 1, figsize=(7, 6.5), sharex=True, height_ratios=(3, 1, 1), layout="constrained")
    x, order = along(mean, found)
    draws = found.samples.values.astype(np.float64)[..., order]
    low, high = np.quantile(draws, [(1 - BAND) / 2, (1 + BAND) / 2], axis=(0, 1))
    axes[0].fill_between(x, low, high, alpha=0.3, linewidth=0, color="C0", label=f"{BAND:.0%} band")
    axes[0].plot(x, mean.values[order], color="C0", label=f"{group} mean")
    if found.truth is not None:
        axes[0].plot(x, found.truth.values[order], color="k", linewidth=1, linestyle="--", label="truth")
    draw_profile_data(axes[0], over)
    axes[0].set_ylabel(label)
    legend_above(axes[0])
    axes[1].plot(x, sd.values[order], color="C1")
    axes[1].set(ylabel="standard\ndeviation", ylim=(0, None))
    where, order = along(quality, found)
    axes[2].plot(where, quality.values[order], color="C2")
    axes[2].set(ylabel=worst.split("\n")[0], xlabel=axis_label(mean, found.names[0]))
    axes[2].set_title(worst.replace("\n", ", "), fontsize="medium")
    if diagnostic == "ess":
        axes[2].set_ylim(0, None)
    return figure


def _diagnose(samples: DataArray, diagnostic: str) -> tuple[str, DataArray]:
    """The title, with the worst value, and the values, on at most ``DIAGNOSTIC_CELLS`` cells."""
    from arviz_stats import ess, rhat

    axes = samples.dims[2:]
    step = int(np.ceil((np.prod(samples.shape[2:]) / DIAGNOSTIC_CELLS) ** (1 / len(axes))))
    thinned = samples.isel({axis: slice(step // 2, None, step) for axis in axes}).rename("value")
    values = (ess if diagnostic == "ess" else rhat)(thinned.to_dataset())["value"]
    if diagnostic == "ess":
        title = f"ESS, {samples.shape[0] * samples.shape[1]} draws\nsmallest {float(values.min()):.0f}"
    else:
        title = f"R-hat\nlargest {float(values.max()):.3f}"
    return title + (f" (1 cell in {step ** len(axes)})" if step > 1 else ""), values
