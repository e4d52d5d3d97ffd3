"""Distributions given as a map of a simpler one: what ``whiten`` turns inside out."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from jaxtyping import Array, Float
from numpyro.distributions import Distribution, ExpandedDistribution, Independent

from numpyro_inverse._checks import check_key, check_sample_shape


class ReparametrizedDistribution(Distribution):
    r"""The law of :math:`u = f(z)`, :math:`z \sim` ``base_dist``.

    A subclass gives ``base_dist`` (a NumPyro distribution with the same batch shape) and :meth:`from_base`. ``sample``
    follows, and :func:`numpyro_inverse.whiten` samples ``z`` instead of ``u`` in any model that uses it. That is all a
    prior needs; two further members, where it has them, open further doors:

    - ``domain``, a :class:`~numpyro_inverse.domains.Domain`: where the values of ``u`` are. :func:`to_arviz` and the
      plots take the coordinates from it.
    - ``amplitudes`` and ``from_coefficients(w)``: ``from_base(z)`` is ``from_coefficients(amplitudes * z)``, z white
      noise, so that each coefficient may be centered by itself and ``fit_coordinates`` can fit how far.

    ``LatentGaussian`` and ``ExactGibbs`` marginalize sites that have either; the latter those with places if there are
    any.

    These are looked for by name, not by type: any NumPyro distribution with ``base_dist`` and ``from_base`` will do.
    """

    @property
    @abstractmethod
    def base_dist(self) -> Distribution:
        """The distribution of :math:`z`."""

    @abstractmethod
    def from_base(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """:math:`f(z)`, batched over leading axes."""

    def sample(self, key, sample_shape=()):
        """Draws of shape ``sample_shape + batch_shape + event_shape``.

        Raises:
            TypeError, ValueError: ``key`` is not one random key, or ``sample_shape`` no tuple of integers.
        """
        where = f"{type(self).__name__}.sample"
        check_key(where, "key", key)
        check_sample_shape(where, "sample_shape", sample_shape)
        return self.from_base(self.base_dist.sample(key, sample_shape))


def unwrapped(fn: Distribution) -> Distribution:
    """The distribution inside NumPyro's ``expand`` and ``to_event`` wrappers."""
    while isinstance(fn, Independent | ExpandedDistribution):
        fn = fn.base_dist
    return fn


def has_base(fn: Distribution) -> bool:
    """Whether the distribution, however wrapped, is a map of a base."""
    return callable(getattr(type(unwrapped(fn)), "from_base", None))


def has_amplitudes(fn: Distribution) -> bool:
    """Whether it is a linear map of independent coefficients with known standard deviations."""
    kind = type(unwrapped(fn))
    return has_base(fn) and hasattr(kind, "amplitudes") and callable(getattr(kind, "from_coefficients", None))


def domain_of(fn: Distribution) -> Any:
    """Where its values are, or None."""
    core = unwrapped(fn)
    return getattr(core, "window", getattr(core, "domain", None)) if has_base(core) else None
