"""Distributions given as a map of a simpler one: what ``whiten`` turns inside out."""

from __future__ import annotations

from abc import abstractmethod

from jaxtyping import Array, Float
from numpyro.distributions import Distribution


class ReparametrizedDistribution(Distribution):
    r"""The law of :math:`u = f(z)`, :math:`z \sim` ``base_dist``.

    A subclass gives ``base_dist`` (a NumPyro distribution with the same batch shape) and :meth:`from_base`. ``sample``
    follows, and :func:`numpyro_inverse.whiten` samples ``z`` instead of ``u`` in any model that uses it.
    """

    @property
    @abstractmethod
    def base_dist(self) -> Distribution:
        """The distribution of :math:`z`."""

    @abstractmethod
    def from_base(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """:math:`f(z)`, batched over leading axes."""

    def sample(self, key, sample_shape=()):
        """Draws of shape ``sample_shape + batch_shape + event_shape``."""
        return self.from_base(self.base_dist.sample(key, sample_shape))
