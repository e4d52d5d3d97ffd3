"""Proximal gradient descent with a trained network in each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable, check_finite, check_positive_number, check_real
from numpyro_inverse.denoisers import Certificate
from numpyro_inverse.solvers._data_term import DataTerm, check_data_term

HERE = "LearnedProximalGradient"


class LearnedProximalGradient(eqx.Module):
    r""":math:`x^{k+1} = N_k(x^k - \gamma_k \nabla f(x^k))`, from zero, networks and steps trained.

    The steps are :math:`\gamma_k = (2 / L)\, \mathrm{sigmoid}(t_k)`, in (0, 2 / L) whatever training does, so that for
    a convex f a layer is nonexpansive if its network is (:class:`NonexpansiveNetwork`), and a contraction if it is one.

    >>> from numpyro_inverse.solvers.unrolled import NonexpansiveNetwork
    >>> network = LearnedProximalGradient([NonexpansiveNetwork(3, 8, key=jax.random.key(0))] * 4, lipschitz=1.0)
    >>> network(LeastSquares(op.Mask(np.ones(3, bool)), jnp.ones(3), 1.0)).shape
    (3,)

    Args:
        networks: one a layer, each from an array to an array of its shape.
        lipschitz: L of the data terms that it will be given, or a bound.

    Raises:
        TypeError: a network that cannot be called, or returns no real numbers.
        ValueError: no network, ``lipschitz`` not positive; a network that returns another shape.

    References:
        Mardani et al., NeurIPS (2018); Adler & Öktem, Inverse Problems 33 (2017) 124007.
    """

    networks: tuple[Callable, ...]
    raw_steps: Float[Array, " layers"]
    lipschitz: float = eqx.field(static=True)

    def __init__(self, networks: Sequence[Callable], *, lipschitz: float):
        self.networks = checked_networks(HERE, "networks", networks)
        self.lipschitz = check_positive_number(HERE, "lipschitz", lipschitz)
        self.raw_steps = jnp.zeros(len(self.networks))

    @property
    def steps(self) -> Float[Array, " layers"]:
        """The steps, in (0, 2 / L)."""
        return 2 / self.lipschitz * jax.nn.sigmoid(self.raw_steps)

    def __call__(self, data_term: DataTerm, x0: Any = None) -> Float[Array, "*shape"]:
        """The last iterate.

        Args:
            data_term: f, such as ``term.with_data(y)``; it is not trained.
            x0: where to start; default: zeros of the data term's shape.
        """
        x = first_guess(HERE, data_term, x0)
        term = frozen(data_term)
        for network, step in zip(self.networks, self.steps, strict=True):
            x = returned(HERE, "networks", network, x - step.astype(x.dtype) * term.gradient(x), x)
        return x

    def certificate(self, data_term: DataTerm) -> Certificate:
        """A bound of the Lipschitz constant of the last iterate as a function of the first, by products.

        Raises:
            ValueError: a network has no certificate, or L or mu are not known.
        """
        check_data_term(f"{HERE}.certificate", data_term)
        layers = [
            layer_certificate(HERE, network, float(step), data_term)
            for network, step in zip(self.networks, self.steps, strict=True)
        ]
        bound = prod(layer.bound for layer in layers)
        return Certificate(bound, "product over layers", all(layer.certified for layer in layers))


def checked_networks(where: str, argument: str, networks: Any) -> tuple[Callable, ...]:
    """One or more functions."""
    found = tuple(networks) if isinstance(networks, list | tuple) else (networks,)
    if not found:
        raise ValueError(f"{where}: `{argument}` must be one or more networks; got none.")
    return tuple(check_callable(where, argument, network, "functions of an array") for network in found)


def first_guess(where: str, data_term: Any, x0: Any) -> Array:
    """The start, checked: zeros unless given."""
    shape = check_data_term(where, data_term).shape
    if x0 is None:
        if shape is None:
            raise ValueError(f"{where}: `x0` must be given, for the data term does not know the shape of x.")
        return jnp.zeros(shape, float)
    x0 = check_finite(where, "x0", x0)
    if shape is not None and jnp.shape(x0) != shape:
        raise ValueError(f"{where}: `x0` must have the shape {shape}; got {jnp.shape(x0)}.")
    return jnp.asarray(x0, float)


def returned(where: str, argument: str, network: Callable, x: Array, like: Array) -> Array:
    """What a network returns for x, of the shape of ``like``."""
    found = check_real(where, f"what {argument} returns", network(x))
    if jnp.shape(found) != like.shape:
        raise ValueError(f"{where}: `{argument}` must return an array of shape {like.shape}; got {jnp.shape(found)}.")
    return jnp.asarray(found)


def frozen[Term: DataTerm](data_term: Term) -> Term:
    """The same data term, without derivatives: only the network is trained."""
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_array(leaf) else leaf, data_term)


def layer_certificate(where: str, network: Any, step: float, data_term: DataTerm) -> Certificate:
    r"""A bound of the Lipschitz constant of :math:`N(x - \gamma \nabla f(x))`."""
    found, largest, least = lipschitz_certificate(where, network), data_term.lipschitz(), data_term.strong_convexity()
    if largest is None or least is None:
        raise ValueError(f"{where}.certificate: bounds of the data term are not known.")
    descent = max(abs(1 - step * largest.bound), abs(1 - step * least.bound))
    certified = found.certified and largest.certified and least.certified
    return Certificate(descent * found.bound, "gradient step times network", certified)


def lipschitz_certificate(where: str, network: Any) -> Certificate:
    """A network's own certificate."""
    stated = getattr(network, "certificates", None)
    found = stated(None).get("lipschitz") if callable(stated) else None
    if found is None:
        raise ValueError(
            f"{where}: the network {type(network).__name__} has no certificate of its Lipschitz constant; "
            "`NonexpansiveNetwork` has."
        )
    return found
