"""A variational autoencoder of functions: fields at any points in, functions out."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import Distribution, Normal

from numpyro_inverse._checks import check_callable, check_instance, check_key, check_positive, check_positive_number
from numpyro_inverse.domains import Grid
from numpyro_inverse.nn._networks import check_counts, check_event
from numpyro_inverse.nn._vae import kl_to_white


class FunctionVAE(eqx.Module):
    r"""The model :math:`z \sim N(0, I_k)`, :math:`u(x) = \ell(\sum_j c_j(z)\, \phi_j(x))` plus noise of standard
    deviation s, with the cosines :math:`\phi_j` of a fixed inner grid, which form an orthonormal basis of functions.

    The encoder sees a field by the integrals :math:`\int u\, \phi_j`, taken by quadrature with the weights of its
    points, and the loss by the integral of the squared error, so that neither knows at which points the field was
    given: rows of one batch may be fields on different grids, or at scattered points.

    ``vae.decode`` gives the values on the inner grid, before the link; with it
    ``FunctionSpaceGenerator(vae.decode, vae.latent, vae.inner, domain, link=vae.link)`` is the prior.

    Args:
        inner: the grid whose cosines are used, with Neumann's boundary condition. Its box is that of the fields.
        latent_size: k.
        width: of two hidden layers, in both networks, which are a linear map and a perceptron added up: without the
            perceptron the model would be probabilistic principal components.
        scale: s before training; it is learned.
        link: :math:`\ell`, a function of each value, such as ``jnp.tanh`` for fields between -1 and 1; default: none.
        key: of the initial weights.

    Raises:
        TypeError: ``inner`` is no grid, ``link`` no function, a count no integer, the scale no number, or ``key`` no
            random key.
        ValueError: another boundary condition, a count below 1, a scale that is not positive.

    References:
        Kingma & Welling, ICLR 2014 (the bound); Bhattacharya et al., SMAI J. Comput. Math. 7 (2021) 121-157 (networks
        between coefficients of functions).
    """

    encoder: _Network
    decoder: _Network
    log_scale: Float[Array, ""]
    link: Callable[[Array], Array] | None = eqx.field(static=True)
    inner: Grid = eqx.field(static=True)
    latent_size: int = eqx.field(static=True)

    def __init__(
        self,
        inner: Grid,
        latent_size: int,
        *,
        width: int = 96,
        scale: float = 0.1,
        link: Callable[[Array], Array] | None = None,
        key: PRNGKeyArray,
    ):
        name = "FunctionVAE"
        check_instance(name, "inner", inner, Grid, "a Grid")
        if set(inner.boundary) != {"neumann"}:
            raise ValueError(f'{name}: `inner` must have the boundary "neumann"; got {inner.boundary}.')
        check_counts(name, latent_size=latent_size, width=width)
        check_positive(name, "scale", check_positive_number(name, "scale", scale))
        if link is not None:
            check_callable(name, "link", link)
        first, second = jax.random.split(check_key(name, "key", key))
        k = latent_size
        self.encoder = _Network(inner.size, 2 * k, width, key=first)
        self.decoder = _Network(k, inner.size, width, key=second)
        self.log_scale = jnp.log(jnp.asarray(scale, jnp.result_type(float)))
        self.link, self.inner, self.latent_size = link, inner, k

    @property
    def scale(self) -> Float[Array, ""]:
        """s, root mean square of a field about its decoded latent."""
        return jnp.exp(self.log_scale)

    @property
    def latent(self) -> Distribution:
        """The law of z."""
        return Normal(0.0, 1.0).expand([self.latent_size]).to_event(1)

    def decode(self, z: Float[Array, " k"]) -> Float[Array, "*inner"]:
        """The function of a latent, before the link, by its values at the cells of the inner grid."""
        return self.inner.inverse_transform(self.coefficients(z)) * np.sqrt(self.inner.size)

    def coefficients(self, z: Float[Array, " k"]) -> Float[Array, "*inner"]:
        r""":math:`c(z)`, of cosines whose mean square is one."""
        return self.decoder(check_event("FunctionVAE", "z", z, (self.latent_size,))).reshape(self.inner.shape)

    def evaluate(self, z: Float[Array, " k"], points: Float[Array, "m d"]) -> Float[Array, " m"]:
        """The function of a latent at points of the box, which may be traced."""
        values = self.coefficients(z)
        factors = self._cosines(points)
        values = factors[0] @ values.reshape(values.shape[0], -1)
        for factor in factors[1:]:
            values = jnp.sum(factor[:, :, None] * values.reshape(*factor.shape, -1), axis=1)
        return values[:, 0] if self.link is None else self.link(values[:, 0])

    def encode(
        self, values: Float[Array, " m"], points: Float[Array, "m d"], weights: Float[Array, " m"]
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        r"""Means and logarithms of standard deviations of the latent of a field, given at points with weights that add
        up to one."""
        *others, last = self._cosines(points)
        values, weights = (
            check_event("FunctionVAE", name, value, (len(last),))
            for name, value in (("values", values), ("weights", weights))
        )
        sums = (weights * values)[:, None]
        for factor in others:
            sums = (sums[:, :, None] * factor[:, None, :]).reshape(len(last), -1)
        m, log_sd = jnp.split(self.encoder(jnp.ravel(sums.T @ last)), 2)
        return m, log_sd

    def elbo(
        self,
        values: Float[Array, " m"],
        points: Float[Array, "m d"],
        weights: Float[Array, " m"],
        key: PRNGKeyArray,
    ) -> Float[Array, ""]:
        r"""Unbiased estimate, by one draw, of the lower bound per field, in nats, with :math:`J` values' worth of data,
        the size of the inner grid, however many points there are:

        .. math:: -J\, E_q \Bigl[ \frac{1}{2 s^2} \sum_i w_i (u_i - u(x_i; z))^2 + \log s + \tfrac12 \log 2 \pi \Bigr]
            - \operatorname{KL}(q \,\|\, N(0, I)) .
        """
        check_key("FunctionVAE", "key", key)
        m, log_sd = self.encode(values, points, weights)
        z = m + jnp.exp(log_sd) * jax.random.normal(key, m.shape, m.dtype)
        square = jnp.sum(jnp.asarray(weights) * (jnp.asarray(values) - self.evaluate(z, points)) ** 2)
        of_data = 0.5 * square / self.scale**2 + self.log_scale + 0.5 * jnp.log(2 * jnp.pi)
        return -self.inner.size * of_data - kl_to_white(m, log_sd)

    def _cosines(self, points: Float[Array, "m d"]) -> list[Float[Array, "m n"]]:
        """The functions along each axis, of mean square one."""
        points, found = check_event("FunctionVAE", "points", points, (None, self.inner.ndim)), []
        for a, (n, length) in enumerate(zip(self.inner.shape, self.inner.extent, strict=True)):
            front = jnp.where(np.arange(n) == 0, 1.0, np.sqrt(2.0)).astype(points.dtype)
            found.append(front * jnp.cos(np.pi / length * points[:, a, None] * np.arange(n)))
        return found


class _Network(eqx.Module):
    linear: eqx.nn.Linear
    rest: eqx.nn.MLP

    def __init__(self, size: int, out: int, width: int, *, key: PRNGKeyArray):
        one, two = jax.random.split(key)
        self.linear = eqx.nn.Linear(size, out, key=one)
        self.rest = eqx.nn.MLP(size, out, width, 2, jax.nn.gelu, key=two)

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " out"]:
        return self.linear(x) + self.rest(x)
