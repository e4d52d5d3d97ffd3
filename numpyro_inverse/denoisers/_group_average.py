"""A denoiser averaged over a finite group of array actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable, check_instance, check_real
from numpyro_inverse.denoisers._certificate import Certificate
from numpyro_inverse.denoisers._denoiser import (
    Denoise,
    Denoiser,
    check_array,
    check_denoiser,
    denoised,
    has_potential,
    potential_of,
)
from numpyro_inverse.denoisers._with_gradient import as_module
from numpyro_inverse.symmetry import Group

HERE = "GroupAverage"
Action = Callable[[Float[Array, "*shape"]], Float[Array, "*shape2"]]


class GroupAverage(Denoiser):
    r"""The mean of a denoiser's conjugates by the actions g of a group,

    .. math:: D_G(x, \sigma) = \frac{1}{|G|} \sum_{g \in G} g^{-1} D(g x, \sigma)

    which commutes with every g: a picture and its mirror image are denoised alike. The actions are linear isometries
    (permutations of pixels, changes of sign), so the inverse of each is its transpose, which is found by automatic
    differentiation.

    If the denoiser has a potential, so has the average, the mean of :math:`U(g x)`; its certificates carry over, for a
    mean of maps is at least as nonexpansive as the worst of them. Averaging is never worse in mean square under a law
    that is invariant under the group.

    >>> average = ni.denoisers.GroupAverage(ni.denoisers.Median(), ni.denoisers.square_symmetries())
    >>> average(jnp.eye(4), 0.1).shape
    (4, 4)

    Args:
        denoiser: any function of an array and a noise level.
        actions: a finite group of :mod:`numpyro_inverse.symmetry`, or functions of an array that form a group, the
            identity among them.

    Raises:
        TypeError: no functions, or some that return no real numbers.
        ValueError: no actions; a group with infinitely many elements; when called, actions that are not linear.

    References:
        Jensen's inequality; M. Terris et al., *Equivariant plug-and-play image reconstruction*, CVPR 2024, section 3.
    """

    denoiser: Any
    actions: tuple[Action, ...] = eqx.field(static=True)

    def __init__(self, denoiser: Denoise, actions: Sequence[Action] | Group):
        check_denoiser(HERE, denoiser)
        self.denoiser = denoiser if has_potential(denoiser) else as_module(denoiser)
        actions = _actions_of(actions) if isinstance(actions, Group) else actions
        check_instance(HERE, "actions", actions, list | tuple, "a list of functions of an array, or a group")
        if not actions:
            raise ValueError(f"{HERE}: `actions` is empty; the identity is one.")
        self.actions = tuple(check_callable(HERE, "actions", action) for action in actions)

    def __call__(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, "*shape"]:
        x = check_array(HERE, x)
        total = jnp.zeros_like(x)
        for action in self.actions:
            moved = denoised(HERE, self.denoiser, _acted(action, x), sigma)
            total = total + _acted_back(action, x, moved)
        return total / len(self.actions)

    @property
    def potential(self) -> Callable[..., Array]:
        """The mean of the denoiser's potentials at all g x; there is none if the denoiser has none."""
        if not has_potential(self.denoiser):
            raise AttributeError(f"{HERE}: the denoiser has no potential.")
        return self._mean_potential

    @property
    def certificates(self) -> Callable[[Any], dict[str, Certificate]]:
        """Those of the denoiser."""
        return self.denoiser.certificates

    def _mean_potential(self, x: Float[Array, "*shape"], sigma: Any) -> Float[Array, ""]:
        x = check_array(HERE, x)
        values = [potential_of(HERE, self.denoiser, _acted(action, x), sigma) for action in self.actions]
        return jnp.mean(jnp.stack(values))


def _acted(action: Action, x: Array) -> Array:
    return jnp.asarray(check_real(HERE, "what an action returns", action(x)))


def _acted_back(action: Action, x: Array, y: Array) -> Array:
    """By the inverse of a linear isometry, its transpose."""
    try:
        return jax.linear_transpose(action, x)(y)[0]
    except (NotImplementedError, TypeError) as error:
        name = getattr(action, "__name__", str(action))
        raise ValueError(f"{HERE}: `actions` must be linear, such as changes of sign; got {name}.") from error


def _actions_of(group: Group) -> list[Action]:
    elements = group.elements()
    return [_acting(group, jax.tree.map(lambda e, i=i: e[i], elements)) for i in range(group.order or 0)]


def _acting(group: Group, g: Any) -> Action:
    return lambda x: group.action(g, x)


def square_symmetries() -> tuple[Action, ...]:
    """The eight rotations and reflections of a square, as functions of images; the first is the identity."""
    return tuple(_symmetry(turns, mirrored) for mirrored in (False, True) for turns in range(4))


def _symmetry(turns: int, mirrored: bool) -> Action:
    def act(x: Float[Array, "h w"]) -> Float[Array, "h2 w2"]:
        x = check_real("square_symmetries", "x", x)
        if jnp.ndim(x) < 2:
            raise ValueError(f"square_symmetries: `x` must be an image, (H, W); got shape {jnp.shape(x)}.")
        return jnp.rot90(jnp.flip(x, 1) if mirrored else x, turns)

    act.__name__ = f"rotate_{90 * turns}" + ("_of_mirrored" if mirrored else "")
    return act
