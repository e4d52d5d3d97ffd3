"""Matérn fields whose range, scale and directions vary."""

from __future__ import annotations

from math import lgamma, log, pi
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_broadcast, check_finite, check_instance, check_positive, is_traced
from numpyro_inverse.distributions._matern_equation import check_order
from numpyro_inverse.distributions._matern_mesh import MaternMesh
from numpyro_inverse.distributions._precision_factors import PrecisionFactors
from numpyro_inverse.domains import ElementMatrices, Mesh


class NonstationaryMatern(MaternMesh):
    r"""A Gaussian field on a mesh with range and scale of each place, and a tensor of directions.

    The solution of :math:`(\kappa(x)^2 - \nabla \cdot H \nabla)^{\alpha/2} (\tau(x) u) = \mathcal W`, with
    :math:`\kappa(x) = \sqrt{8 \nu} / \rho(x)`, in piecewise linear finite elements. With the mass matrix :math:`C`,
    :math:`K_{ij} = \int \kappa^2 \phi_i \phi_j + \nabla \phi_i \cdot H \nabla \phi_j` and :math:`T` the diagonal matrix
    of :math:`\tau`,

    .. math:: Q_1 = T K T, \qquad Q_2 = T K C^{-1} K T, \qquad
        T^{-1} Q_\alpha T^{-1} = K C^{-1} (T^{-1} Q_{\alpha - 2} T^{-1}) C^{-1} K,

    .. math:: \tau(x)^2 = \frac{\Gamma(\nu)}{\Gamma(\alpha) (4 \pi)^{d/2} \det(H)^{1/2} \kappa(x)^{2 \nu} \sigma(x)^2} .

    Where range and scale are constant the covariance is Matérn's at the distance :math:`|H^{-1/2} (x - y)|`: the range
    in the direction of an eigenvector of H is :math:`\rho` times the root of its eigenvalue, and the standard deviation
    :math:`\sigma`. Where they vary, so slowly that they are nearly constant over a range, that holds nearly. The mean
    of :math:`\kappa^2` over the corners stands for it in each simplex. The boundary is Neumann's.

    Let range and scale be log-linear in functions of the place, with priors on the coefficients:

    >>> from numpyro_inverse.domains import ElementMatrices, Mesh
    >>> mesh = Mesh(np.linspace(0.0, 1.0, 6), np.stack([np.arange(5), np.arange(1, 6)], axis=1))
    >>> functions = np.stack([np.ones(6), mesh.points[:, 0]], axis=1)
    >>> range_ = jnp.exp(functions @ jnp.array([-1.0, 0.5]))
    >>> NonstationaryMatern(ElementMatrices(mesh), range=range_, scale=1.0, smoothness=1.5).event_shape
    (6,)

    Args:
        elements: the finite-element matrices, ``ElementMatrices(mesh)``.
        range: :math:`\rho > 0` in length units: a number, or an array that ends in one value a node and broadcasts to
            ``batch + (n,)``.
        scale: :math:`\sigma > 0`, likewise.
        smoothness: as on a mesh: :math:`\alpha` is 1, 2, 3 or 4.
        anisotropy: H, a symmetric positive definite matrix of shape ``(d, d)``, without unit; default: none. With
            determinant one, it turns and stretches without changing the area over which the field is correlated.
        mean: a number or an array that broadcasts to ``batch + (n,)``.

    Raises:
        TypeError: ``elements`` of another kind, a parameter that is no real number, a ``smoothness`` that is traced.
        ValueError: a range or scale that is not positive and finite, shapes that do not fit, an ``anisotropy`` that is
            not symmetric and positive definite, or on a surface. A traced parameter gives NaN instead.

    References:
        Lindgren, Rue & Lindström, JRSS B 73 (2011) 423-498, section 3.2; Fuglstad, Lindgren, Simpson & Rue, Statistica
        Sinica 25 (2015) 115-133 (anisotropy).
    """

    pytree_data_fields = ("_elements", "_anisotropy")
    _one = "(n)"

    def __init__(
        self,
        elements: ElementMatrices,
        *,
        range: float | Float[Array, "*batch n"],
        scale: float | Float[Array, "*batch n"],
        smoothness: float,
        anisotropy: Float[Array, "d d"] | None = None,
        mean: float | Float[Array, "..."] = 0.0,
        validate_args: bool | None = None,
    ):
        name = "NonstationaryMatern"
        what = "an ElementMatrices(mesh)"
        self._elements = check_instance(name, "elements", elements, ElementMatrices, what)
        self.domain = mesh = elements.mesh
        n = mesh.size
        self.smoothness, self.order = check_order(smoothness, mesh.manifold_dim)
        self.robin_coefficient = 0.0
        given = {
            "range": check_positive(name, "range", range),
            "scale": check_positive(name, "scale", scale),
            "mean": check_finite(name, "mean", mean),
        }
        for argument, value in given.items():
            if np.ndim(value) and np.shape(value)[-1] not in (1, n):
                raise ValueError(
                    f"{name}: `{argument}` must be a number, or end in one value for each of the {n} nodes; got shape "
                    f"{np.shape(value)}."
                )
        batch = check_broadcast(name, **{argument: np.shape(value)[:-1] for argument, value in given.items()})
        dtype = jnp.result_type(float, *given.values())
        self.range, self.scale = (_at_nodes(given[argument], batch, n, dtype) for argument in ("range", "scale"))
        self._mean = jnp.asarray(given["mean"], dtype)
        self._anisotropy = None if anisotropy is None else _tensor(name, anisotropy, mesh, dtype)
        super(MaternMesh, self).__init__(batch, (n,), validate_args=validate_args)

    @property
    def anisotropy(self) -> Float[Array, "d d"] | None:
        """H."""
        return self._anisotropy

    def ritz_projection(self, coarse: Mesh) -> Any:
        """There is none, for range and scale are known at the nodes of this mesh only.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("NonstationaryMatern: range and scale are not known on another mesh.")

    def precision_factors(self) -> PrecisionFactors:
        r"""The precision of one field by sparse matrices on ``precision_entries``: :math:`K T`, or :math:`T K T`."""
        pattern, values = self.domain.pattern, self._values(self.range)
        tau = jnp.exp(0.5 * self._log_unit_precision(self.range)) / self.scale
        rows, cols = tau[pattern.rows], tau[pattern.cols]
        logdet = self._unit_logdet(self.range) - 2 * self._log_scale_total()
        if self.order == 1:
            return PrecisionFactors(values * rows * cols, None, None, logdet, 0.0)
        return PrecisionFactors(
            values * cols, values * rows, self._noise.mass.astype(values.dtype), logdet, self._noise_logdet
        )

    @property
    def _scale_at_nodes(self) -> Array:
        return self.scale

    def _log_scale_total(self) -> Array:
        return jnp.sum(jnp.log(self.scale), axis=-1)

    def _values(self, range: Array) -> Array:
        tensor = self._anisotropy
        stiffness = self.domain.stiffness if tensor is None else self._elements.stiffness(tensor)
        return self._elements.mass(self._kappa(range) ** 2) + stiffness

    def _log_unit_precision(self, range: Array) -> Array:
        """At each node."""
        nu, d = self.smoothness, self.domain.manifold_dim
        constant = lgamma(nu) - lgamma(self.order) - d / 2 * log(4 * pi)
        tensor = self._anisotropy
        volume = 0.0 if tensor is None else 0.5 * jnp.linalg.slogdet(tensor)[1]
        return constant - volume - 2 * nu * jnp.log(self._kappa(range))

    def _unit_quadratic(self, range: Array, residual: Array) -> Array:
        return self._squares(range, jnp.exp(0.5 * self._log_unit_precision(range)) * residual)

    def _unit_logdet(self, range: Array) -> Array:
        return self._logdet(range) + jnp.sum(self._log_unit_precision(range))


def _at_nodes(value: Any, batch: tuple[int, ...], n: int, dtype: Any) -> Array:
    array = jnp.asarray(value, dtype)
    array = jnp.where(array > 0, array, jnp.nan) if is_traced(value) else array
    return jnp.broadcast_to(array, (*batch, n))


def _tensor(name: str, anisotropy: Any, mesh: Mesh, dtype: Any) -> Array:
    check_finite(name, "anisotropy", anisotropy)
    if mesh.manifold_dim != mesh.ndim:
        raise ValueError(f"{name}: `anisotropy` needs fixed directions, which a surface in space does not have.")
    if np.shape(anisotropy) != (mesh.ndim, mesh.ndim):
        raise ValueError(
            f"{name}: `anisotropy` must have shape ({mesh.ndim}, {mesh.ndim}); got shape {np.shape(anisotropy)}."
        )
    tensor = jnp.asarray(anisotropy, dtype)
    if not is_traced(anisotropy):
        matrix = np.asarray(anisotropy, float)
        if not np.allclose(matrix, matrix.T, rtol=1e-5) or np.linalg.eigvalsh(matrix)[0] <= 0:
            raise ValueError(f"{name}: `anisotropy` must be symmetric and positive definite; got {matrix.tolist()}.")
        return tensor
    good = jnp.linalg.eigvalsh(tensor)[0] > 0
    return jnp.where(good, tensor, jnp.nan)
