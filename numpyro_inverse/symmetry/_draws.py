"""Draws moved along their orbits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from numpyro_inverse._checks import check_count, check_instance, check_key, check_model_call, check_numeric
from numpyro_inverse._model import abstract_trace, latent_sites
from numpyro_inverse.symmetry._check_invariance import check_invariance
from numpyro_inverse.symmetry._group import finite
from numpyro_inverse.symmetry._symmetry import Symmetry, Values

Draws = Mapping[str, Any]  # arrays by site, draws first
CHECKED = 16  # draws at which the model's invariance is measured


def canonicalize(
    draws: Draws, symmetry: Symmetry, reference: Values | None = None, *, batch_ndims: int = 1
) -> dict[str, Array]:
    """Draws of the canonical forms: what is left of a posterior when the symmetry is divided out (its law on a
    fundamental domain).

    Means, intervals, R-hat and effective sizes of these say something; those of the draws themselves may not.

    Args:
        draws: by site, draws first.
        symmetry: its sites are moved; others, also those computed from them in the model, stay as they are.
        reference: one value by symmetric site, to which the draws are brought near: an estimate, or a draw. Without, a
            fixed array of falling numbers.
        batch_ndims: leading axes of draws: 1, or 2 for (chain, draw).

    Raises:
        TypeError: no symmetry, ``draws`` or ``reference`` no numbers by site.
        ValueError: a symmetric site that is missing, or of a shape that the group does not act on; sites with other
            numbers of draws; a ``reference`` that is not finite.
    """
    check_instance("canonicalize", "symmetry", symmetry, Symmetry, "a Symmetry")
    if reference is not None:
        symmetry.check_sites("canonicalize", reference, "reference")
        reference = {name: finite("canonicalize", reference[name], "reference") for name in symmetry.sites}
    return _each_draw(partial(_canonical, symmetry, reference), draws, symmetry, "canonicalize", batch_ndims)


def _canonical(symmetry: Symmetry, reference: Any, values: dict[str, Array]) -> dict[str, Array]:
    return symmetry.canonical(values, reference)


def symmetrize(
    draws: Draws,
    symmetry: Symmetry,
    *,
    rng_key: Key[Array, ""],
    model: Callable | None = None,
    model_args: tuple = (),
    model_kwargs: Mapping[str, Any] | None = None,
    batch_ndims: int = 1,
) -> dict[str, Array]:
    """Each draw moved by an element of its own, uniform on the group.

    If the posterior is invariant, and the draws have the right law *but for which copy they are in*, the moved draws
    have the posterior's law. Never look at R-hat or effective sizes of what comes out: they are good whatever went in.

    Args:
        draws: by site, draws first.
        symmetry: its sites are moved; others, also those computed from them in the model, stay as they are.
        rng_key: of the elements.
        model: whose posterior this is; its invariance is then measured at some of the draws.
        model_args: the model's arguments, data included.
        model_kwargs: likewise its keyword arguments.
        batch_ndims: leading axes of draws: 1, or 2 for (chain, draw).

    Raises:
        TypeError: no symmetry, ``draws`` no numbers by site, no random key, no model.
        ValueError: the model is not invariant; the sites that break the symmetry are named. A group that is not
            compact.
    """
    check_instance("symmetrize", "symmetry", symmetry, Symmetry, "a Symmetry")
    check_key("symmetrize", "rng_key", rng_key)
    _lengths(draws, symmetry, "symmetrize", batch_ndims)
    if not symmetry.group.is_compact:
        symmetry.sample(rng_key)  # says why not
    if model is not None:
        model, model_args, model_kwargs = check_model_call("symmetrize", model, model_args, model_kwargs)
        latent = latent_sites(abstract_trace(model, model_args, model_kwargs))
        flat = {name: _flat(draws[name], batch_ndims) for name in latent if name in draws}
        number = len(next(iter(flat.values()))) if flat else 0
        some = {name: x[np.linspace(0, number - 1, min(CHECKED, number)).astype(int)] for name, x in flat.items()}
        found = check_invariance(
            model, symmetry, rng_key=rng_key, model_args=model_args, model_kwargs=model_kwargs, values=some
        )
        if not found.holds:
            raise ValueError(
                f"symmetrize: the model is {found} Draws moved at random would not be of its posterior; sample it with "
                "`OrbitMoves`, which keeps the Metropolis ratio."
            )

    def moved(values: dict[str, Array], key: Array) -> dict[str, Array]:
        return symmetry.action(symmetry.sample(key), values)

    return _each_draw(moved, draws, symmetry, "symmetrize", batch_ndims, rng_key)


def _each_draw(
    function: Callable, draws: Draws, symmetry: Symmetry, where: str, batch_ndims: int, rng_key: Any = None
) -> dict[str, Array]:
    """The function of the symmetric sites of every draw."""
    _lengths(draws, symmetry, where, batch_ndims)
    flat = {name: _flat(draws[name], batch_ndims) for name in symmetry.sites}
    keys = () if rng_key is None else (jax.random.split(rng_key, len(next(iter(flat.values())))),)
    moved = jax.jit(jax.vmap(function))(flat, *keys)
    return dict(draws) | {name: moved[name].reshape(jnp.shape(draws[name])) for name in symmetry.sites}


def _lengths(draws: Draws, symmetry: Symmetry, where: str, batch_ndims: int) -> None:
    """Raise unless the symmetric sites have arrays of numbers, with the same leading axes."""
    count = check_count(where, "batch_ndims", batch_ndims)
    symmetry.check_sites(where, draws, "draws")
    leading = {name: np.shape(check_numeric(where, f"draws[{name!r}]", draws[name]))[:count] for name in symmetry.sites}
    for name, found in leading.items():
        if len(found) < count or 0 in found:
            raise ValueError(
                f"{where}: `draws[{name!r}]` must have draws along {count} leading axes (`batch_ndims`); got shape "
                f"{np.shape(draws[name])}."
            )
    if len(set(leading.values())) > 1:
        raise ValueError(f"{where}: `draws` must have as many draws of each site; got {leading}.")


def _flat(x: Any, batch_ndims: int) -> Array:
    shape = jnp.shape(x)
    return jnp.reshape(jnp.asarray(x), (prod(shape[:batch_ndims]), *shape[batch_ndims:]))
