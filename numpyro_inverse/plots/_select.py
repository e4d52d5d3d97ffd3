"""What is drawn: the samples of a site, cut to one or two axes of space, and where its values are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from numpyro_inverse._checks import check_flag, check_instance, check_real, describe
from numpyro_inverse.domains._stacked import COUNTED

if TYPE_CHECKING:
    from xarray import DataArray

SAMPLE_DIMS = ("chain", "draw")
EXTRA = "numpyro-inverse[examples]"


class Field(NamedTuple):
    """Samples of dimensions ``(chain, draw, axis[, axis])`` or ``(chain, draw, point)``."""

    samples: DataArray
    truth: DataArray | None
    scattered: bool  # whether the values are at scattered points, along one axis
    names: tuple[str, ...]  # of the one or two coordinates of space
    triangles: np.ndarray | None = None  # of a mesh in the plane, whose nodes the points are

    @property
    def is_map(self) -> bool:
        """Whether there are two coordinates."""
        return len(self.names) == 2


class Data(NamedTuple):
    """Places, and what was observed there."""

    points: Float[np.ndarray, "m d"]
    values: Float[np.ndarray, "m"] | None


def pyplot(where: str) -> Any:
    """Matplotlib, or the extra that has it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f"{where} needs matplotlib: pip install '{EXTRA}'.") from error
    return plt


def select(where: str, tree: Any, group: str, name: str, truth: Any, at: Any) -> Field:
    """The samples of a site and its truth, cut at the coordinates ``at``; checked."""
    samples = _samples(where, tree, group, name)
    known = None
    if truth is not None:
        known = samples[0, 0].copy(data=of_shape(where, "truth", truth, samples.shape[2:], f"site {name!r} has shape"))
    cuts = {} if at is None else check_instance(where, "at", at, Mapping, 'coordinates by axis, {"z": 0.5}')
    for axis, place in cuts.items():
        if axis not in samples.dims[2:]:
            raise ValueError(f"{where}: `at` names {axis!r}; site {name!r} has the axes {samples.dims[2:]}.")
        samples = _cut(where, samples, axis, place)
        known = None if known is None else _cut(where, known, axis, place)
    scattered, names = _layout(where, name, samples)
    return Field(samples, known, scattered, names, _triangles(tree, group, samples, names) if scattered else None)


def _triangles(tree: Any, group: str, samples: DataArray, names: tuple[str, ...]) -> np.ndarray | None:
    """The triangles between the points, if they are the nodes of a mesh of the plane that `to_arviz` noted."""
    from xarray import Dataset

    dataset = tree if isinstance(tree, Dataset) else tree[group].to_dataset()
    noted = dataset.coords.get(samples[names[0]].attrs.get("mesh"))
    return noted.values if noted is not None and len(names) == 2 and noted.shape[1] == 3 else None


def _samples(where: str, tree: Any, group: str, name: str) -> DataArray:
    from xarray import Dataset, DataTree

    check_instance(where, "tree", tree, DataTree | Dataset, "what `to_arviz` or `predict` returns")
    check_instance(where, "name", name, str, "the name of a site")
    check_instance(where, "group", group, str, "the name of a group")
    holder = f"{group!r}"
    if isinstance(tree, Dataset):
        variables, holder = tree.data_vars, "the dataset"
    elif group in tree.children:
        variables = tree[group].data_vars
    else:
        raise ValueError(f"{where}: `group` {group!r} is not in the tree; there are {', '.join(tree.children)}.")
    if name not in variables:
        raise ValueError(f"{where}: site {name!r} is not in {holder}; there are {', '.join(map(str, variables))}.")
    found = variables[name]
    if not set(SAMPLE_DIMS) <= set(found.dims):
        raise ValueError(f"{where}: site {name!r} in {holder} has no samples, which need the axes chain and draw.")
    check_real(where, "tree", found)
    samples = found.transpose(*SAMPLE_DIMS, ...)
    if 0 in samples.shape:
        raise ValueError(f"{where}: site {name!r} has no samples; its shape is {samples.shape}.")
    bad = int((~np.isfinite(samples.values)).sum())
    if bad:
        raise ValueError(f"{where}: site {name!r} has {bad} samples that are not finite.")
    return samples


