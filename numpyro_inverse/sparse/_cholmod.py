"""Solutions by CHOLMOD, a host library."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

MARGIN = 100  # times rounding: what the sum of a matrix must be above, as a share of its trace


def cholmod(
    rows: Int[Array, " nnz"], cols: Int[Array, " nnz"], values: Float[Array, " nnz"], b: Float[Array, "n *k"]
) -> Float[Array, "n *k"]:
    r""":math:`A^{-1} b` by CHOLMOD's supernodes, on CPUs and in double precision; needs the extra ``cholmod``.

    For :meth:`Pattern.with_solver` and :meth:`Mesh.with_solver`, where a field on a large mesh is whitened: at
    :math:`10^5` nodes in the plane it takes half the time of our own solution. CHOLMOD keeps the factors of the last
    matrices that it has seen, so that the solutions of a gradient share one. The log determinant stays with the
    pattern, whose derivative is four times faster.

    CHOLMOD *raises* where a matrix is not positive definite, which ends a run. So that a step of a sampler into wild
    hyperparameters does not, the result is NaN and CHOLMOD is not called where values are not finite or a two by two
    minor is not positive, and where :math:`1^{\mathsf T} A 1 \le 100\, \epsilon \operatorname{tr} A` with the
    rounding :math:`\epsilon`: the matrices :math:`\kappa^2 C + G` of a field are singular along constants first. Other
    matrices that are not positive definite raise.

    Args:
        rows: row of each value.
        cols: its column, not above the row.
        values: the lower triangle.
        b: a vector, or the columns of a matrix.

    Raises:
        ImportError: the extra is not installed.
        TypeError: single precision.
        JaxRuntimeError: as above, when the compiled program runs.

    References:
        Chen, Davis, Hager & Rajamanickam, ACM Trans. Math. Softw. 35 (2008) 22 (CHOLMOD). The binding is sparsax.
    """
    if values.dtype != jnp.float64:
        raise TypeError(
            f"cholmod: `values` must be in double precision; got {values.dtype}. Enable it before anything else: "
            '`jax.config.update("jax_enable_x64", True)`.'
        )
    try:
        import sparsax
    except ImportError as error:
        raise ImportError("cholmod needs sparsax: `pip install numpyro-inverse[cholmod]`.") from error
    n = b.shape[0]
    on = rows == cols
    diagonal = jnp.zeros(n).at[jnp.where(on, rows, n)].set(values, mode="drop")
    minors = jnp.where(on, values, diagonal[rows] * diagonal[cols] - values**2)
    total = jnp.sum(jnp.where(on, values, 2 * values))
    least = MARGIN * jnp.finfo(values.dtype).eps * jnp.sum(diagonal)
    fine = jnp.all(jnp.isfinite(values)) & jnp.all(minors > 0) & (total > least)
    identity = on.astype(values.dtype)
    # It reads the upper triangle. Not differentiated: whoever solves with it has the rules.
    found = sparsax.solve(cols, rows, jnp.where(fine, jax.lax.stop_gradient(values), identity), b)
    return jnp.where(fine, found, jnp.nan)
