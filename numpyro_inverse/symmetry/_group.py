"""What a group that acts on arrays is asked for."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Key

from numpyro_inverse._checks import check_finite, check_instance, check_key, check_numeric, check_real, is_traced, show

Element = Any  # a pytree of numbers: an angle, a vector of shifts, an index
Statistic = Any


class Group(eqx.Module):
    r"""A group G that acts on **one** array (``jax.vmap`` makes batches), :math:`(g h) x = g (h x)`.

    An element is a pytree of numbers: a sign, an angle, a vector of shifts. The *orbit* of x is :math:`\{g x\}`; what
    is constant on orbits is *invariant*. Most groups here are isometries, :math:`|g x| = |x|`, and compact, so that
    there is a uniform (Haar) law of elements.

    A group of your own defines what is abstract here; :func:`check_action` tests it. The last three methods are all
    that canonical forms and orbit distances need, for one array or for several that move together. With the inner
    product :math:`\langle x, r \rangle = \operatorname{Re} \sum_i \bar r_i x_i`,

    - ``correlation(x, r)`` is a statistic from which :math:`\langle g x, r \rangle` is known for every g, and which
      adds up over arrays;
    - ``reversed(statistic)`` is that of :math:`\langle g^{-1} x, r \rangle`;
    - ``maximizer(statistic)`` is the g that maximizes it, and the maximum.
    """

    @property
    @abstractmethod
    def order(self) -> int | None:
        """The number of elements; None: infinitely many."""

    @property
    def is_compact(self) -> bool:
        """Whether a uniform law of elements exists."""
        return True

    @property
    def is_abelian(self) -> bool:
        """Whether all elements commute, so that :math:`g^{-1}` acts as a group too."""
        return True

    @property
    @abstractmethod
    def identity(self) -> Element:
        """The element that does nothing."""

    @abstractmethod
    def compose(self, g: Element, h: Element) -> Element:
        """The element g h: first h, then g."""

    @abstractmethod
    def inverse(self, g: Element) -> Element:
        """The element that undoes g."""

    @abstractmethod
    def action(self, g: Element, x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        """The array g x."""

    @abstractmethod
    def sample(self, rng_key: Key[Array, ""]) -> Element:
        """Draw an element from the uniform law.

        Raises:
            ValueError: the group is not compact.
        """

    @abstractmethod
    def invariants(self, x: Inexact[Array, "*shape"]) -> Float[Array, " k"]:
        """Numbers that are the same all along the orbit, and smooth in x."""

    @abstractmethod
    def correlation(self, x: Inexact[Array, "*shape"], reference: Inexact[Array, "*shape"]) -> Statistic:
        """From what the inner product of g x and ``reference`` is known for every g."""

    @abstractmethod
    def reversed(self, statistic: Statistic) -> Statistic:
        """The statistic with each g replaced by its inverse."""

    @abstractmethod
    def maximizer(self, statistic: Statistic) -> tuple[Element, Float[Array, ""]]:
        """The element with the largest inner product, and that product."""

    def elements(self) -> Element:
        """All elements, stacked, the identity first.

        Raises:
            ValueError: there are infinitely many.
        """
        raise ValueError(f"{_name(self)}: `elements` are infinitely many; draw some with `sample`.")

    def propose(self, rng_key: Key[Array, ""]) -> Element:
        """Draw an element from a law under which g and its inverse are equally likely, for a Metropolis step."""
        return self.sample(rng_key)

    def log_abs_det(self, g: Element, x: Inexact[Array, "*shape"]) -> Float[Array, ""]:
        r"""The log of the absolute determinant of :math:`x \mapsto g x` on real coordinates; 0 for isometries."""
        return jnp.zeros((), jnp.finfo(inexact(_name(self), x).dtype).dtype)

    def _element(self, argument: str, g: Any) -> Element:
        """The element as an array, of the identity's shape and kind."""
        where, identity = _name(self), self.identity
        if not jnp.issubdtype(identity.dtype, jnp.integer):
            g = jnp.asarray(check_finite(where, argument, g))
        else:
            g = jnp.asarray(check_real(where, argument, g))
            if not jnp.issubdtype(g.dtype, jnp.integer):
                raise TypeError(f"{where}: `{argument}` must be integers; got an array of {g.dtype}.")
        if g.shape != identity.shape:
            raise ValueError(
                f"{where}: `{argument}` must be one element, of shape {identity.shape}; got shape {g.shape}. "
                "`jax.vmap` makes batches."
            )
        return g

    # What follows from these.

    def canonicalizer(self, x: Inexact[Array, "*shape"], reference: Inexact[Array, "*shape"] | None = None) -> Element:
        """The element that takes x to its canonical form."""
        x = inexact(_name(self), x)
        if reference is None:
            reference = default_reference(x)
        x, reference = alike(_name(self), x=x, reference=reference)
        return self.maximizer(self.correlation(x, reference))[0]

    def canonical(
        self, x: Inexact[Array, "*shape"], reference: Inexact[Array, "*shape"] | None = None
    ) -> Inexact[Array, "*shape"]:
        r"""The one array of the orbit that stands for it: the nearest to ``reference``, where
        :math:`\langle g x, r \rangle` is largest.

        Two arrays have the same canonical form if, and only if, they have the same orbit, but for a set of measure zero
        where several are equally near; there the form jumps. Choose a reference far from it: an estimate, or a draw.

        Args:
            x: one array.
            reference: of the same shape; by default numbers that fall like 1, 1/2, 1/3, ... through the array, so that
                a permutation sorts and a shift brings what is large to the front.
        """
        return self.action(self.canonicalizer(x, reference), inexact(_name(self), x))

    def nearest(self, u: Inexact[Array, "*shape"], v: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        """The array of the orbit of u that is nearest to v."""
        u, v = alike(_name(self), u=u, v=v)
        return self.action(self.canonicalizer(*jax.lax.stop_gradient((u, v))), u)

    def squared_orbit_distance(self, u: Inexact[Array, "*shape"], v: Inexact[Array, "*shape"]) -> Float[Array, ""]:
        r""":math:`\min_g |v - g u|^2`. Its gradient is that at the minimizing g, held fixed (Danskin's theorem)."""
        u, v = alike(_name(self), u=u, v=v)
        return jnp.sum(jnp.abs(v - self.nearest(u, v)) ** 2)

    def orbit_distance(self, u: Inexact[Array, "*shape"], v: Inexact[Array, "*shape"]) -> Float[Array, ""]:
        r""":math:`\min_g |v - g u|`."""
        return safe_sqrt(self.squared_orbit_distance(u, v))

    def __mul__(self, other: Group) -> Group:
        """The product of two groups whose actions commute."""
        from numpyro_inverse.symmetry._product import Product

        return Product(self, check_instance("Product", "second", other, Group, "a group"))


class Isometries(Group):
    """A finite group of isometries whose elements are the numbers 0, ..., ``order`` - 1; 0 is the identity.

    A subclass defines ``order``, ``compose``, ``inverse`` and ``action``.
    """

    @property
    @abstractmethod
    def order(self) -> int:
        """The number of elements."""

    @property
    def identity(self) -> Element:
        return jnp.zeros((), int)

    def elements(self) -> Element:
        return jnp.arange(self.order)

    def _element(self, argument: str, g: Any) -> Element:
        g = super()._element(argument, g)
        if not is_traced(g) and not 0 <= int(g) < self.order:
            raise ValueError(f"{_name(self)}: `{argument}` must be in 0, ..., {self.order - 1}; got {show(g)}.")
        return g

    def sample(self, rng_key: Key[Array, ""]) -> Element:
        return jax.random.randint(check_key(_name(self), "rng_key", rng_key), (), 0, self.order)

    def images(self, x: Inexact[Array, "*shape"]) -> Inexact[Array, "order *shape"]:
        """The whole orbit."""
        return jax.vmap(self.action, (0, None))(self.elements(), x)

    def invariants(self, x: Inexact[Array, "*shape"]) -> Float[Array, " k"]:
        """Means over the orbit of the array and of its square; they do not tell all orbits apart."""
        parts = as_real(self.images(inexact(_name(self), x)))
        return jnp.concatenate([jnp.mean(parts, axis=0).ravel(), jnp.mean(parts**2, axis=0).ravel()])

    def correlation(self, x: Inexact[Array, "*shape"], reference: Inexact[Array, "*shape"]) -> Statistic:
        x, reference = alike(_name(self), x=x, reference=reference)
        return jax.vmap(inner, (0, None))(self.images(x), reference)

    def reversed(self, statistic: Statistic) -> Statistic:
        return statistic[jax.vmap(self.inverse)(self.elements())]

    def maximizer(self, statistic: Statistic) -> tuple[Element, Float[Array, ""]]:
        best = jnp.argmax(statistic)
        return best, statistic[best]


# What the groups share.


def inner(x: Inexact[Array, "*shape"], y: Inexact[Array, "*shape"]) -> Float[Array, ""]:
    r""":math:`\operatorname{Re} \sum_i \bar y_i x_i`."""
    return jnp.real(jnp.vdot(y, x))


def inexact(where: str, x: Any, argument: str = "x") -> Array:
    """An array of floating-point numbers, real or complex."""
    x = jnp.asarray(check_numeric(where, argument, x))
    return x.astype(jnp.result_type(x, float)) if not jnp.issubdtype(x.dtype, jnp.inexact) else x


def finite(where: str, x: Any, argument: str) -> Array:
    """Likewise, none of which is infinite or NaN."""
    x = inexact(where, x, argument)
    if not is_traced(x) and not np.all(np.isfinite(x)):
        raise ValueError(
            f"{where}: `{argument}` must be finite; {int(np.sum(~np.isfinite(x)))} of its entries are not."
        )
    return x


def stacked(where: str, argument: str, arrays: Any) -> int:
    """The length of the leading axis of an array, or of the arrays of a pytree, which is one for all."""
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(arrays)]
    lengths = {shape[0] if shape else 0 for shape in shapes}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"{where}: `{argument}` must be arrays with a leading axis, of one length and not empty; got shapes "
            f"{show(shapes)}."
        )
    return lengths.pop()


