"""What a potential is: an energy, and a factor site of a model."""

from __future__ import annotations

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_count, check_real
from numpyro_inverse.distributions._energy import PotentialFactor


class Potential(eqx.Module):
    r"""A function U of one array, as a prior :math:`e^{-U}`.

    For what is a latent site of the model, ``Energy(potential, shape)`` of :mod:`numpyro_inverse.distributions` is its
    distribution. For what is not, call it in the model with a name: it adds a factor.

    >>> red = factors.Score(ni.denoisers.GaussianDenoiser(jnp.zeros(4), jnp.eye(4)), sigma=0.1)
    >>> def model(data=None):
    ...     weights = numpyro.sample("weights", dist.Normal(0, 1).expand([4]).to_event(1))
    ...     red("smooth", jnp.cumsum(weights))

    Unlike ``numpyro.factor`` of a number, such a site is evaluated when its log density is asked for, and refuses to be
    counted once for each element of a plate. Like all factors it is marked auxiliary and is no data.
    """

    @abstractmethod
    def energy(self, x: Float[Array, "*shape"]) -> Float[Array, ""]:
        """U of one array.

        Raises:
            ValueError: it has no value, only a gradient.
        """

    @property
    def gradient_only(self) -> bool:
        """Whether U has no value, only a gradient."""
        return False

    def stand_in(self, x: Float[Array, "*shape"]) -> Float[Array, ""]:
        """What has the gradient of U, for samplers that use gradients alone: U, or 0 where it has no value."""
        return self.energy(x)

    def __call__(self, name: str, x: Float[Array, "*batch_and_shape"], *, event_dim: int | None = None) -> None:
        """Add the factor :math:`e^{-U(x)}` to a model.

        Args:
            name: of the site.
            x: one array, or a batch of them.
            event_dim: how many trailing axes of ``x`` are one array; all of them by default. The others are batch axes,
                for plates.

        Raises:
            TypeError: ``name`` is no string, ``x`` no real numbers.
            ValueError: ``event_dim`` negative or more than ``x`` has axes. When the site is used: it is in plates of
                another shape than the batch, or has no value.
        """
        if not isinstance(name, str):
            raise TypeError(f"{type(self).__name__}: `name` must be the name of the site; got {name!r}.")
        x = jnp.asarray(check_real(name, "x", x), jnp.result_type(float, x))
        event_dim = x.ndim if event_dim is None else check_count(name, "event_dim", event_dim, 0)
        if event_dim > x.ndim:
            raise ValueError(f"{name}: `event_dim` is {event_dim}, but `x` has shape {x.shape}.")
        fn = PotentialFactor(name, self, x, event_dim)
        numpyro.sample(name, fn, obs=fn.sample(None), infer={"is_auxiliary": True})
