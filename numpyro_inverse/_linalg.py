"""Eigenvalues of symmetric matrices that are known by their products: the dominant pairs, and the largest modulus."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

BATCH = 8  # products that are computed together


def randomized_eigenpairs(
    product: Callable[[Float[Array, "n"]], Float[Array, "n"]],
    like: Float[Array, "n"],
    rank: int,
    key: Array,
    *,
    oversampling: int = 10,
    iterations: int = 1,
    batch_size: int | None = BATCH,
) -> tuple[Float[Array, "r"], Float[Array, "n r"]]:
    r"""The dominant eigenpairs of a symmetric matrix H, by randomized subspace iteration.

    :math:`Q` spans :math:`H^q \Omega` for ``rank + oversampling`` Gaussian vectors; :math:`Q^T H Q = W \Lambda W^T`,
    :math:`V = Q W`. It takes q + 1 products a vector, and is exact if the rank of H is no more than the vectors.

    Args:
        product: :math:`v \mapsto H v`.
        like: a vector of the size and precision of the eigenvectors.
        rank: number of eigenpairs; at most the size.
        key: a random key.
        oversampling: further vectors, for accuracy.
        iterations: q; a vector is made orthogonal to the others after each.
        batch_size: products that are computed together; None for one after the other.

    Returns:
        The eigenvalues of largest modulus, descending, and their eigenvectors as orthonormal columns.

    References:
        Halko, Martinsson & Tropp, SIAM Review 53 (2011) 217-288, algorithms 4.1, 4.4 and 5.3.
    """
    count = min(rank + oversampling, like.size)

    def products(rows: Float[Array, "k n"]) -> Float[Array, "k n"]:
        return jax.lax.map(product, rows, batch_size=batch_size)

    basis = jax.random.normal(key, (count, like.size), like.dtype).T
    for _ in range(iterations):
        basis = jnp.linalg.qr(products(basis.T).T)[0]
    small = jnp.matmul(products(basis.T), basis, precision="highest")
    values, vectors = jnp.linalg.eigh((small + small.T) / 2)
    keep = jnp.argsort(-jnp.abs(values))[:rank]
    keep = keep[jnp.argsort(-values[keep])]
    return values[keep], jnp.matmul(basis, vectors[:, keep], precision="highest")


def power_iteration(
    product: Callable[[Array], Array],
    start: Array,
    num_iterations: int,
    *,
    growth: float | None = None,
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    r"""A lower bound :math:`\|H v\|`, :math:`\|v\| = 1`, of the largest modulus of an eigenvalue of a symmetric H.

    After q products from a Gaussian ``start`` it is too small by more than a factor :math:`4 n^{1/2q}` with a
    probability below :math:`4^{-q}`; its mean relative error is below :math:`0.871 \log(n) / (q - 1)`, whatever the
    spectrum (their theorem 3.1 for :math:`H^2`), and much smaller with a gap. It is zero, not NaN, where H is zero.

    Args:
        product: :math:`v \mapsto H v`, on arrays of any shape, real or complex.
        start: the first vector, random.
        num_iterations: products, at most.
        growth: stop, after three products at least, when the bound grows by less than this share of itself; None:
            never.

    Returns:
        The bound, and the products it took.

    References:
        Kuczynski & Wozniakowski, SIAM J. Matrix Anal. Appl. 13 (1992) 1094-1122.
    """
    real = jnp.zeros((), start.dtype).real

    def advance(carry: tuple) -> tuple:
        v, bound, _, count = carry
        length = jnp.linalg.norm(v)
        image = product(v / jnp.where(length > 0, length, 1))
        return image, jnp.linalg.norm(image), bound, count + 1

    def unfinished(carry: tuple) -> Array:
        _, bound, before, count = carry
        if growth is None:
            return count < num_iterations
        return (count < num_iterations) & ((bound > before * (1 + growth)) | (count < 3))

    begin = (start, real, real, jnp.zeros((), int))
    _, bound, before, count = jax.lax.while_loop(unfinished, advance, begin)
    return jnp.maximum(bound, before), count
