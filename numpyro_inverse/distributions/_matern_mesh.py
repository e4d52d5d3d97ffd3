"""The Whittle-Matérn field on a mesh, by finite elements."""

from __future__ import annotations

from math import factorial, lgamma, log, pi
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import Normal, constraints
from numpyro.distributions.util import validate_sample

from numpyro_inverse._checks import (
    check_broadcast,
    check_finite,
    check_instance,
    check_positive,
    check_real,
    check_trailing,
    is_traced,
    show,
)
from numpyro_inverse.distributions._log_determinant_table import LogDeterminantTable, tabulated
from numpyro_inverse.distributions._mass_functions import (
    mass_inverse,
    mass_inverse_root,
    mass_product,
    mass_root,
    symmetric_product,
)
from numpyro_inverse.distributions._matern_equation import check_order, check_robin
from numpyro_inverse.distributions._precision_factors import Entries, PrecisionFactors
from numpyro_inverse.distributions._reparametrized import ReparametrizedDistribution
from numpyro_inverse.distributions._ritz_projection import RitzProjection, factorized
from numpyro_inverse.distributions._spectral_field import BIAS
from numpyro_inverse.domains import Mesh
from numpyro_inverse.domains._prolongation import prolongation
from numpyro_inverse.sparse import Cholesky

DENSE_LIMIT = 4096