def as_real(x: Inexact[Array, "*shape"]) -> Float[Array, "*shape2"]:
    """The array, or, if it is complex, its real and imaginary parts along a last axis."""
    return jnp.stack([x.real, x.imag], axis=-1) if jnp.iscomplexobj(x) else x


def default_reference(x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    """Numbers proportional to 1, 1/2, 1/3, ..., of norm 1: as far from every symmetry as falling numbers are."""
    falling = 1 / np.arange(1.0, x.size + 1)
    return jnp.asarray((falling / np.linalg.norm(falling)).reshape(x.shape), x.dtype)


def lagged_products(x: Inexact[Array, "*shape"]) -> Float[Array, " k"]:
    r""":math:`|x_i|^2` and :math:`x_i \bar x_{i+1}`: they give x but for one sign or phase if no entry is zero."""
    x = x.ravel()
    return jnp.concatenate([jnp.abs(x) ** 2, as_real(x[:-1] * jnp.conj(x[1:])).ravel()])


def safe_sqrt(squared: Float[Array, ""]) -> Float[Array, ""]:
    """The root, with gradient zero at zero."""
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)


def alike(where: str, **arrays: Any) -> tuple[Array, Array]:
    """Two arrays of floating-point numbers, of one shape."""
    one, other = (inexact(where, array, argument) for argument, array in arrays.items())
    if one.shape != other.shape:
        names = " and ".join(f"`{argument}`" for argument in arrays)
        raise ValueError(
            f"{where}: two arrays of one shape are needed, {names}; got {one.shape} and {other.shape}. `jax.vmap` "
            "makes batches."
        )
    return one, other


def _name(group: Group) -> str:
    return type(group).__name__
