"""Autoencoders of functions fitted to fields at mixed resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_finite, check_instance, check_key, describe
from numpyro_inverse.domains import Domain
from numpyro_inverse.domains._projections import domain_points
from numpyro_inverse.nn._fit_module import fit_module
from numpyro_inverse.nn._function_vae import FunctionVAE
from numpyro_inverse.nn._training import Fit, settings_from, training_rows

Rows = tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m d"], Float[np.ndarray, "n m"]]


def pad_fields(fields: Sequence[tuple[Domain, Float[Array, "n *shape"]]], *, key: PRNGKeyArray) -> Rows:
    """Fields on several domains as rows of one length: values, points and quadrature weights, which add up to one and
    are zero where a row is filled up.

    Args:
        fields: pairs of a domain and the fields on it, first axis over fields.
        key: by which rows are shuffled, so that those held out are of all kinds.

    Raises:
        TypeError: what is no domain, or no array of real numbers.
        ValueError: nothing; fields of another shape than the domain's; numbers that are not finite; domains of several
            dimensions.
    """
    name = "pad_fields"
    check_key(name, "key", key)
    check_instance(name, "fields", fields, Sequence, "pairs of a domain and fields")
    for pair in fields:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"{name}: `fields` must be pairs of a domain and fields; got {describe(pair)}.")
    parts, most = [], max((getattr(domain, "size", 0) for domain, _ in fields), default=0)
    for domain, values in fields:
        if not isinstance(domain, Domain):
            raise TypeError(f"{name}: `fields` must be pairs of a domain and fields; got {describe(domain)}.")
        values = np.asarray(check_finite(name, "fields", values))
        if not values.ndim or values.shape[1:] != tuple(domain.shape):
            raise ValueError(
                f"{name}: `fields` must have their domain's shape, rows first; fields on a domain of shape "
                f"{domain.shape} have shape {values.shape}."
            )
        n, empty = len(values), most - domain.size
        weights = np.asarray(domain.weights, float).ravel()
        rows = values.reshape(n, -1), domain_points(domain)[None], (weights / weights.sum())[None]
        widths = ((0, 0), (0, empty))
        padded = [np.pad(row, (*widths, (0, 0)) if row.ndim == 3 else widths) for row in rows]
        parts.append([np.broadcast_to(row, (n, *row.shape[1:])).astype(np.float32) for row in padded])
    if not parts or len({part[1].shape[-1] for part in parts}) > 1:
        raise ValueError(f"{name}: `fields` must be pairs of domains of one dimension, at least one; got {len(parts)}.")
    order = np.asarray(jax.random.permutation(key, sum(len(part[0]) for part in parts)))
    values, points, weights = (np.concatenate(arrays)[order] for arrays in zip(*parts, strict=True))
    return values, points, weights


def fit_function_vae(vae: FunctionVAE, data: Rows, *, key: PRNGKeyArray, **settings: Any) -> Fit:
    r"""Fits both networks and the scale by maximizing the evidence lower bound, :meth:`FunctionVAE.elbo`.

    Args:
        vae: what is fitted.
        data: values of shape ``(n, m)``, points ``(n, m, d)`` and weights ``(n, m)`` with rows that add up to one; see
            :func:`pad_fields`.
        key: of all randomness.
        **settings: of :class:`~numpyro_inverse.nn.TrainingSettings`.

    Returns:
        The autoencoder with the best held-out bound, and the losses, minus the bound in nats per field.

    Raises:
        TypeError: ``vae`` is no :class:`FunctionVAE`, ``key`` no random key.
        ValueError: as :func:`~numpyro_inverse.nn.train`; arrays of other shapes; weights that do not add up to one;
            points outside of the inner grid.
    """
    name = "fit_function_vae"
    if not isinstance(vae, FunctionVAE):
        raise TypeError(f"{name}: `vae` must be a FunctionVAE; got {describe(vae)}.")
    chosen = settings_from(name, settings)
    check_key(name, "key", key)
    training_rows(data, chosen, name)
    if not isinstance(data, tuple | list) or len(data) != 3:
        raise ValueError(
            f"{name}: `data` must be values, points and weights, as `pad_fields` makes; got {describe(data)}."
        )
    values, points, weights = data
    d = vae.inner.ndim
    if values.ndim != 2 or points.shape != (*values.shape, d) or weights.shape != values.shape:
        raise ValueError(
            f"{name}: `data` must be values (n, m), points (n, m, {d}) and weights (n, m); got shapes "
            f"{[np.shape(a) for a in data]}."
        )
    extent = np.asarray(vae.inner.extent)
    if np.any(np.abs(np.sum(weights, axis=1) - 1) > 1e-3) or np.any(np.asarray(weights) < 0):
        raise ValueError(f"{name}: in `data`, the weights of each row must add up to one, and none may be negative.")
    if np.any((np.asarray(points) < 0) | (points > extent * (1 + 1e-6))):
        raise ValueError(
            f"{name}: in `data`, `points` must lie in the box of the inner grid, up to {tuple(extent.tolist())}."
        )

    def loss(vae: FunctionVAE, batch: Any, key: PRNGKeyArray) -> Float[Array, ""]:
        values, points, weights = (jnp.asarray(leaf, jnp.result_type(float)) for leaf in batch)
        return -jnp.mean(jax.vmap(vae.elbo)(values, points, weights, jax.random.split(key, len(values))))

    return fit_module(vae, loss, data, key=key, settings=chosen, name=name)