class MaternMesh(ReparametrizedDistribution):
    r"""A Gaussian field with Matérn covariance on a mesh; ``Matern(mesh, ...)`` makes it.

    The solution of :math:`(\kappa^2 - \Delta)^{\alpha/2} (\tau u) = \mathcal W` with :math:`\alpha = \nu + d/2` and
    :math:`\kappa = \sqrt{8 \nu} / \rho` in piecewise linear finite elements. With the mass matrix :math:`C`, stiffness
    matrix :math:`G` and :math:`K = \kappa^2 C + G`, its precision is

    .. math:: Q_1 = \tau^2 K, \qquad Q_2 = \tau^2 K C^{-1} K, \qquad Q_\alpha = K C^{-1} Q_{\alpha - 2} C^{-1} K, \qquad
        \tau^2 = \frac{\Gamma(\nu)}{\Gamma(\alpha) (4 \pi)^{d/2} \kappa^{2 \nu} \sigma^2},

    so :math:`\log\det Q_\alpha = \alpha \log\det K - (\alpha - 1) \log\det C + 2 n \log \tau`. Only the sparse
    :math:`K` is factorized, and :math:`C` is the consistent mass matrix: at edges of an eighth of the range,
    covariances inside are within 1 % of the analytic ones in the mean square, single ones within 1 to 3 %, two to five
    times nearer than with a lumped one, with an error that falls with the square of the edges (for
    :math:`\nu \ge 1`). Near a Neumann boundary the variance
    rises (2x at an edge, 4x at a corner), within about a range. Either the mesh reaches a range further than the data
    (``Mesh.from_points(offset=)``), or the boundary condition is Robin's, :math:`\partial_n u + c \kappa u = 0`, with
    the :math:`c` that makes the variance right at a straight edge:

    .. math:: 2 \int_0^\infty \frac{k^2}{c^2 + k^2} (1 + k^2)^{-\nu - 1/2}\, dk
        = \int_0^\infty (1 + k^2)^{-\nu - 1/2}\, dk .

    A traced range or scale that is not positive, or one so long that :math:`K` is singular in its precision, gives NaN,
    which samplers count as divergent.

    Args:
        domain: the mesh. On a surface, :math:`\Delta` is the Laplace-Beltrami operator and :math:`d = 2`.
        range: :math:`\rho > 0` in length units, of any batch shape; correlation is 0.10 to 0.14 at that distance.
        scale: marginal standard deviation :math:`\sigma > 0` away from the boundary.
        smoothness: :math:`\nu`, such that :math:`\alpha` is 1, 2, 3 or 4: 1/2 to 7/2 on a line, 1 to 3 in the plane and
            on a surface, 1/2 to 5/2 in space. A number, known outside of ``jit``.
        mean: a number or an array that broadcasts to ``batch + domain.shape``.
        boundary: ``"neumann"`` or ``"robin"``.
        robin_coefficient: :math:`c \ge 0`; default: see above.
        log_determinant: a table of :meth:`tabulate_log_determinant` in the place of the factorization that a density
            needs; ranges beyond it are refused, or have a density of NaN where they are traced.

    Raises:
        TypeError: ``domain`` is no mesh, a parameter is no real number, or ``smoothness`` is traced.
        ValueError: a range, scale or smoothness that is not positive and finite, a smoothness for which :math:`\alpha`
            is no integer up to 4, a boundary that does not exist, or shapes that do not fit.

    References:
        Lindgren, Rue & Lindström, JRSS B 73 (2011) 423-498, eqs. 2, 4 and 9-10; Daon & Stadler, Inverse Problems and
        Imaging 12 (2018) 1083-1102 (Robin conditions).
    """

    arg_constraints = {"range": constraints.positive, "scale": constraints.positive}  # noqa: RUF012
    support = constraints.real_vector
    reparametrized_params = ["range", "scale"]  # noqa: RUF012
    pytree_data_fields: tuple[str, ...] = ("domain", "range", "scale", "_mean", "log_determinant")
    pytree_aux_fields = ("smoothness", "order", "robin_coefficient")

    def __init__(
        self,
        domain: Mesh,
        *,
        range: float | Float[Array, "*batch"],
        scale: float | Float[Array, "*batch"],
        smoothness: float,
        mean: float | Float[Array, "..."] = 0.0,
        boundary: str = "neumann",
        robin_coefficient: float | None = None,
        log_determinant: LogDeterminantTable | None = None,
        validate_args: bool | None = None,
    ):
        name = "Matern"
        self.domain = check_instance(name, "domain", domain, Mesh, "a Mesh or a Grid")
        self.smoothness, self.order = self._order(smoothness, domain.manifold_dim)
        self.robin_coefficient = check_robin(boundary, robin_coefficient, self.smoothness)
        range, scale = check_positive(name, "range", range), check_positive(name, "scale", scale)
        mean = check_finite(name, "mean", mean)
        dtype = jnp.result_type(float, range, scale, mean)
        self.range, self.scale = (_positive_or_nan(value, dtype) for value in (range, scale))
        self._mean = jnp.asarray(mean, dtype)
        if self._mean.ndim and self._mean.shape[-1] not in (1, domain.size):
            raise ValueError(f"{name}: `mean` must broadcast to batch + {domain.shape}; got shape {self._mean.shape}.")
        batch = check_broadcast(name, range=self.range.shape, scale=self.scale.shape, mean=self._mean.shape[:-1])
        self.range, self.scale = jnp.broadcast_to(self.range, batch), jnp.broadcast_to(self.scale, batch)
        if log_determinant is not None:
            self.log_determinant = self._checked(log_determinant)
        super().__init__(batch, domain.shape, validate_args=validate_args)

    @property
    def base_dist(self):
        """White noise, one number a node."""
        return Normal(jnp.zeros((), self.scale.dtype), 1.0).expand(self.batch_shape + self.event_shape).to_event(1)

    def from_base(self, z):
        r"""The field driven by white noise: :math:`\tau^{-1} (K^{-1} C)^{\alpha/2 - 1} K^{-1} C^{1/2} z` for an even
        :math:`\alpha`, :math:`\tau^{-1} (K^{-1} C)^{(\alpha - 1)/2} L^{-\mathsf T} z` with :math:`K = L L^{\mathsf T}`
        for an odd one."""
        unit = jnp.vectorize(self._unit_field, signature=f"{self._one},(n)->(n)")(self.range, z)
        return self._mean + self._scale_at_nodes * unit

    def _unit_field(self, range: Array, z: Array) -> Array:
        factor = self._factor(range)
        u = factor.inverse_upper(z) if self.order % 2 else factor.solve(mass_root(self._noise, z))
        for _ in [None] * ((self.order - 1) // 2):
            u = factor.solve(mass_product(self.domain, u))
        return jnp.exp(-0.5 * self._log_unit_precision(range)) * u

    def ritz_projection(self, coarse: Mesh) -> RitzProjection:
        r"""The map of a value on this mesh to the function on a coarser one that is nearest in the norm of the
        equation, :math:`u_H = K_H^{-1} R K_h u_h`, with the transpose :math:`R` of interpolation to the finer nodes.

        At :math:`\alpha` 1 and 2 it takes this law to the law of the field on the coarser mesh, exactly
        (:math:`\alpha = 2`: :math:`a(u_H, v) = \mathcal W(v) = a(u_h, v)` for every coarse v).

        Raises:
            TypeError: ``coarse`` is no mesh.
            ValueError: this mesh does not refine ``coarse``; the law has a batch shape.
        """
        name = "Matern.ritz_projection"
        if self.batch_shape:
            raise ValueError(f"{name}: the projection is for one law; this one has batch shape {self.batch_shape}.")
        there = self._on(coarse)
        interpolation = prolongation(name, coarse, self.domain)
        factor = factorized(coarse.pattern, there._values(there.range))
        return RitzProjection(factor, interpolation, self.domain, self._values(self.range))

    def restrict_noise(self, coarse: MaternMesh, z: Float[Array, "*batch n"]) -> Float[Array, "*batch m"]:
        """The same white noise seen by a coarser mesh; see :func:`~numpyro_inverse.distributions.restrict_noise`.

        Raises:
            TypeError: ``coarse`` is no field on a mesh.
            ValueError: its mesh is not refined by this one, or it is of another smoothness.
        """
        name = "Matern.restrict_noise"
        check_instance(name, "coarse", coarse, type(self), f"a {type(self).__name__}")
        if coarse.smoothness != self.smoothness:
            raise ValueError(f"{name}: `coarse` has smoothness {coarse.smoothness}, this field {self.smoothness}.")
        down = prolongation(name, coarse.domain, self.domain).T
        if self.order % 2 != 1:
            restrict = jnp.vectorize(
                lambda z: mass_inverse_root(coarse._noise, down(mass_root(self._noise, z))), signature="(n)->(m)"
            )
            return restrict(z)

        def by_factors(fine, there, z):
            return coarse._factor(there).inverse_lower(down(self._factor(fine).lower(z)))

        signature = f"{self._one},{self._one.replace('n', 'm')},(n)->(m)"
        return jnp.vectorize(by_factors, signature=signature)(self.range, coarse.range, z)

    def _on(self, mesh: Mesh) -> MaternMesh:
        """The law of mean zero on another mesh."""
        robin = self.robin_coefficient > 0
        return MaternMesh(
            mesh,
            range=self.range,
            scale=self.scale,
            smoothness=self.smoothness,
            boundary="robin" if robin else "neumann",
            robin_coefficient=self.robin_coefficient if robin else None,
        )

    # What a field with another equation says otherwise.

    @staticmethod
    def _order(smoothness: Any, d: int) -> tuple[float, Any]:
        return check_order(smoothness, d)

    _one = "()"  # shape of the range of one law
    log_determinant: LogDeterminantTable | None = None

    @property
    def _scale_at_nodes(self) -> Array:
        return self.scale[..., None]

    @property
    def _noise(self) -> Any:
        """The mass matrix of the white noise, for the functions of :mod:`_mass_functions`."""
        return self.domain

    @property
    def _noise_logdet(self) -> float:
        return self.domain.geometry.mass_logdet

    @property
    def _stiffness(self) -> Array:
        return self.domain.stiffness

    def _log_scale_total(self) -> Array:
        """Sum over the nodes."""
        return self.domain.size * jnp.log(self.scale)

    def _kappa(self, range: Array) -> Array:
        return np.sqrt(8 * self.smoothness) / range

    def _values(self, range: Array) -> Array:
        """:math:`K` on the mesh's pattern."""
        mesh, kappa = self.domain, self._kappa(range)
        values = kappa**2 * mesh.mass + self._stiffness
        return values if self.robin_coefficient == 0 else values + self.robin_coefficient * kappa * mesh.boundary_mass

    def _factor(self, range: Array) -> Cholesky:
        return self.domain.pattern.factor(self._values(range))

    def _log_unit_precision(self, range: Array) -> Array:
        r""":math:`\log \tau^2` at :math:`\sigma = 1`."""
        nu, d = self.smoothness, self.domain.manifold_dim
        return lgamma(nu) - lgamma(self.order) - d / 2 * log(4 * pi) - 2 * nu * jnp.log(self._kappa(range))

    @validate_sample
    def log_prob(self, value, intermediates=None):
        r"""Log density, :math:`\tfrac12 \log\det Q - \tfrac12 r^{\mathsf T} Q r - \tfrac n2 \log 2 \pi`.

        A value that is rounded to precision :math:`\epsilon` has errors of size :math:`\epsilon (\sigma^2 + |\mu|^2 /
        n)^{1/2}` at the nodes. Where they add more than :math:`0.1 \sqrt{n / 2}` to the exponent (a tenth of a
        posterior standard deviation of the field's scale; smooth fields on fine meshes in single precision), there is
        no density in this precision: an error, or NaN where that is only known within ``jit``.

        Raises:
            TypeError: ``value`` is not of real numbers.
            ValueError: its last axis does not have a number for each node, or rounding hides the density.
        """
        name = "Matern.log_prob"
        value = jnp.asarray(check_trailing(name, "value", check_real(name, "value", value), self.event_shape))
        check_broadcast(name, value=value.shape[:-1], batch=self.batch_shape)
        residual = (value - self._mean) / self._scale_at_nodes
        quadratic = jnp.vectorize(self._unit_quadratic, signature=f"{self._one},(n)->()")(self.range, residual)
        logdet = jnp.vectorize(self._unit_logdet, signature=f"{self._one}->()")(self.range)
        n, hidden = self.domain.size, self._hidden_by_rounding(residual.dtype)
        if not is_traced(hidden) and np.any(hidden):
            raise ValueError(
                f"{name}: rounding to {residual.dtype} hides the smallest scales of this field (range "
                f"{show(self.range)}, smoothness {show(self.smoothness)}), so that it has no density in this "
                "precision. Use `whiten(model)`, which needs none, double precision (`jax.enable_x64`), a coarser mesh "
                "or less smoothness."
            )
        density = 0.5 * (logdet - quadratic - n * np.log(2 * np.pi)) - self._log_scale_total()
        return jnp.where(hidden, jnp.nan, density)

    def _hidden_by_rounding(self, dtype: Any) -> Array:
        r"""Whether rounding adds to the exponent: independent errors of size e add
        :math:`\tfrac12 e^2 \operatorname{tr} Q`, and :math:`s^{\mathsf T} Q s` with random signs s estimates the
        trace."""
        signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], self.domain.size), dtype)
        trace = jnp.vectorize(lambda range: self._unit_quadratic(range, signs), signature=f"{self._one}->()")(
            jax.lax.stop_gradient(self.range)
        )
        offset = jax.lax.stop_gradient(jnp.mean((self.mean / self._scale_at_nodes) ** 2, axis=-1))
        added = 0.5 * jnp.finfo(dtype).eps ** 2 * (1 + offset) * trace
        return added > BIAS * np.sqrt(self.domain.size / 2)

    def _unit_quadratic(self, range: Array, residual: Array) -> Array:
        return jnp.exp(self._log_unit_precision(range)) * self._squares(range, residual)

    def _squares(self, range: Array, residual: Array) -> Array:
        mesh, values, v = self.domain, self._values(range), residual
        for _ in [None] * ((self.order - 1) // 2):
            v = mass_inverse(mesh, symmetric_product(mesh, values, v))
        last = symmetric_product(mesh, values, v)
        return v @ last if self.order % 2 else jnp.sum(mass_inverse_root(self._noise, last) ** 2)

    def _unit_logdet(self, range: Array) -> Array:
        return self._logdet(range) + self.domain.size * self._log_unit_precision(range)

    def _logdet(self, range: Array) -> Array:
        table = self.log_determinant
        of_one = self._factor(range).logdet() if table is None else table(self._kappa(range))
        return self.order * of_one - (self.order - 1) * self._noise_logdet

    def tabulate_log_determinant(
        self, shortest: float, longest: float, *, tolerance: float = 1e-6
    ) -> LogDeterminantTable:
        r""":math:`\log\det K` for all ranges of an interval, on this mesh and with this boundary condition.

        Sparse factorizations at some tens of ranges on the host, in double precision (SuperLU). With the table a
        density needs no factorization: where the field itself is sampled (centered), a step costs sparse products.

        >>> mesh = Mesh(np.linspace(0.0, 1.0, 9), np.stack([np.arange(8), np.arange(1, 9)], axis=1))
        >>> table = Matern(mesh, range=1.0, scale=1.0, smoothness=0.5).tabulate_log_determinant(0.2, 5.0)
        >>> law = Matern(mesh, range=0.7, scale=1.0, smoothness=0.5, log_determinant=table)

        Args:
            shortest: the shortest range, in length units.
            longest: the longest.
            tolerance: largest error of the log determinant.

        Raises:
            TypeError: a field with another equation.
            ValueError: ranges that are not positive and increasing; a tolerance that a degree of 128 does not reach, as
                where K is singular but for rounding.
        """
        name = f"{type(self).__name__}.tabulate_log_determinant"
        if type(self) is not MaternMesh:
            raise TypeError(
                f"{name}: only the stationary `Matern` on a mesh has one range that a table could run over."
            )
        return tabulated(name, self.domain, self.smoothness, self.robin_coefficient, shortest, longest, tolerance)

    def _checked(self, table: Any) -> LogDeterminantTable:
        """A table of this mesh and boundary condition, in which the range lies where that is known."""
        check_instance("Matern", "log_determinant", table, LogDeterminantTable, "made by `tabulate_log_determinant`")
        known = (table.size, table.robin_coefficient, table.mass_logdet)
        if known != (self.domain.size, self.robin_coefficient, float(self._noise_logdet)):
            raise ValueError("Matern: `log_determinant` is a table of another mesh, or of another boundary condition.")
        if not is_traced(self.range) and np.any(np.isnan(table(self._kappa(self.range)))):
            raise ValueError(
                f"Matern: `range` {show(self.range)} is beyond the table `log_determinant`, from {table.shortest:g} to "
                f"{table.longest:g} at its smoothness."
            )
        return table

    @property
    def precision_entries(self) -> Entries | None:
        r"""Where :meth:`precision_factors` have entries; None if :math:`\alpha > 2`, and for a batch of fields."""
        pattern = self.domain.pattern
        return None if self.order > 2 or self.batch_shape else Entries(pattern.rows, pattern.cols)

    def precision_factors(self) -> PrecisionFactors:
        r"""The precision of one field by sparse matrices on ``precision_entries``."""
        n = self.domain.size
        log_precision = self._log_unit_precision(self.range) - 2 * jnp.log(self.scale)
        logdet = self._unit_logdet(self.range) - 2 * n * jnp.log(self.scale)
        outer = jnp.exp(log_precision / self.order) * self._values(self.range)
        if self.order == 1:
            return PrecisionFactors(outer, None, None, logdet, 0.0)
        return PrecisionFactors(outer, None, self._noise.mass.astype(outer.dtype), logdet, self._noise_logdet)

    @property
    def mean(self):
        """Shape ``batch + domain.shape``."""
        return jnp.broadcast_to(self._mean, self.batch_shape + self.event_shape)

    @property
    def variance(self):
        r"""Variances at the nodes, from the inverse on the pattern of :math:`K`:

        .. math:: \operatorname{diag} Q_\alpha^{-1} = \frac{(-1)^{\alpha - 1}}{(\alpha - 1)! \, \tau^2}
            \frac{d^{\alpha - 1}}{d s^{\alpha - 1}} \operatorname{diag} (K + s C)^{-1} \Big|_{s = 0} .
        """
        unit = jnp.vectorize(self._unit_variance, signature=f"{self._one}->(n)")(self.range)
        return self._scale_at_nodes**2 * unit

    def _unit_variance(self, range: Array) -> Array:
        def diagonal(s):
            return self.domain.pattern.factor(self._values(range) + s * self._noise.mass).inverse_diagonal()

        for _ in [None] * (self.order - 1):
            diagonal = _derivative(diagonal)
        sign = (-1) ** (self.order - 1)
        unit = jnp.exp(-self._log_unit_precision(range)) / factorial(self.order - 1)
        return sign * unit * diagonal(jnp.zeros((), self.range.dtype))

    @property
    def covariance_matrix(self) -> Float[Array, "*batch n n"]:
        """Dense covariance of the values at the nodes.

        Raises:
            ValueError: more than 4096 nodes.
        """
        n = self.domain.size
        if n > DENSE_LIMIT:
            raise ValueError(f"Matern: a dense covariance is formed up to {DENSE_LIMIT} nodes; this mesh has {n}.")

        def dense(range):
            root = jax.vmap(lambda z: self._unit_field(range, z))(jnp.eye(n, dtype=self.range.dtype))
            return jnp.matmul(root.T, root, precision="highest")

        unit = jnp.vectorize(dense, signature=f"{self._one}->(n,n)")(self.range)
        return self._scale_at_nodes[..., None] * self._scale_at_nodes[..., None, :] * unit


def _derivative(function):
    return lambda s: jax.jvp(function, (s,), (jnp.ones_like(s),))[1]


def _positive_or_nan(value: Any, dtype: Any) -> Array:
    array = jnp.asarray(value, dtype)
    return jnp.where(array > 0, array, jnp.nan) if is_traced(value) else array
