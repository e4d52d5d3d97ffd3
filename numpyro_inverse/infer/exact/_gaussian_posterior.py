r"""Draws from :math:`N(H^{-1} b, H^{-1})` with :math:`H = I + \tilde A^T \tilde A`: three ways, and the choice.

By a root of the covariance (diagonal, dense, or the identity up to as many directions as there are data), or
matrix-free by perturb-then-optimize.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Int
from lineax.internal import two_norm

from numpyro_inverse._linalg import power_iteration
from numpyro_inverse.infer.exact._affine import Affine, AffineModel

DATA_ENTRIES = 2**27  # numbers in the matrix of the data-space root, at most
PROBES = 32  # random data vectors from which the diagonal of H is estimated; relative error sqrt(2 / PROBES)
POWER_STEPS = 8  # of the power iteration that measures how far a root is from the exact one
REFINEMENTS = 3
RANK, RANK_ENTRIES, SUBSPACE_STEPS = 32, 2**24, 4  # of the preconditioner: vectors, numbers in them at most, iterations


class Draw(NamedTuple):
    """A draw in white-noise coordinates and what is known about its accuracy."""

    noise: Float[Array, " n"]
    error: Float[Array, ""]  # bound of any linear functional's error, in its posterior standard deviations
    residual: Float[Array, ""]  # true relative residual of the linear system
    num_steps: Int[Array, ""]  # conjugate gradient iterations


class DiagonalRoot(eqx.Module):
    r""":math:`H^{-1/2}` of a diagonal :math:`H`: prior and forward map share a transform."""

    scale: Float[Array, " n"]

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.scale * x

    def transpose(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.scale * x

    @property
    def log_det(self) -> Float[Array, ""]:
        return jnp.sum(jnp.log(self.scale))

    def refreshed(self, affine: Affine) -> DiagonalRoot:
        """The root for another map that is diagonal too."""
        return DiagonalRoot(1 / jnp.sqrt(exact_diagonal(affine, 1 / self.scale**2, jax.random.key(1))))


class DenseRoot(eqx.Module):
    r""":math:`R^{-1}` with :math:`R^T R = H`, from a QR factorization of :math:`(\tilde A; I)`.

    QR of the stacked matrix, not Cholesky of :math:`H`: the error is that of the signal-to-noise ratio's condition
    number, not of its square, which decides in single precision.
    """

    matrix: Float[Array, "n n"]
    log_det: Float[Array, ""]

    def __init__(self, affine: Affine, size: int):
        eye = jnp.eye(size, dtype=affine.offset.dtype)
        m = affine.offset.size
        if m < size:
            dense = jax.lax.map(affine.adjoint, jnp.eye(m, dtype=eye.dtype), batch_size=128)
        else:
            dense = jax.lax.map(affine.forward, eye, batch_size=128).T
        r = jnp.linalg.qr(jnp.concatenate([dense, eye]), mode="r")
        self.matrix = jax.scipy.linalg.solve_triangular(r, eye)
        self.log_det = -jnp.sum(jnp.log(jnp.abs(jnp.diagonal(r))))

    def refreshed(self, affine: Affine) -> DenseRoot:
        """The root for another map."""
        return DenseRoot(affine, len(self.matrix))

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return jnp.matmul(self.matrix, x, precision="highest")

    def transpose(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return jnp.matmul(x, self.matrix, precision="highest")


class DataRoot(eqx.Module):
    r""":math:`I - \tilde A^T R^{-1} (R^T + I)^{-1} \tilde A` with few data, :math:`R^T R = I + \tilde A \tilde A^T`.

    A root of :math:`H^{-1} = I - \tilde A^T (R^T R)^{-1} \tilde A` (Andrews, AIAA J. 6, 1968) that needs triangular
    matrices of the data's size only; :math:`\log |H| = \log |R^T R|`. R comes from a QR factorization of
    :math:`(\tilde A^T; I)`, for the reason given in :class:`DenseRoot`.
    """

    rows: Float[Array, "m n"]
    factor: Float[Array, "m m"]

    def __init__(self, affine: Affine):
        eye = jnp.eye(affine.offset.size, dtype=affine.offset.dtype)
        self.rows = jax.lax.map(affine.adjoint, eye, batch_size=128)
        r = jnp.linalg.qr(jnp.concatenate([self.rows.T, eye]), mode="r")
        self.factor = jnp.sign(jnp.diagonal(r))[:, None] * r  # a positive diagonal: R^T + I is regular

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        y = self._solve(self.factor.T, jnp.matmul(self.rows, x, precision="highest"), shift=1.0, lower=True)
        return x - jnp.matmul(self._solve(self.factor, y, lower=False), self.rows, precision="highest")

    def transpose(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        y = self._solve(self.factor.T, jnp.matmul(self.rows, x, precision="highest"), lower=True)
        return x - jnp.matmul(self._solve(self.factor, y, shift=1.0, lower=False), self.rows, precision="highest")

    def _solve(self, matrix: Array, y: Array, *, shift: float = 0.0, lower: bool) -> Array:
        return jax.scipy.linalg.solve_triangular(matrix + shift * jnp.eye(len(matrix)), y, lower=lower)

    @property
    def log_det(self) -> Float[Array, ""]:
        return -jnp.sum(jnp.log(jnp.diagonal(self.factor)))

    def refreshed(self, affine: Affine) -> DataRoot:
        """The root for another map."""
        return DataRoot(affine)


Root = DiagonalRoot | DenseRoot | DataRoot


class Factored(eqx.Module):
    r"""Draws :math:`\mu + R^{-1} \epsilon`: one product with the root each.

    ``error`` is the larger of the mean's error and of :math:`\|R^{-T} H R^{-1} - I\|`, both measured at set-up with the
    forward map itself.
    """

    mean: Float[Array, " n"]
    root: Root
    error: Float[Array, ""]
    residual: Float[Array, ""]

    def __init__(self, affine: Affine, root: Root, key: Array):
        defect = _defect(affine, root, key)
        self.root = root
        self.mean, error, self.residual = _mean(affine, root)
        self.error = jnp.maximum(error, defect)

    def draw(self, affine: Affine, key: Array) -> Draw:
        """An independent draw; ``affine`` is not used."""
        noise = self.mean + self.root(jax.random.normal(key, self.mean.shape, self.mean.dtype))
        return Draw(noise, self.error, self.residual, jnp.zeros((), int))

    def refreshed(self, affine: Affine) -> Factored:
        """The posterior for other model arguments, drawn in the same way; whether that is right shows in ``error``."""
        return Factored(affine, self.root.refreshed(affine), jax.random.key(2))

    def with_data(self, affine: Affine) -> Factored:
        """The posterior for other data only, with the same root."""
        return Factored(affine, self.root, jax.random.key(2))

    def log_evidence(self, affine: Affine) -> Float[Array, ""]:
        """As :func:`quadratic_log_evidence`; :meth:`AffineModel.log_normalizer` is to be added."""
        return quadratic_log_evidence(affine, self.mean, self.root.log_det)


class Preconditioner(eqx.Module):
    r"""An approximation of :math:`H^{-1}`: its diagonal :math:`D`, and the directions that the diagonal misses most.

    .. math:: D^{-1/2} \bigl(I + U (\Lambda^{-1} - I) U^T\bigr) D^{-1/2}

    with Ritz pairs :math:`(\Lambda, U)` of the largest eigenvalues of :math:`D^{-1/2} H D^{-1/2}` from randomized
    subspace iteration (Halko, Martinsson & Tropp, SIAM Review 53, 2011). Positive definite however rough they are.
    """

    scale: Float[Array, " n"]
    vectors: Float[Array, "k n"]
    values: Float[Array, " k"]

    def __init__(self, affine: Affine, diagonal: Float[Array, " n"], key: Array):
        self.scale = 1 / jnp.sqrt(diagonal)
        n = diagonal.size
        rank = max(1, min(RANK, n, RANK_ENTRIES // n))

        def multiply(rows):
            return jax.lax.map(lambda x: self.scale * affine.hessian(self.scale * x), rows)

        rows = _orthonormal(jax.random.normal(key, (rank, n), diagonal.dtype))
        rows = jax.lax.fori_loop(0, SUBSPACE_STEPS, lambda _, rows: _orthonormal(multiply(rows)), rows)
        values, rotation = jnp.linalg.eigh(jnp.matmul(multiply(rows), rows.T, precision="highest"))
        self.vectors = jnp.matmul(rotation.T, rows, precision="highest")
        self.values = jnp.maximum(values, 1e-3)

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        x = self.scale * x
        along = (1 / self.values - 1) * jnp.matmul(self.vectors, x, precision="highest")
        return self.scale * (x + jnp.matmul(along, self.vectors, precision="highest"))

    @property
    def largest(self) -> Float[Array, ""]:
        """A bound of the largest eigenvalue of the inverse."""
        return jnp.max(jnp.maximum(self.values, 1)) / jnp.min(self.scale) ** 2


class PerturbThenOptimize(eqx.Module):
    r"""Draws :math:`H^{-1} (\tilde A^T (r_0 + \epsilon_1) + \epsilon_2)` by conjugate gradients, matrix-free.

    Exact in law if solved exactly (Papandreou & Yuille 2010; Bardsley et al. 2014). Because :math:`H \ge I`, the
    residual :math:`r` bounds the error :math:`e` in units of the posterior's own standard deviations,
    :math:`e^T H e = r^T H^{-1} r \le \|r\|^2`, so that no linear functional of the draw is off by more than
    :math:`\|r\|` of its standard deviations. Each solve starts from the residual of the last, evaluated afresh
    (iterative refinement); ``error`` is :math:`\|r - H d\|` with :math:`d` what the solve added, never the residual
    that conjugate gradients carry along. Where rounding of :math:`H x` alone exceeds the tolerance, the residual of the
    final point must still vanish to the square root of machine epsilon.
    """

    mean: Float[Array, " n"]
    preconditioner: Preconditioner
    tolerance: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def __init__(self, affine: Affine, preconditioner: Preconditioner, tolerance: float, max_steps: int):
        self.preconditioner, self.tolerance, self.max_steps = preconditioner, tolerance, max_steps
        self.mean = jnp.zeros_like(preconditioner.scale)
        self.mean = self._solve(affine, affine.offset, self.mean).noise

    def draw(self, affine: Affine, key: Array) -> Draw:
        """An independent draw; its ``error`` must be checked."""
        m = affine.offset.size
        noise = jax.random.normal(key, (m + self.mean.size,), self.mean.dtype)
        return self._solve(affine, affine.offset + noise[:m], noise[m:])

    def refreshed(self, affine: Affine) -> PerturbThenOptimize:
        """The posterior for other model arguments, with the same preconditioner."""
        return PerturbThenOptimize(affine, self.preconditioner, self.tolerance, self.max_steps)

    with_data = refreshed

    def _solve(self, affine: Affine, data: Float[Array, " m"], prior: Float[Array, " n"]) -> Draw:
        structure = jax.eval_shape(affine.hessian, self.mean)  # inside `pmap` it knows the mesh, which Lineax compares
        operator = lx.FunctionLinearOperator(affine.hessian, structure, lx.positive_semidefinite_tag)
        # Lineax calls a system singular when a step is longer than 1 / (100 eps n); a large preconditioner keeps steps
        # short, and conjugate gradients do not otherwise depend on its scale.
        large = self.preconditioner.largest * max(1.0, 1e3 * self.mean.size * float(jnp.finfo(self.mean.dtype).eps))
        preconditioner = lx.FunctionLinearOperator(
            lambda x: large * self.preconditioner(x), structure, lx.positive_semidefinite_tag
        )
        options = {"preconditioner": preconditioner}
        solver = lx.CG(rtol=0.0, atol=self.tolerance / 2, norm=two_norm, stabilise_every=None, max_steps=self.max_steps)

        def improve(carry):
            x, gradient, _, steps, i = carry
            solution = lx.linear_solve(operator, gradient, solver, options=options, throw=False)
            recursive = jnp.linalg.norm(gradient - affine.hessian(solution.value))
            x = x + solution.value
            gradient = affine.gradient(x, data, prior)
            error = jnp.minimum(recursive, jnp.linalg.norm(gradient))
            return x, gradient, error, steps + solution.stats["num_steps"], i + 1

        def unfinished(carry):
            _, _, error, _, i = carry
            return ~(error <= self.tolerance) & (i < REFINEMENTS)

        x = self.mean
        infinite = jnp.full((), jnp.inf, x.dtype)
        start = (x, affine.gradient(x, data, prior), infinite, jnp.zeros((), int), jnp.zeros((), int))
        x, gradient, error, steps, _ = jax.lax.while_loop(unfinished, improve, start)
        length, size = jnp.linalg.norm(gradient), jnp.linalg.norm(affine.adjoint(data) + prior)
        sound = length <= self.tolerance + jnp.finfo(x.dtype).eps ** 0.5 * size  # only rounding may come on top
        return Draw(x, jnp.where(sound, error, jnp.inf), length / size, steps)


GaussianPosterior = Factored | PerturbThenOptimize


def _orthonormal(rows: Float[Array, "k n"]) -> Float[Array, "k n"]:
    """Orthonormal rows with the same span, by repeated Cholesky factors of the Gram matrix (Fukaya et al. 2014)."""

    def improve(_, rows):
        gram = jnp.matmul(rows, rows.T, precision="highest")
        jitter = len(rows) * jnp.finfo(rows.dtype).eps * jnp.trace(gram)
        factor = jnp.linalg.cholesky(gram + jitter * jnp.eye(len(rows), dtype=rows.dtype))
        return jax.scipy.linalg.solve_triangular(factor, rows, lower=True)

    return jax.lax.fori_loop(0, 3, improve, rows)


def _mean(affine: Affine, root: Root) -> tuple[Array, Array, Array]:
    """The posterior mean by iterative refinement, its error in posterior standard deviations, its relative residual."""

    def improve(x, _):
        return x + root(root.transpose(affine.gradient(x, affine.offset))), None

    zero = jnp.zeros_like(affine.adjoint(affine.offset))
    mean, _ = jax.lax.scan(improve, zero, length=REFINEMENTS)
    gradient, size = affine.gradient(mean, affine.offset), jnp.linalg.norm(affine.adjoint(affine.offset))
    residual = jnp.linalg.norm(gradient) / jnp.maximum(size, jnp.finfo(zero.dtype).tiny)
    return mean, jnp.linalg.norm(root.transpose(gradient)), residual


def _defect(affine: Affine, root: Root, key: Array) -> Float[Array, ""]:
    r""":math:`\|R^{-T} H R^{-1} - I\|_2` by power iteration from a random start.

    With :math:`q` steps it is underestimated by more than a factor :math:`4 n^{1/2q}` with probability below
    :math:`4^{-q}`, so a wrong root is not missed.
    """

    def defect(w: Array) -> Array:
        return root.transpose(affine.hessian(root(w))) - w

    zero = jnp.zeros_like(affine.adjoint(affine.offset))
    start = jax.random.normal(key, zero.shape, zero.dtype)
    return power_iteration(defect, start, POWER_STEPS)[0]


def estimate_diagonal(affine: Affine, key: Array) -> Float[Array, " n"]:
    r"""The diagonal of :math:`H`, :math:`1 + E (\tilde A^T \epsilon)^2`, from a few random data vectors."""

    def add(total, key):
        noise = jax.random.normal(key, affine.offset.shape, affine.offset.dtype)
        return total + affine.adjoint(noise) ** 2, None

    zero = jnp.zeros_like(affine.adjoint(affine.offset))
    total, _ = jax.lax.scan(add, zero, jax.random.split(key, PROBES))
    return 1 + total / PROBES


def exact_diagonal(affine: Affine, estimate: Float[Array, " n"], key: Array) -> Float[Array, " n"]:
    r"""The diagonal of :math:`H` if :math:`H` is diagonal: one product with a vector of random signs."""
    signs = jax.random.rademacher(key, estimate.shape, estimate.dtype)
    scaled = signs / jnp.sqrt(estimate)
    return jnp.maximum(estimate * (signs * affine.hessian(scaled) / jnp.sqrt(estimate)), 1)


def gaussian_posterior(
    model: AffineModel, tolerance: float, max_steps: int, dense_limit: int, traced: bool
) -> GaussianPosterior:
    """The one place where a strategy is chosen: diagonal if that is verified, dense in the smaller of the latents' and
    the data's spaces up to ``dense_limit``, else matrix-free.

    The analysis is compiled and run at once, even while a chain method (``vmap``, ``pmap``) traces the caller. Only
    with model arguments that are themselves traced it is left to the caller's program, and the choice is by size.

    Raises:
        ValueError: as :meth:`AffineModel.raise_unless_affine`; or rounding spoils the dense root.
    """

    def estimate():
        return estimate_diagonal(model.affine(), jax.random.key(0))

    def diagonal(estimate):
        affine = model.affine()
        scale = 1 / jnp.sqrt(exact_diagonal(affine, estimate, jax.random.key(1)))
        return Factored(affine, DiagonalRoot(scale), jax.random.key(2))

    data = jax.eval_shape(lambda: model.affine().offset).size
    few_data = data < model.size and data <= dense_limit and data * model.size <= DATA_ENTRIES
    direct = few_data or model.size <= dense_limit

    def dense():
        affine = model.affine()
        root = DataRoot(affine) if few_data else DenseRoot(affine, model.size)
        return Factored(affine, root, jax.random.key(2))

    def matrix_free(estimate):
        affine = model.affine()
        preconditioner = Preconditioner(affine, estimate, jax.random.key(4))
        return PerturbThenOptimize(affine, preconditioner, tolerance, max_steps)

    def check():
        return model.check(jax.random.key(3))

    if traced:
        found = dense() if direct else matrix_free(estimate())
        return eqx.error_if(found, ~model.is_affine(check(), tolerance), not_affine(model.caller))
    with jax.core.eval_context():
        checks, precision = jax.jit(lambda: (check(), estimate()))()
        model.raise_unless_affine(checks, tolerance)
        found = jax.jit(diagonal)(precision)
        if found.error <= tolerance:
            return found
        if not direct:
            return jax.jit(matrix_free)(precision)
        found = jax.jit(dense)()
        if not found.error <= tolerance:
            raise ValueError(too_inexact(model.caller, float(found.error), tolerance))
        return found


def quadratic_log_evidence(
    affine: Affine, mean: Float[Array, " n"], log_det_root: Float[Array, ""]
) -> Float[Array, ""]:
    r""":math:`-\tfrac12 (\|r_0 - \tilde A \mu\|^2 + \|\mu\|^2) + \log |R^{-1}|`, without the normalizer of the data."""
    misfit = jnp.sum((affine.offset - affine.forward(mean)) ** 2) + jnp.sum(mean**2)
    return -0.5 * misfit + log_det_root


def not_affine(caller: str) -> str:
    """What is known inside compiled code."""
    return (
        f"{caller}: a model with traced arguments is not Gaussian with an affine mean, or its data are not finite; "
        "call the kernel outside `jit` to learn which site."
    )


def too_inexact(caller: str, error: float, tolerance: float) -> str:
    """What to do when rounding spoils a dense posterior."""
    return (
        f"{caller}: the posterior is accurate to {error:.2g} posterior standard deviations only, not to `tolerance` = "
        f"{tolerance:.2g}: the signal-to-noise ratio is too large for this precision. Use `jax.enable_x64`, or a "
        "larger `tolerance`."
    )
