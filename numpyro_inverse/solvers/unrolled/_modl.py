"""Model-based deep learning: a trained denoiser and exact data steps in turn, with one set of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable, check_count, check_positive_number
from numpyro_inverse.solvers._data_term import DataTerm, check_data_term
from numpyro_inverse.solvers.unrolled._learned_proximal_gradient import first_guess, frozen, returned

HERE = "MoDL"


class MoDL(eqx.Module):
    r""":math:`x^{k+1} = \operatorname{prox}_{\gamma f}(N(x^k))`, ``num_steps`` times with the same network, the step
    trained too: half-quadratic splitting, unrolled.

    For a convex f the proximal operator is firmly nonexpansive: with a :class:`NonexpansiveNetwork` a step is
    nonexpansive, with one of ``lipschitz`` below 1 a contraction, for all weights.

    Args:
        network: N, from an array to an array of its shape.
        step: where :math:`\gamma` starts; it stays positive.
        num_steps: number of steps.

    Raises:
        TypeError: ``network`` cannot be called, or returns no real numbers; a data term without proximal operator is
            given.
        ValueError: ``step`` or ``num_steps`` not positive; ``network`` returns another shape.

    References:
        Aggarwal, Mani & Jacob, IEEE Trans. Med. Imaging 38 (2019) 394-405.
    """

    network: Callable
    log_step: Float[Array, ""]
    num_steps: int = eqx.field(static=True)

    def __init__(self, network: Callable, *, step: float, num_steps: int = 5):
        self.network = check_callable(HERE, "network", network, "a function of an array")
        self.log_step = jnp.log(jnp.asarray(check_positive_number(HERE, "step", step), float))
        self.num_steps = check_count(HERE, "num_steps", num_steps)

    def __call__(self, data_term: DataTerm, x0: Any = None) -> Float[Array, "*shape"]:
        """The last iterate.

        Args:
            data_term: f, with a proximal operator; it is not trained.
            x0: where to start; default: zeros of the data term's shape.
        """
        check_data_term(HERE, data_term, prox=True)
        start, term = first_guess(HERE, data_term, x0), frozen(data_term)
        step = jnp.exp(self.log_step).astype(start.dtype)

        def advance(x: Array, _: None) -> tuple[Array, None]:
            return term.prox(returned(HERE, "network", self.network, x, x), step), None

        return jax.lax.scan(advance, start, length=self.num_steps)[0]
