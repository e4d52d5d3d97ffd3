"""The Whittle-Matérn field in the eigenfunctions of a mesh."""

from __future__ import annotations

from math import log, pi
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc, gammaln
from jaxtyping import Array, Float
from numpyro.distributions import Normal, constraints

from numpyro_inverse._checks import check_broadcast, check_finite, check_instance, check_positive, is_traced
from numpyro_inverse.distributions._normal_sequence import NormalSequence
from numpyro_inverse.distributions._reparametrized import ReparametrizedDistribution
from numpyro_inverse.domains import Eigenbasis


class MaternKL(ReparametrizedDistribution):
    r"""A Gaussian field with Matérn covariance in the first :math:`m` eigenfunctions of a mesh's Laplacian:

    .. math:: u = \mu + \sum_{k < m} a_k z_k \phi_k, \qquad a_k^2 = \tau^{-2} (\kappa^2 + \lambda_k)^{-\alpha}, \qquad
        \tau^2 = \frac{\Gamma(\nu)}{\Gamma(\alpha) (4 \pi)^{d/2} \kappa^{2 \nu} \sigma^2},

    with :math:`\alpha = \nu + d/2` and :math:`\kappa = \sqrt{8 \nu} / \rho`. Exact in range, scale and smoothness, any
    of which may be sampled, and cheap: one product with an :math:`n \times m` matrix. The smoothness is any positive
    number. As each coefficient has its own amplitude, :func:`~numpyro_inverse.infer.fit_coordinates` chooses how far to
    center it. The boundary condition is Neumann's; let the mesh reach a range further than the data.

    What is missing is the share of the variance in the modes left out, :attr:`lost_variance`. In the plane it is about
    :math:`(1 + \lambda_m / \kappa^2)^{-\nu}`, with :math:`\lambda_m \approx 4 \pi m / |D|`: one percent at smoothness 1
    needs :math:`m \approx 63 |D| / \rho^2` modes.

    The law has no density, for it lives in :math:`m` dimensions; sample it whitened. Where the data read the field at
    fewer places than the mesh has nodes, sample its :attr:`coefficients` instead, which have one, and read them by
    :meth:`Eigenbasis.interpolation() <numpyro_inverse.domains.Eigenbasis.interpolation>`: the cost is that of a matrix
    of the places by the modes.

    Args:
        basis: the eigenfunctions, ``Eigenbasis(mesh, num_modes)``.
        range: :math:`\rho > 0` in length units, of any batch shape.
        scale: marginal standard deviation :math:`\sigma > 0`.
        smoothness: :math:`\nu > 0`.
        mean: a number or an array that broadcasts to ``batch + basis.mesh.shape``.

    Raises:
        TypeError: ``basis`` is no eigenbasis, or a parameter is no real number.
        ValueError: a range, scale or smoothness that is not positive and finite, or shapes that do not fit. A
            traced one gives NaN instead.

    References:
        Lindgren, Rue & Lindström, JRSS B 73 (2011) 423-498, eq. 2; Solin & Särkkä, Statistics and Computing 30 (2020)
        419-446 (the expansion, on boxes).
    """

    arg_constraints = {  # noqa: RUF012
        "range": constraints.positive,
        "scale": constraints.positive,
        "smoothness": constraints.positive,
    }
    support = constraints.real_vector
    reparametrized_params = ["range", "scale", "smoothness"]  # noqa: RUF012
    pytree_data_fields = ("basis", "range", "scale", "smoothness", "_mean")

    def __init__(
        self,
        basis: Eigenbasis,
        *,
        range: float | Float[Array, "*batch"],
        scale: float | Float[Array, "*batch"],
        smoothness: float | Float[Array, "*batch"],
        mean: float | Float[Array, "..."] = 0.0,
        validate_args: bool | None = None,
    ):
        name = "MaternKL"
        self.basis = check_instance(name, "basis", basis, Eigenbasis, "an Eigenbasis(mesh, num_modes)")
        given = {"range": range, "scale": scale, "smoothness": smoothness}
        checked = {argument: check_positive(name, argument, value) for argument, value in given.items()}
        mean = check_finite(name, "mean", mean)
        dtype = jnp.result_type(float, mean, *checked.values())
        self._mean = jnp.asarray(mean, dtype)
        n = basis.mesh.size
        if self._mean.ndim and self._mean.shape[-1] not in (1, n):
            raise ValueError(f"{name}: `mean` must broadcast to batch + {(n,)}; got shape {self._mean.shape}.")
        shapes = {argument: jnp.shape(value) for argument, value in checked.items()}
        batch = check_broadcast(name, **shapes, mean=self._mean.shape[:-1])
        for argument, value in checked.items():
            array = jnp.asarray(value, dtype)
            array = jnp.where(array > 0, array, jnp.nan) if is_traced(value) else array
            setattr(self, argument, jnp.broadcast_to(array, batch))
        super().__init__(batch, (n,), validate_args=validate_args)

    @property
    def domain(self):
        """The mesh."""
        return self.basis.mesh

    @property
    def _kappa(self) -> Array:
        return jnp.sqrt(8 * self.smoothness) / self.range

    @property
    def amplitudes(self) -> Float[Array, "*batch m"]:
        """Standard deviations of the coefficients of the eigenfunctions."""
        nu, d, kappa = self.smoothness, self.domain.manifold_dim, self._kappa
        # Of (kappa^2 + lambda)^-alpha the part kappa^(-2 alpha) is put with tau, so that nothing over- or underflows.
        log_first = gammaln(nu + d / 2) - gammaln(nu) + d / 2 * log(4 * pi) - d * jnp.log(kappa)
        ratio = self.basis.eigenvalues / kappa[..., None] ** 2
        log_variance = log_first[..., None] - (nu[..., None] + d / 2) * jnp.log1p(ratio)
        return self.scale[..., None] * jnp.exp(0.5 * log_variance)

    @property
    def coefficients(self) -> NormalSequence:
        """The law of the coefficients of the field's departure from its mean."""
        return NormalSequence(self.amplitudes)

    @property
    def base_dist(self):
        """White noise, one number a mode."""
        white = Normal(jnp.zeros((), self.scale.dtype), 1.0)
        return white.expand((*self.batch_shape, self.basis.num_modes)).to_event(1)

    def from_base(self, z):
        """The field with white coefficients ``z``."""
        return self.from_coefficients(self.amplitudes * z)

    def from_coefficients(self, w: Float[Array, "*batch m"]) -> Float[Array, "*batch n"]:
        """The field with coefficients ``w`` of the eigenfunctions."""
        return self._mean + jnp.einsum("...m,nm->...n", w, self.basis.modes.astype(w.dtype), precision="highest")

    @property
    def lost_variance(self) -> Float[Array, "*batch"]:
        r"""The share of the variance, on average over the mesh, that is in modes beyond the basis.

        By Weyl's law these have :math:`\sigma^2 |D| I_t(\nu, d/2)`, with the regularized incomplete beta function and
        :math:`1/t = 1 + \lambda_m / \kappa^2`; the modes of the basis have :math:`\sum_k a_k^2`.
        """
        t = 1 / (1 + self.basis.eigenvalues[-1] / self._kappa**2)
        beyond = betainc(self.smoothness, jnp.asarray(self.domain.manifold_dim / 2, t.dtype), t)
        beyond = beyond * jnp.sum(self.domain.weights)
        return beyond / (jnp.sum(self.amplitudes**2, axis=-1) / self.scale**2 + beyond)

    @property
    def mean(self):
        """Shape ``batch + domain.shape``."""
        return jnp.broadcast_to(self._mean, self.batch_shape + self.event_shape)

    @property
    def variance(self):
        r"""Variances at the nodes, :math:`\sum_k a_k^2 \phi_k^2`."""
        return jnp.einsum("...m,nm->...n", self.amplitudes**2, self.basis.modes**2, precision="highest")

    def log_prob(self, value: Any) -> Array:
        """There is none.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            f"MaternKL: the law lives in the {self.basis.num_modes} dimensions of its modes and has no density over "
            f"{np.prod(self.event_shape)} nodes. Sample `numpyro_inverse.whiten(model)`, or use `Matern(mesh, ...)`."
        )
