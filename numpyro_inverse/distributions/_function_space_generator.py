"""A generator of functions: a learned prior whose law does not know the grid that it is seen on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from numpyro_inverse._checks import check_callable, check_instance, check_real, describe
from numpyro_inverse.distributions._pushforward import Pushforward
from numpyro_inverse.distributions._reparametrized import has_base, unwrapped
from numpyro_inverse.domains import Domain
from numpyro_inverse.domains._projections import domain_points
from numpyro_inverse.operators._linear_operator import LinearOperator


class FunctionSpaceGenerator(Pushforward):
    r"""The law of a random function :math:`u(x) = \ell\bigl(\sum_k G(z)_k\, \phi_k(x)\bigr)`, :math:`z \sim \mu`, seen
    at the points of a domain.

    The latent z, the network G and the functions :math:`\phi_k` are the same whatever the domain. So the values on any
    two domains, and at any points, are those of one function, and their laws are projections of each other exactly, as
    :func:`~numpyro_inverse.calibration.check_projective_consistency` confirms. A network that acts on the output's
    pixels has another law on functions at each resolution, or none.

    The functions come from ``inner``: a :class:`~numpyro_inverse.domains.Grid`, where :math:`G(z)` are the values at
    its cells, continued by the trigonometric series of its boundary condition; an
    :class:`~numpyro_inverse.domains.Eigenbasis` of a mesh, where they are coefficients; or a mesh, where they are the
    values at the nodes. The latent is a finite one, or a field such as ``Matern(inner, ...)``, which is sampled by its
    white noise.

    Like every :class:`Pushforward`, it has no density: sample it whitened. For a prior that excludes no truth, use
    ``Pushforward(law.generator, law.base_dist, residual=...)``.

    >>> from numpyro_inverse.domains import Grid
    >>> latent = dist.Normal(0.0, 1.0).expand([4]).to_event(1)
    >>> law = FunctionSpaceGenerator(lambda z: jnp.tanh(z), latent, Grid(4), Grid(12))
    >>> law.on(Grid(50)).event_shape
    (50,)

    Args:
        generator: G, any function of one latent that returns an array of shape ``inner.shape``: an Equinox module, such
            as ``vae.decode`` of a :class:`~numpyro_inverse.nn.FunctionVAE`, or a Python function.
        latent: :math:`\mu`, a NumPyro distribution without batch shape.
        inner: what has a ``shape`` and an ``interpolation(points)`` from arrays of that shape to values at points.
        domain: where the function is seen: a domain whose points are inside of ``inner``, or an array of points of
            shape ``(m, d)``.
        link: :math:`\ell`, a function that acts on each value, such as ``jnp.exp``; default: none.

    Raises:
        TypeError: ``generator`` or ``link`` is no function, ``latent`` no distribution, ``inner`` without a shape or an
            interpolation, ``domain`` neither a domain nor points.
        ValueError: as :class:`Pushforward`; points outside of ``inner``; a generator or a link of another shape.

    References:
        Kovachki et al., JMLR 24 (2023) 1-97, section 2 (discretization invariance); Lu et al., Nature Machine
        Intelligence 3 (2021) 218-229 (a network for the coefficients and functions of the place).
    """

    pytree_data_fields = ("_inner", "_domain", "_latent")

    def __init__(
        self,
        generator: Callable[[Float[Array, "*latent"]], Float[Array, "*inner"]],
        latent: Distribution,
        inner: Any,
        domain: Domain | Float[Array, "m d"],
        *,
        link: Callable[[Array], Array] | None = None,
        validate_args: bool | None = None,
    ):
        name = "FunctionSpaceGenerator"
        check_callable(name, "generator", generator)
        if link is not None:
            check_callable(name, "link", link)
        check_instance(name, "latent", latent, Distribution, "a NumPyro distribution")
        if not callable(getattr(inner, "interpolation", None)) or not isinstance(getattr(inner, "shape", None), tuple):
            raise TypeError(
                f"{name}: `inner` must have a `shape` and an `interpolation(points)`, as a Grid, a Mesh and an "
                f"Eigenbasis do; got {describe(inner)}."
            )
        self._inner = inner
        self._domain = domain if isinstance(domain, Domain) else None
        at = inner.interpolation(_points(name, domain))
        shape = tuple(domain.shape) if isinstance(domain, Domain) else at.out_shape
        core: Any = unwrapped(latent)
        through, base = None, latent
        if has_base(latent):  # perhaps several of one event, by `expand` and `to_event`
            several = latent.shape()[: len(latent.shape()) - core.event_dim]
            base = core.base_dist.expand(several).to_event(len(several) - len(latent.batch_shape))
            through = core
        self._latent = latent
        composed = _Seen(generator, through, at, link, tuple(inner.shape), shape)
        super().__init__(composed, base, validate_args=validate_args)
        if self.event_shape != shape:
            raise ValueError(f"{name}: `link` must act on each value; it takes {shape} of them to {self.event_shape}.")

    @property
    def domain(self) -> Any:
        """Where the function is seen, or None at scattered points."""
        return self._domain

    def on(self, domain: Domain | Float[Array, "m d"]) -> FunctionSpaceGenerator:
        """The same law on functions, seen on another domain, or at points of shape ``(m, d)``."""
        seen: Any = self.generator
        return FunctionSpaceGenerator(seen.generator, self._latent, self._inner, domain, link=seen.link)


class _Seen(eqx.Module):
    """From a latent to the values of its function."""

    generator: Callable[[Array], Array]
    latent: Any
    at: LinearOperator
    link: Callable[[Array], Array] | None
    inner_shape: tuple[int, ...] = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, z: Array) -> Array:
        found = self.generator(z if self.latent is None else self.latent.from_base(z))
        if getattr(found, "shape", None) != self.inner_shape:
            raise ValueError(
                f"`generator` must return an array of the shape of `inner`, {self.inner_shape}; got "
                f"{getattr(found, 'shape', type(found).__name__)}."
            )
        values = self.at(found).reshape(self.shape)
        return values if self.link is None else self.link(values)


def _points(name: str, domain: Any) -> np.ndarray:
    if isinstance(domain, Domain):
        return domain_points(domain)
    if not isinstance(domain, np.ndarray | jnp.ndarray | list | tuple):
        raise TypeError(f"{name}: `domain` must be a domain, or points of shape (m, d); got {describe(domain)}.")
    return np.asarray(check_real(name, "domain", np.asarray(domain)), float)
