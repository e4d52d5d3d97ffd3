"""Maps and profiles on matplotlib's axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numpyro_inverse.domains._stacked import COUNTED
from numpyro_inverse.plots._select import Data, Field

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from xarray import DataArray

SMALLEST, LARGEST = 6.0, 120.0  # areas of markers, in square points


def draw_map(axis: Axes, values: DataArray, field: Field, image: bool, **colors: Any) -> Any:
    """Values as an image, as cells of unequal width, on a mesh's triangles, or as colored points."""
    first, second = field.names
    horizontal, vertical = (second, first) if image else (first, second)
    axis.set_xlabel(axis_label(values, horizontal))
    whole = field.triangles is not None and values.size == field.samples.shape[-1]
    if whole:
        from matplotlib.tri import Triangulation

        mesh = Triangulation(values[horizontal].values, values[vertical].values, field.triangles)
        drawn: Any = axis.tripcolor(mesh, values.values, shading="gouraud", **colors)
        if image and not axis.yaxis_inverted():
            axis.invert_yaxis()
    elif field.scattered:
        size = float(np.clip(8000 / values.size, SMALLEST, LARGEST))
        drawn = axis.scatter(values[horizontal], values[vertical], c=values, s=size, **colors)
        if image and not axis.yaxis_inverted():
            axis.invert_yaxis()
    else:
        across = values.transpose(vertical, horizontal)
        x, y = edges(values, horizontal), edges(values, vertical)
        if _is_even(x) and _is_even(y):
            extent = (x[0], x[-1], *((y[-1], y[0]) if image else (y[0], y[-1])))
            drawn = axis.imshow(across.values, extent=extent, origin="upper" if image else "lower", **colors)
        else:
            drawn = axis.pcolormesh(x, y, across.values, **colors)
            axis.set_ylim(*((y[-1], y[0]) if image else (y[0], y[-1])))
    axis.set_aspect("equal" if 0.2 <= height_over_width(values, field, image) <= 5 else "auto")
    return drawn


def draw_data(axis: Axes, data: Data | None, image: bool, with_values: bool = True, **colors: Any) -> None:
    """Places over a map, filled with the color of what was observed there."""
    if data is None:
        return
    x, y = data.points.T[::-1] if image else data.points.T
    size = float(np.clip(3000 / len(data.points), 12.0, 45.0))
    if data.values is not None and with_values:  # a white rim within a black one is seen on every color
        axis.scatter(x, y, s=size * 2.2, color="black", linewidths=0)
        axis.scatter(x, y, s=size * 1.6, color="white", linewidths=0)
        axis.scatter(x, y, c=data.values, s=size, linewidths=0, **colors)
    else:
        axis.scatter(x, y, s=size * 1.6, facecolors="none", edgecolors="black", linewidths=1.6)
        axis.scatter(x, y, s=size * 1.6, facecolors="none", edgecolors="white", linewidths=0.8)


def draw_profile_data(axis: Axes, data: Data | None) -> None:
    """Places along a line: what was observed there, or ticks."""
    if data is None:
        return
    if data.values is None:
        where = np.full(len(data.points), 0.03)
        transform = axis.get_xaxis_transform()
        axis.plot(data.points[:, 0], where, "^", color="C3", markersize=5, transform=transform, label="places of data")
    else:
        axis.plot(data.points[:, 0], data.values, "o", color="k", markersize=3.5, label="data", zorder=3)


def legend_above(axis: Axes) -> None:
    """A legend that hides nothing."""
    axis.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)


def along(values: DataArray, field: Field) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of a profile in increasing order, and the order."""
    x = values[field.names[0]].values
    order = np.argsort(x, kind="stable")
    return x[order], order


def limits(*shown: Any) -> dict[str, float]:
    """One color scale for several arrays."""
    arrays = [np.asarray(x) for x in shown if x is not None]
    return {
        "vmin": float(min(np.nanmin(x) for x in arrays)),
        "vmax": float(max(np.nanmax(x) for x in arrays)),
    }


def height_over_width(values: DataArray, field: Field, image: bool) -> float:
    """Of a map, in its own units."""
    if field.scattered:
        spans = [float(np.ptp(values[name].values)) for name in field.names]
    else:
        spans = [float(np.ptp(edges(values, name))) for name in field.names]
    if min(spans) == 0:
        return 1.0
    return spans[0] / spans[1] if image else spans[1] / spans[0]


def panel_height(ratio: float) -> float:
    """Inches, for a panel 3.5 inches wide."""
    return 2.4 * float(np.clip(ratio, 0.4, 2.5)) + 0.9


def edges(values: DataArray, name: str) -> np.ndarray:
    """Where the cells around the coordinates begin and end."""
    x = values[name].values.astype(float)
    if len(x) == 1:
        return np.array([x[0] - 0.5, x[0] + 0.5])
    middle = (x[1:] + x[:-1]) / 2
    return np.concatenate([[x[0] - (x[1] - x[0]) / 2], middle, [x[-1] + (x[-1] - x[-2]) / 2]])


def _is_even(x: np.ndarray) -> bool:
    widths = np.diff(x)
    return bool(np.ptp(widths) <= 1e-3 * abs(widths[0]))


def axis_label(values: DataArray, name: str) -> str:
    """The coordinate with its unit."""
    units = values[name].attrs.get("units")
    plain = name.removesuffix(f"_{values.name}")  # what `to_arviz` appends where the name is taken
    return f"{plain} ({units})" if units and units != COUNTED else plain
