"""Normalizing flows fitted to data by maximum likelihood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import describe
from numpyro_inverse.nn._fit_density import fit_mean
from numpyro_inverse.nn._flow_density import flow_log_prob
from numpyro_inverse.nn._training import Fit


def fit_flow(
    flow: Any,
    data: Any,
    *,
    key: PRNGKeyArray,
    prepare: Callable[[Any, PRNGKeyArray], Any] | None = None,
    **settings: Any,
) -> Fit:
    r"""Fits a bijection to data by maximum likelihood.

    The loss is :math:`-\log p(x) = -\log \phi(f^{-1}(x)) - \log |\det \partial f^{-1}(x)|` in nats per example, with
    :math:`\phi` the standard normal density and f the bijection, given a context if it is conditional.

    Args:
        flow: an Equinox module with ``inverse_and_log_det(x)`` for one example, such as :class:`MultiscaleFlow`, or
            ``inverse_and_log_det(x, context)`` if it has a ``context_shape``, such as a conditional
            :class:`CouplingFlow`.
        data: rows, as for :func:`~numpyro_inverse.nn.train`: an array of one example per row; for a conditional flow
            the pair of examples and contexts; or what ``prepare`` makes into these.
        key: of all randomness.
        prepare: what a batch and a key become before the loss, such as :func:`dequantize`.
        **settings: of :class:`TrainingSettings`.

    Returns:
        The flow with the best held-out likelihood, and the losses.

    Raises:
        TypeError: ``data`` is no array of real numbers; ``flow`` has no ``inverse_and_log_det``; ``key`` is no random
            key.
        ValueError: as :func:`~numpyro_inverse.nn.train`; rows of another shape than the flow's, or no pair for a
            conditional flow; data outside its range, where its density is zero.

    >>> # not run: docs/learned_priors.md does it
    >>> fit = fit_flow(flow, images, key=key, prepare=dequantize, max_epochs=10)  # doctest: +SKIP
    >>> fit = fit_flow(flow, (parameters, data), key=key)  # doctest: +SKIP
    """
    if isinstance(flow, type) or not hasattr(flow, "inverse_and_log_det"):
        raise TypeError(
            "fit_flow: `flow` must be a module with the method `inverse_and_log_det`, such as `nn.CouplingFlow`; got "
            f"{describe(flow)}."
        )

    def loss(flow: Any, x: Any, context: Any, key: PRNGKeyArray) -> Float[Array, ""]:
        return -flow_log_prob(flow, x, context)

    return fit_mean("fit_flow", "flow", flow, loss, data, key=key, prepare=prepare, settings=settings)
