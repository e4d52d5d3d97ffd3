"""Posterior of a field at a glance: mean, standard deviation and how well they were sampled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from xarray import DataArray, DataTree

DIAGNOSTIC_CELLS = 4096  # a diagnostic costs about a millisecond a cell; on larger fields it is taken of some
BAND = 0.89  # ArviZ's default probability


def field(
    tree: DataTree,
    name: str,
    truth: Shaped[np.ndarray, "*shape"] | None = None,
    *,
    data: Shaped[np.ndarray, "*shape"] | None = None,
    group: str = "posterior",
    diagnostic: str = "ess",
    at: Mapping[str, Any] | None = None,
    image: bool = False,
    label: str | None = None,
) -> Figure:
    r"""Draw a field's posterior mean, standard deviation and a sampling diagnostic side by side.

    A field of two axes is drawn as maps, in its physical coordinates; with ``truth``, the truth comes first and shares
    the mean's colours. A field of one axis is drawn as mean, 89 % equal-tailed band and truth, above its standard
    deviation and the diagnostic.

    >>> figure = field(to_arviz(mcmc, domain={"field": grid}), "field", truth=truth)
    >>> figure.savefig("field.png")

    Args:
        tree: samples, as :func:`~numpyro_inverse.infer.to_arviz` returns them.
        name: the field's site.
        truth: the true field, in the field's shape, where it is known.
        data: data of the field's shape and unit (a blurred photograph, say), drawn first with the mean's colours.
        group: the group of ``tree`` that the field is in.
        diagnostic: ``"ess"``, the bulk effective sample size per cell, or ``"rhat"``, the rank-normalised
            :math:`\hat R` per cell (Vehtari et al., Bayesian Analysis 16, 2021). The panel's title has the worst. On
            a field of more than 4096 cells it is computed on a regular subset of them, as the title says.
        at: coordinates at which to cut the field (the nearest are taken), for a field with further axes:
            ``at={"z": 0.5}``.
        image: draw the first axis downwards and the second to the right, as rows and columns of a photograph, in grey.
            Default: the first to the right and the second upwards.
        label: what the values are, with their unit, for the colour bars; default: ``name``.

    Returns:
        The matplotlib figure; its axes are in ``figure.axes``.

    Raises:
        ValueError: a group or site that does not exist, samples that are not finite, a truth of another shape, a field
            that has not one or two axes, a diagnostic that does not exist, or ``data`` for a field that is not a map.
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        message = "plots.field needs matplotlib: pip install 'numpyro-inverse[examples]'."
        raise ImportError(message) from error

    samples, truth = _select(tree, group, name, truth, at)
    mean, sd = samples.mean(("chain", "draw")), samples.std(("chain", "draw"))
    if data is not None and (mean.ndim != 2 or np.shape(data) != mean.shape):
        raise ValueError(f"plots.field: `data` has shape {np.shape(data)}, but site {name!r} is drawn as {mean.shape}.")
    worst, quality = _diagnose(samples, diagnostic)
    label = name if label is None else label

    if mean.ndim == 1:
        figure, axes = plt.subplots(3, 1, figsize=(7, 6.5), sharex=True, height_ratios=(3, 1, 1), layout="constrained")
        _profile(axes[0], samples, mean, truth, label, group)
        axes[1].plot(sd[sd.dims[0]], sd, color="C1")
        axes[1].set(ylabel="standard\ndeviation", ylim=(0, None))
        axes[2].plot(quality[quality.dims[0]], quality, color="C2")
        axes[2].set(ylabel=worst.split("\n")[0], xlabel=_axis_label(mean, 0))
        axes[2].set_title(worst.replace("\n", ", "), fontsize="medium")
        if diagnostic == "ess":
            axes[2].set_ylim(0, None)
        return figure

    low, high = _limits(mean, truth)
    grey = {"cmap": "gray" if image else "viridis", "vmin": low, "vmax": high}
    given = {"data": data, "truth": truth}
    known = [(title, mean.copy(data=values), grey) for title, values in given.items() if values is not None]
    panels: list[tuple[str, DataArray, dict[str, Any]]] = [
        *known,
        (f"{group} mean", mean, grey),
        (f"{group} standard deviation", sd, {"cmap": "magma", "vmin": 0.0}),
        (worst, quality, {"cmap": "cividis" if diagnostic == "ess" else "cividis_r"}),
    ]
    height = 2.4 * np.clip(_height_over_width(mean, image), 0.4, 2.5) + 0.9
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.5 * len(panels), height), sharex=True, sharey=True, layout="constrained"
    )
    for axis, (title, values, colours) in zip(axes, panels, strict=True):
        drawn = _map(axis, values, image, **colours)
        axis.set_title(title, fontsize="medium")
        figure.colorbar(drawn, ax=axis, label="" if values is quality else label)
    axes[0].set_ylabel(_axis_label(mean, 0 if image else 1))
    return figure


