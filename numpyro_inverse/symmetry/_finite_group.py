"""A group given by functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Int

from numpyro_inverse._checks import check_callable, check_instance, check_sample_shape
from numpyro_inverse.symmetry._group import Element, Isometries, inexact

Action = Callable[[Inexact[Array, "*shape"]], Inexact[Array, "*shape"]]
TOLERANCE = 1e-5  # of an array of norm 1


class FiniteGroup(Isometries):
    r"""A finite group of linear isometries given by the functions that are its elements' actions.

    That they are a group is found out, not believed: each is applied to an array of random numbers, and to every image
    of it, which must again be one of the images. The table of products comes from that.

    >>> from numpyro_inverse.denoisers import square_symmetries
    >>> square = FiniteGroup(square_symmetries(), (8, 8))
    >>> square.order, square.is_abelian
    (8, False)

    An element is the number of its function. Invariants: means of :math:`g u` and :math:`(g u)^2` over the group, which
    do not tell all orbits apart.

    Args:
        actions: functions of an array, the identity first.
        shape: of the arrays.

    Raises:
        TypeError: no functions.
        ValueError: no actions, the first not the identity, two alike, one that changes the shape or the norm; actions
            whose product is none of them, which are no group. The actions are named by their number.
    """

    actions: tuple[Action, ...] = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    table: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    def __init__(self, actions: Sequence[Action], shape: tuple[int, ...]):
        check_instance("FiniteGroup", "actions", actions, list | tuple, "a list of functions of an array")
        if not actions:
            raise ValueError("FiniteGroup: `actions` is empty; the identity is one.")
        self.actions = tuple(
            check_callable("FiniteGroup", "actions", action, "functions of an array") for action in actions
        )
        self.shape = check_sample_shape("FiniteGroup", "shape", shape)
        if 0 in self.shape:
            raise ValueError(f"FiniteGroup: `shape` must have no axis of length 0; got {self.shape}.")
        self.table = _table(self.actions, self.shape)

    @property
    def order(self) -> int:
        return len(self.actions)

    @property
    def is_abelian(self) -> bool:
        table = np.asarray(self.table)
        return bool(np.all(table == table.T))

    def compose(self, g: Element, h: Element) -> Element:
        g, h = self._element("g", g), self._element("h", h)
        return jnp.asarray(self.table)[g, h]

    def inverse(self, g: Element) -> Element:
        inverses = jnp.argmin(jnp.asarray(self.table), axis=1)  # where the product is 0, the identity
        return inverses[self._element("g", g)]

    def action(self, g: Element, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        return jax.lax.switch(self._element("g", g), self.actions, self._checked(x))

    def images(self, x: Inexact[Array, "*shape"]) -> Inexact[Array, "order *shape"]:
        x = self._checked(x)
        return jnp.stack([action(x) for action in self.actions])

    def _checked(self, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        x = inexact("FiniteGroup", x)
        if x.shape != self.shape:
            raise ValueError(f"FiniteGroup: `x` must have shape {self.shape}; got shape {x.shape}.")
        return x


@jax.ensure_compile_time_eval()
def _table(actions: tuple[Action, ...], shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """By number, the products of all pairs: row g, column h is g h."""
    x: np.ndarray = np.random.default_rng(0).normal(size=shape)
    x = (x / np.linalg.norm(x)).astype(np.float32)

    def images(y: np.ndarray) -> Int[np.ndarray, "order size"]:
        found = [np.asarray(action(jnp.asarray(y))) for action in actions]
        for number, image in enumerate(found):
            if image.shape != shape:
                raise ValueError(
                    f"FiniteGroup: `actions`: action {number} takes an array of shape {shape} to one of shape "
                    f"{image.shape}."
                )
            if not abs(np.linalg.norm(image) - 1) <= TOLERANCE:
                raise ValueError(f"FiniteGroup: `actions`: action {number} changes the norm; they must be isometries.")
        return np.stack([image.ravel() for image in found])

    orbit = images(x)
    if not np.allclose(orbit[0], x.ravel(), atol=TOLERANCE):
        raise ValueError("FiniteGroup: the first of the `actions` must be the identity.")
    table = np.empty((len(actions), len(actions)), int)
    for h, image in enumerate(orbit):
        distances = np.max(np.abs(images(image.reshape(shape))[:, None] - orbit), axis=-1)
        equal = distances <= TOLERANCE
        for g in range(len(actions)):
            if np.sum(equal[g]) > 1:
                one, other = np.flatnonzero(equal[g])[:2]
                raise ValueError(f"FiniteGroup: `actions`: actions {one} and {other} are the same; leave one out.")
            if not equal[g].any():
                raise ValueError(
                    f"FiniteGroup: the `actions` are no group: action {h} followed by action {g} is none of them."
                )
        table[:, h] = np.argmax(equal, axis=1)
    return tuple(tuple(int(product) for product in row) for row in table)