def _cut(where: str, samples: DataArray, axis: str, place: Any) -> DataArray:
    size = samples.sizes[axis]
    if axis not in samples.coords:
        if not isinstance(place, int | np.integer) or isinstance(place, bool) or not -size <= place < size:
            raise ValueError(f"{where}: `at[{axis!r}]` must be an index below {size}; got {place!r}.")
        return samples.isel({axis: place})
    coordinates = samples[axis].values
    if coordinates.dtype.kind not in "iuf":
        if place not in coordinates:
            raise ValueError(
                f"{where}: `at[{axis!r}]` must be one of {', '.join(map(str, coordinates))}; got {place!r}."
            )
        return samples.sel({axis: place})
    if np.ndim(place) != 0 or not np.isfinite(check_real(where, f"at[{axis!r}]", place)):
        raise ValueError(f"{where}: `at[{axis!r}]` must be one finite number; got {place!r}.")
    return samples.sel({axis: place}, method="nearest")


def _layout(where: str, name: str, samples: DataArray) -> tuple[bool, tuple[str, ...]]:
    """Whether the values are at scattered points, and the coordinates' names; refuses what cannot be drawn."""
    axes = [str(dim) for dim in samples.dims[2:]]
    if not axes:
        raise ValueError(f"{where}: site {name!r} is a number, not a field.")
    placed = {str(key): tuple(map(str, x.dims)) for key, x in samples.coords.items() if "units" in x.attrs}
    space = [axis for axis in axes if any(axis in dims for dims in placed.values())] or axes
    batch = [axis for axis in axes if axis not in space]
    if batch:
        choice = ", ".join(f"{axis!r}: {_first(samples, axis)}" for axis in batch)
        raise ValueError(
            f"{where}: site {name!r} has the axes {tuple(axes)}, of which {', '.join(map(repr, batch))} "
            f"{'is' if len(batch) == 1 else 'are'} not of space; choose one with at={{{choice}}}."
        )
    copies = [axis for axis in space if placed.get(axis) and samples[axis].attrs["units"] == COUNTED]
    if copies and (len(space) > 2 or any(axis not in placed for axis in space)):
        raise ValueError(
            f"{where}: site {name!r} has the axes {tuple(axes)}, a field for each {copies[0]}; choose one with "
            f"at={{{copies[0]!r}: {_first(samples, copies[0])}}}."
        )
    if len(space) == 1:
        here = [key for key, dims in placed.items() if dims == (space[0],) and key != space[0]]
        if len(here) > 2:
            raise ValueError(
                f"{where}: site {name!r} is at points with the coordinates {', '.join(here)}; one or two can be drawn."
            )
        if here:
            return True, tuple(here)
    if len(space) > 2:
        axis = space[-1] if placed else space[0]
        raise ValueError(
            f"{where}: site {name!r} has the axes {tuple(axes)}; one or two can be drawn. Choose one of the "
            f"others with at={{{axis!r}: {_first(samples, axis)}}}."
        )
    return False, tuple(space)


def _first(samples: DataArray, axis: str) -> str:
    if axis not in samples.coords:
        return "0"
    value = samples[axis].values[0]
    return f"{value:g}" if np.issubdtype(samples[axis].dtype, np.number) else repr(str(value))


def of_shape(where: str, argument: str, value: Any, shape: tuple[int, ...], but: str) -> np.ndarray:
    """Numbers of a shape; NaN is left blank, and something must not be."""
    found = np.asarray(check_real(where, argument, value), float)
    if found.shape != shape:
        raise ValueError(f"{where}: `{argument}` has shape {found.shape}, but {but} {shape}.")
    if not np.any(np.isfinite(found)):
        raise ValueError(f"{where}: `{argument}` has no finite value.")
    return found


def read_data(where: str, points: Any, values: Any, names: tuple[str, ...]) -> Data | None:
    """Places and values to be drawn over the field; checked."""
    if points is None:
        if values is not None:
            raise ValueError(f"{where}: `values` are given without `points`, the places where they were observed.")
        return None
    found = np.asarray(check_real(where, "points", points), float)
    if found.ndim == 1 and len(names) == 1:
        found = found[:, None]
    if found.ndim != 2 or found.shape[1] != len(names) or len(found) == 0:
        raise ValueError(
            f"{where}: `points` must have shape (m, {len(names)}), coordinates {', '.join(names)}; got {found.shape}."
        )
    if not np.all(np.isfinite(found)):
        raise ValueError(f"{where}: `points` has {int((~np.isfinite(found)).sum())} coordinates that are not finite.")
    if values is not None:
        values = of_shape(where, "values", values, (len(found),), "there are as many points as")
    return Data(found, values)


def check_look(where: str, image: Any, label: Any) -> None:
    """The options that all pictures have."""
    check_flag(where, "image", image)
    if label is not None and not isinstance(label, str):
        raise TypeError(f"{where}: `label` must be a string; got {describe(label)}.")
