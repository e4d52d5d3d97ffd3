"""Which run a store is of, by content: what the model computes at a few fixed points, the first states, where, by what.

Settings are compared as they are. What is computed is compared by its bits, and where these differ by numbers: on the
same machine with the same versions to ``SAME_MACHINE`` of their size, elsewhere, where rounding differs, to
``ELSEWHERE``.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path
from jaxtyping import PyTree
from numpyro.distributions import biject_to

from numpyro_inverse._identity import digest, first_difference, versions
from numpyro_inverse._model import Site, Trace, latent_sites, sample_sites, scale_of, unconstrained_trace

SAME_MACHINE, ELSEWHERE = 1e-5, 1e-3
SPREADS = (0.2, 0.5, 1.0)  # standard deviations of the fixed points in unconstrained space
FEW = 16  # an array with no more numbers is kept whole, a larger one by projections

Content = dict[str, dict[str, Any]]


def environment() -> dict[str, str]:
    """What else decides how numbers are rounded: versions, device, processor, precision."""
    device = jax.devices()[0]
    return versions() | {
        "device": f"{device.platform} {device.device_kind}",
        "processor": _processor(),
        "precision": str(jax.config.jax_default_matmul_precision),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def model_content(model: Callable, args: tuple, kwargs: Mapping[str, Any], trace: Trace) -> Content:
    """Log density and value of each site, and the gradient, at three fixed points of unconstrained space.

    A site whose law has no density counts by its value alone. ``trace`` is the model's abstract trace.
    """
    points = _points(trace)

    def log_density(z: dict) -> tuple[Any, tuple[dict, dict]]:
        sites = unconstrained_trace(model, args, kwargs, z)
        densities = {name: _log_density(site) for name, site in sample_sites(sites).items()}
        known = {name: value for name, value in densities.items() if value is not None}
        values = {name: site["value"] for name, site in sites.items() if _is_computed(site)}
        return jnp.sum(jnp.asarray([*known.values(), 0.0])), (known, values)

    if not points:
        return {}
    try:
        (_, (densities, values)), gradients = _at(jax.value_and_grad(log_density, has_aux=True), points)
    except (TypeError, ValueError, NotImplementedError):  # a black box; a kernel that needs the gradient has failed
        (_, (densities, values)), gradients = _at(log_density, points), {}
    found = {f"log density of {name!r}": x for name, x in densities.items()}
    found |= {f"value of {name!r}": x for name, x in values.items()}
    found |= {f"gradient with respect to {name!r}": x for name, x in gradients.items()}
    return {f"the model's {what}": _numbers(x) for what, x in found.items()}


def _at(function: Callable, points: dict) -> Any:
    return jax.device_get(jax.jit(lambda points: jax.lax.map(function, points))(points))


def _points(trace: Trace) -> dict[str, jax.Array]:
    points = {}
    for i, (name, site) in enumerate(latent_sites(trace).items()):
        fn = site["fn"]
        if not fn.support.is_discrete:
            shape = biject_to(fn.support).inverse_shape(fn.shape())
            unit = jax.random.normal(jax.random.fold_in(jax.random.key(0), i), (len(SPREADS), *shape))
            points[name] = jnp.reshape(jnp.asarray(SPREADS, unit.dtype), (-1, *[1] * len(shape))) * unit
    return points


def _is_computed(site: Mapping[str, Any]) -> bool:
    """Whether the site has a value that the model computes from latents."""
    is_value = site["type"] == "deterministic" or (site["type"] == "sample" and not site["is_observed"])
    return is_value and isinstance(site["value"], jax.Array | np.ndarray)


def _log_density(site: Site) -> Any:
    try:
        return scale_of(site) * jnp.sum(site["fn"].log_prob(site["value"]))
    except NotImplementedError:
        return None


def tree_content(what: str, tree: PyTree) -> Content:
    """The leaves of a tree, each by its path."""
    leaves, _ = tree_flatten_with_path(tree)
    return {f"{what} {keystr(path, simple=True, separator='.')!r}": _numbers(leaf) for path, leaf in leaves}


def _numbers(x: Any) -> dict[str, Any]:
    """Digest, and a few real numbers with the size of a typical one."""
    entry: dict[str, Any] = {"digest": digest(x)}
    if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
        return entry
    flat = np.ravel(np.asarray(x))
    flat = flat.view(flat.real.dtype).astype(float)
    size = float(np.sqrt(np.mean(flat[np.isfinite(flat)] ** 2))) if np.isfinite(flat).any() else 0.0
    if flat.size > FEW:
        weights = np.random.default_rng(0).standard_normal((2, flat.size)) / np.sqrt(flat.size)
        flat = np.append(weights @ flat, size)
    return entry | {"numbers": flat.tolist(), "size": size}


def check_same(where: str, found: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise unless settings and content are those of the run in the store.

    Args:
        where: for messages.
        found: the record in the store: ``settings``, ``content``, ``environments``.
        asked: ``settings``, which may ask for more draws, ``content`` and ``environment`` of the call.

    Raises:
        ValueError: says what differs.
    """
    other = f"{where}: the store was written by another run; give another store, or the same arguments"
    before, now = dict(found["settings"]), dict(asked["settings"])
    old, new = before.pop("num_samples"), now.pop("num_samples")
    if before != now:
        name, one, two = first_difference(before, now)
        raise ValueError(f"{other}: `{name}` was {one}, and is now {two}.")
    if new < old:
        raise ValueError(f"{other}: `num_samples` was {old}, and is now {new}; a run can be made longer, not shorter.")
    latest = found["environments"][-1]
    here = {k: v for k, v in latest.items() if k != "block"} == asked["environment"]
    tolerance = SAME_MACHINE if here and asked["environment"]["device"].startswith("cpu") else ELSEWHERE
    names = [*asked["content"], *(name for name in found["content"] if name not in asked["content"])]
    for name in names:
        if not _agrees(found["content"].get(name), asked["content"].get(name), tolerance):
            there = "" if here else f" It was begun in another environment: {_changes(latest, asked['environment'])}."
            raise ValueError(f"{other}: the model or the kernel is not the same ({name} differs).{there}")


def environment_warning(latest: Mapping[str, Any], now: Mapping[str, str]) -> str | None:
    """What to say if a run is continued elsewhere than where its last blocks were computed."""
    if {k: v for k, v in latest.items() if k != "block"} == now:
        return None
    return (
        f"the run was written so far with {_changes(latest, now)}: it goes on, but that the draws are those of an "
        "uninterrupted run bit for bit is not promised."
    )


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {old.get(k)} (now {v})" for k, v in new.items() if old.get(k) != v)


def _agrees(old: Any, new: Any, tolerance: float) -> bool:
    if old is None or new is None:
        return False
    if old["digest"] == new["digest"]:
        return True
    one, two = old.get("numbers"), new.get("numbers")
    if one is None or two is None or len(one) != len(two):
        return False
    return bool(np.allclose(one, two, rtol=0, atol=tolerance * max(old["size"], new["size"]), equal_nan=True))
