"""The Langevin kernel in function space with the directions that the data inform."""

from __future__ import annotations

from collections.abc import Callable

from numpyro.infer.initialization import init_to_uniform

from numpyro_inverse._checks import check_count
from numpyro_inverse.infer.kernels._inf_mala import InfMALA
from numpyro_inverse.infer.kernels._informed import InformedKernel


class InformedMALA(InformedKernel, InfMALA):
    r"""Likelihood-informed :class:`InfMALA`: the reference is the Laplace approximation
    :math:`N(m, S (I + V \Lambda V^T)^{-1} S)` instead of the prior :math:`N(m_0, S^2)`, so that

    .. math::

        x' = x - \frac{\beta^2}{1 + \rho}\, C\, \nabla U(x) + \beta\, C^{1/2} \xi, \qquad
        C = S (I + V \Lambda V^T)^{-1} S, \quad \rho = \sqrt{1 - \beta^2}.

    A direction that the data inform is moved in units of its Laplace standard deviation
    :math:`(1 + \lambda_i)^{-1/2}`, the complement as in :class:`InfMALA`. As C differs from the prior's covariance by
    a low rank, the acceptance does not fall as the grid is refined; where the posterior is its Laplace approximation,
    every proposal is accepted at any :math:`\beta`, and draws become independent. The law is exact whatever V and
    :math:`\Lambda` are. They are found, and
    chains start, as for :class:`InformedPCN`.

    Extra fields: as :class:`InfMALA`; the eigenvalues are ``constants.directions.values``.

    Args:
        model: a NumPyro model, whitened.
        potential_fn: instead of ``model``, :math:`U` on any pytree; ``init_params`` are then needed, and the Hessian is
            that of :math:`\Phi`.
        rank: number of eigenpairs, at most; memory is n rank.
        step_size: first :math:`\beta`, in (0, 1); kept if there is no warm-up.
        target_accept_prob: mean acceptance.
        init_strategy: NumPyro's, for the point where the search for the mode begins.

    Raises:
        ValueError: as :class:`PCN`; ``rank`` less than 1.

    References:
        Cui, Law & Marzouk, J. Comput. Phys. 304 (2016) 109-137; Beskos, Girolami, Lan, Farrell & Stuart, J. Comput.
        Phys. 335 (2017) 327-351 (this proposal with a metric that depends on x).
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Callable | None = None,
        *,
        rank: int = 64,
        step_size: float = 0.2,
        target_accept_prob: float = 0.574,
        init_strategy: Callable = init_to_uniform,
    ):
        super().__init__(
            model,
            potential_fn,
            step_size=step_size,
            target_accept_prob=target_accept_prob,
            init_strategy=init_strategy,
        )
        self._rank = check_count(self._name, "rank", rank)
