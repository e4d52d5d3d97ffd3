"""Learned primal-dual: networks in the space of x and in that of the data, joined by the operator and its adjoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_instance
from numpyro_inverse.solvers._least_squares import LeastSquares
from numpyro_inverse.solvers.unrolled._learned_proximal_gradient import (
    checked_networks,
    first_guess,
    frozen,
    returned,
)

HERE = "LearnedPrimalDual"


class LearnedPrimalDual(eqx.Module):
    r"""From :math:`x^0 = 0`, :math:`h^0 = 0`, with one pair of networks a step,

    .. math::

        h^{k+1} = h^k + \Gamma_k(h^k,\, A x^k,\, y), \qquad
        x^{k+1} = x^k + \Lambda_k(x^k,\, A^{\mathsf T} h^{k+1}).

    Args:
        dual: :math:`\Gamma_k`, each from an array of shape ``(3, *out_shape)`` to one of ``out_shape``.
        primal: :math:`\Lambda_k`, as many, each from ``(2, *in_shape)`` to ``in_shape``.

    Raises:
        TypeError: a network that cannot be called, or returns no real numbers.
        ValueError: no networks, or not as many of the one as of the other; a network that returns another shape;
            complex data.

    No convergence is claimed: the networks may be anything.

    References:
        Adler & Öktem, IEEE Trans. Med. Imaging 37 (2018) 1322-1332, algorithm 3, with one channel.
    """

    dual: tuple[Callable, ...]
    primal: tuple[Callable, ...]

    def __init__(self, *, dual: Sequence[Callable], primal: Sequence[Callable]):
        self.dual = checked_networks(HERE, "dual", dual)
        self.primal = checked_networks(HERE, "primal", primal)
        if len(self.dual) != len(self.primal):
            raise ValueError(
                f"{HERE}: `dual` and `primal` must be as many; got {len(self.dual)} and {len(self.primal)}."
            )

    def __call__(self, data_term: LeastSquares, x0: Any = None) -> Float[Array, "*shape"]:
        """The last x.

        Args:
            data_term: what has A and y; it is not trained.
            x0: where to start; default: zeros.
        """
        check_instance(HERE, "data_term", data_term, LeastSquares, "a LeastSquares")
        if jnp.iscomplexobj(data_term.data):
            raise ValueError(f"{HERE}: `data_term` has complex data; the networks are for real numbers.")
        x: Array = first_guess(HERE, data_term, x0)
        term: LeastSquares = frozen(data_term)
        operator, y = term.operator, term.data.astype(x.dtype)
        h: Array = jnp.zeros_like(y)
        for dual, primal in zip(self.dual, self.primal, strict=True):
            h = h + returned(HERE, "dual", dual, jnp.stack([h, operator.mv(x), y]), h)
            x = x + returned(HERE, "primal", primal, jnp.stack([x, operator.T.mv(h)]), x)
        return x
