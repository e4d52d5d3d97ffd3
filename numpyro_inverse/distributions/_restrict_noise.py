"""The same white noise on a coarser domain: what couples a field with a coarser version of itself."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from numpyro_inverse._checks import check_instance, check_trailing
from numpyro_inverse.distributions._reparametrized import has_base, unwrapped


def restrict_noise(
    fine: Distribution, coarse: Distribution, z: Float[Array, "*batch_and_noise"]
) -> Float[Array, "*batch_and_coarse_noise"]:
    r"""The noise of a coarse field that goes with the noise z of a fine one: white if z is white, exactly, and such
    that ``coarse.from_base`` of it is near ``fine.from_base(z)``.

    On a mesh, whose field is driven by the integrals :math:`b_i = \int \phi_i\, d\mathcal W` of white noise, the hat
    functions of the coarse mesh are sums of those of the fine one, :math:`\phi^H = R \phi^h`, and :math:`b_H = R b_h`.
    At :math:`\alpha` 1 and 2 the coarse field is then the Ritz projection of the fine one. On a grid the coarse field
    keeps the coefficients of its modes. A law that has the same noise on every domain, such as a
    :class:`FunctionSpaceGenerator`, keeps it.

    >>> from numpyro_inverse.domains import Grid
    >>> fine, coarse = (Matern(Grid((n, n)), range=0.3, scale=1.0, smoothness=1.0) for n in (16, 8))
    >>> restrict_noise(fine, coarse, jnp.zeros((16, 16))).shape
    (8, 8)

    Args:
        fine: the law on the fine domain.
        coarse: the law on the coarse one, with the same parameters.
        z: values of ``fine.base_dist``.

    Raises:
        TypeError: a law without a base.
        ValueError: ``z`` of another shape; a domain that ``fine``'s does not refine; noises of two shapes, of laws that
            do not say how one becomes the other.
    """
    name = "restrict_noise"
    pair: list[Any] = []
    for argument, law in (("fine", fine), ("coarse", coarse)):
        check_instance(name, argument, law, Distribution, "a NumPyro distribution")
        if not has_base(law):
            raise TypeError(
                f"{name}: `{argument}` must be a map of noise, with `base_dist` and `from_base`; got "
                f"{type(law).__name__}."
            )
        pair.append(unwrapped(law))
    z = check_trailing(name, "z", z, pair[0].base_dist.event_shape)
    if callable(getattr(pair[0], "restrict_noise", None)):
        return pair[0].restrict_noise(pair[1], z)
    shapes = [law.base_dist.event_shape for law in pair]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{name}: {type(pair[0]).__name__} has noise of shape {shapes[0]} on the fine domain and {shapes[1]} on "
            "the coarse one, and does not say how one becomes the other (a method `restrict_noise(coarse, z)`)."
        )
    return z
