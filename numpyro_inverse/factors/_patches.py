"""A prior for large images from a density of small patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from numpyro_inverse._checks import check_callable, check_count, check_real, describe

HERE = "expected_patch_log_likelihood"


def expected_patch_log_likelihood(
    log_prob: Callable[[Float[Array, "n patch"]], Float[Array, " n"]],
    image: Float[Array, "height width"],
    side: int = 8,
    *,
    stride: int = 1,
    shift: tuple[Int[Array, ""], Int[Array, ""]] | tuple[int, int] = (0, 0),
) -> Float[Array, ""]:
    r"""The sum of the log densities of an image's patches, for ``numpyro.factor``:

    .. math:: \Bigl(\frac{s}{m}\Bigr)^2 \sum_i \log p(P_i u),

    over the m x m patches at every s-th row and column, the image continued periodically, so that every pixel is in as
    many of them. The factor keeps the weight of the sum that of one patch per m x m pixels: with overlapping patches
    (s < m) each pixel counts once, not :math:`(m / s)^2` times, and the potential is a geometric mean of those that the
    :math:`(m/s)^2` tilings with patches side by side give.

    It is a potential, not the log density of a law whose patches have density p: it is unnormalised, and neighbouring
    patches are not independent. Its marginals are wider or narrower than those of real images; check the posterior.

    >>> patches = Flow(nn.load_pretrained("patch_flow"))
    >>> def model(data=None):
    ...     image = numpyro.sample("image", dist.Uniform(0, 1).expand([128, 128]).to_event(2))
    ...     numpyro.factor("patches", expected_patch_log_likelihood(patches.log_prob, image, stride=4))
    ...     numpyro.sample("data", dist.Normal(blur(image), 0.05).to_event(2), obs=data)

    Args:
        log_prob: log density of patches, given as rows of ``side**2`` numbers (row-major).
        image: u.
        side: m.
        stride: s, a divisor of both sides of the image; 1 for all patches, ``side`` for patches side by side.
        shift: row and column of the first patch; may be traced, for instance drawn anew in every step.

    Raises:
        TypeError: ``log_prob`` cannot be called or returns no numbers, ``image`` is no real numbers, ``side`` or
            ``stride`` no integer, ``shift`` no two integers.
        ValueError: an image that is no matrix or smaller than a patch; a stride that does not divide its sides or is
            larger than a patch; densities that are not one number per patch.

    References:
        Zoran & Weiss, ICCV 2011, equation 2 (sum over all overlapping patches; here divided by their number per pixel).
    """
    check_callable(HERE, "log_prob", log_prob, "a function of rows of patches")
    image = jnp.asarray(check_real(HERE, "image", image))
    side, stride = check_count(HERE, "side", side), check_count(HERE, "stride", stride)
    rows, columns = _shift(shift)
    if image.ndim != 2 or min(image.shape) < side:
        raise ValueError(
            f"{HERE}: `image` must be a matrix whose sides are at least `side` = {side}; got {image.shape}."
        )
    height, width = image.shape
    if not 1 <= stride <= side or height % stride or width % stride:
        raise ValueError(
            f"{HERE}: `stride` must be between 1 and `side` = {side} and divide the sides of "
            f"the image {image.shape}; got {stride}."
        )
    moved = jnp.roll(jnp.roll(image, -rows, axis=0), -columns, axis=1)
    around = jnp.pad(moved, ((0, side - 1), (0, side - 1)), mode="wrap")
    offsets = [around[i : i + height : stride, j : j + width : stride] for i in range(side) for j in range(side)]
    patches = jnp.stack(offsets, axis=-1).reshape(-1, side**2)
    found = check_real(HERE, "log_prob", log_prob(patches))
    if jnp.shape(found) != (len(patches),):
        raise ValueError(
            f"{HERE}: `log_prob` must give one number for each of {len(patches)} patches; got shape {jnp.shape(found)}."
        )
    return (stride / side) ** 2 * jnp.sum(found)


def _shift(value: Any) -> tuple[Array | int, Array | int]:
    """Two integers, which may be traced."""
    is_pair = isinstance(value, tuple | list) and len(value) == 2
    if not (is_pair and all(_is_integer(number) for number in value)):
        raise TypeError(f"{HERE}: `shift` must be two integers, a row and a column; got {describe(value)}.")
    return value[0], value[1]


def _is_integer(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool)
    dtype = getattr(value, "dtype", None)
    return dtype is not None and jnp.shape(value) == () and jnp.issubdtype(dtype, jnp.integer)