def _select(tree, group: str, name: str, truth, at: Mapping[str, Any] | None) -> tuple[DataArray, np.ndarray | None]:
    """Samples of dimensions ``(chain, draw, axis[, axis])`` and the truth on the same axes."""
    if group not in tree.children:
        raise ValueError(f"plots.field: `group` {group!r} is not in the tree; there are {', '.join(tree.children)}.")
    variables = tree[group].data_vars
    if name not in variables:
        raise ValueError(f"plots.field: site {name!r} is not in {group!r}; there are {', '.join(map(str, variables))}.")
    samples = variables[name].transpose("chain", "draw", ...)
    bad = int((~np.isfinite(samples)).sum())
    if bad:
        raise ValueError(f"plots.field: site {name!r} has {bad} samples that are not finite.")
    if truth is not None:
        truth = np.asarray(truth)
        if truth.shape != samples.shape[2:]:
            raise ValueError(
                f"plots.field: `truth` has shape {truth.shape}, but site {name!r} has shape {samples.shape[2:]}."
            )
        truth = samples[0, 0].copy(data=truth)
    for axis, where in (at or {}).items():
        if axis not in samples.dims[2:]:
            raise ValueError(f"plots.field: `at` names {axis!r}; site {name!r} has the axes {samples.dims[2:]}.")
        samples = samples.sel({axis: where}, method="nearest")
        truth = None if truth is None else truth.sel({axis: where}, method="nearest")
    axes = samples.dims[2:]
    if not axes:
        raise ValueError(f"plots.field: site {name!r} is a number, not a field.")
    if len(axes) > 2:
        cut = f"at={{{axes[-1]!r}: {float(samples[axes[-1]][0]):g}}}"
        raise ValueError(f"plots.field: site {name!r} has the axes {axes}; one or two can be drawn. Cut it: {cut}.")
    return samples, None if truth is None else truth.values


def _diagnose(samples: DataArray, diagnostic: str) -> tuple[str, DataArray]:
    """The title, with the worst value, and the values, on at most ``DIAGNOSTIC_CELLS`` cells."""
    from arviz_stats import ess, rhat

    if diagnostic not in ("ess", "rhat"):
        raise ValueError(f'plots.field: `diagnostic` must be "ess" or "rhat"; got {diagnostic!r}.')
    axes = samples.dims[2:]
    step = int(np.ceil((np.prod(samples.shape[2:]) / DIAGNOSTIC_CELLS) ** (1 / len(axes))))
    thinned = samples.isel({axis: slice(step // 2, None, step) for axis in axes}).rename("value")
    values = (ess if diagnostic == "ess" else rhat)(thinned.to_dataset())["value"]
    if diagnostic == "ess":
        title = f"ESS, {samples.shape[0] * samples.shape[1]} draws\nsmallest {float(values.min()):.0f}"
    else:
        title = f"R-hat\nlargest {float(values.max()):.3f}"
    return title + (f" (1 cell in {step ** len(axes)})" if step > 1 else ""), values


def _limits(mean: DataArray, truth: np.ndarray | None) -> tuple[float, float]:
    shown = [mean.values] if truth is None else [mean.values, truth]
    return float(min(x.min() for x in shown)), float(max(x.max() for x in shown))


def _profile(axis: Axes, samples: DataArray, mean: DataArray, truth: np.ndarray | None, label: str, group: str) -> None:
    x = mean[mean.dims[0]]
    low, high = samples.quantile([(1 - BAND) / 2, (1 + BAND) / 2], ("chain", "draw"))
    axis.fill_between(x, low, high, alpha=0.3, linewidth=0, color="C0", label=f"{BAND:.0%} band")
    axis.plot(x, mean, color="C0", label=f"{group} mean")
    if truth is not None:
        axis.plot(x, truth, color="k", linewidth=1, linestyle="--", label="truth")
    axis.set_ylabel(label)
    axis.legend(frameon=False, fontsize="small")


def _map(axis: Axes, values: DataArray, image: bool, **colours: Any) -> Any:
    first, second = (_edges(values, dim) for dim in values.dims)
    axis.set_xlabel(_axis_label(values, 1 if image else 0))
    if image:
        drawn = axis.imshow(values.values, extent=(*second, *first[::-1]), origin="upper", **colours)
    else:
        drawn = axis.imshow(values.values.T, extent=(*first, *second), origin="lower", **colours)
    axis.set_aspect("equal" if 0.2 <= _height_over_width(values, image) <= 5 else "auto")
    return drawn


def _height_over_width(values: DataArray, image: bool) -> float:
    first, second = (_edges(values, dim) for dim in values.dims)
    ratio = (first[1] - first[0]) / (second[1] - second[0])
    return ratio if image else 1 / ratio


def _edges(values: DataArray, dim: Any) -> tuple[float, float]:
    """The outer edges of the first and the last cell."""
    x = values[dim].values
    half = (x[1] - x[0]) / 2 if len(x) > 1 else 0.5
    return float(x[0] - half), float(x[-1] + half)


def _axis_label(values: DataArray, axis: int) -> str:
    dim = values.dims[axis]
    units = values[dim].attrs.get("units")
    return f"{dim} ({units})" if units else str(dim)
