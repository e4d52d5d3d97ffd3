"""A normalizing flow for grey images: coarse pixels first, then those between them, scale by scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from numpyro_inverse._checks import check_key, describe
from numpyro_inverse.nn._bijectors import affine, import_distrax
from numpyro_inverse.nn._flow_density import FlowDensity
from numpyro_inverse.nn._networks import ZeroConvNet, ZeroMLP, check_counts, check_event, check_rows, check_sides

if TYPE_CHECKING:
    import distrax

BINS = 8  # of the splines
EDGE = 1e-6  # distance of a uniform variable from 0 and 1 at least: what single precision still resolves


class MultiscaleFlow(FlowDensity):
    r"""An invertible map from white noise to images with values in [0, 1].

    In the direction from image to noise:

    1. Every pixel goes through one fixed, piecewise linear distribution function, that of all training pixels, so that
       its values are about uniform on [0, 1], sharp peaks (black) included.
    2. The image is cut into the four sub-images of every second row and column, a (even, even), b, c and d (odd, odd).
       A coupling of rational-quadratic splines transforms b and c given a and d, their four neighbours each; a second
       one d given a, its diagonal neighbours.
    3. b, c and d become Gaussian, and go through ``steps`` of an invertible 1 x 1 convolution and an affine coupling,
       given a.
    4. a is an image of half the size, for which 2 and 3 are repeated until a side is odd; that last image goes through
       spline couplings with dense conditioners on a chessboard's white and black fields, and a linear map.

    All conditioners are residual networks; the map starts as a fixed one. Both directions take one evaluation of each.

    Args:
        shape: height and width.
        pixels: numbers in [0, 1], as many as one likes: those whose distribution function is used, on a grid of 1/256.
        width: channels of the convolutional conditioners, and half the width of the dense ones.
        depth: their residual blocks.
        steps: of 1 x 1 convolution and affine coupling per scale.
        key: of the initial weights.

    Raises:
        TypeError: a side, ``width``, ``depth`` or ``steps`` that is no integer; pixels that are no numbers; ``key`` is
            no random key.
        ValueError: sides that are too small to be halved; pixels outside [0, 1], not finite or none; a ``width``,
            ``depth`` or ``steps`` that is too small.

    References:
        Dinh, Sohl-Dickstein & Bengio, ICLR 2017 (couplings, scales); Kingma & Dhariwal, NeurIPS 2018 (1 x 1
        convolutions); Durkan, Bekasov, Murray & Papamakarios, NeurIPS 2019 (splines); Reed et al., ICML 2017 (order of
        the pixels).
    """

    levels: Float[Array, " values"]
    scales: tuple[_Scale, ...]
    coarse: _Coarse
    shape: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, int],
        pixels: Float[np.ndarray, "..."],
        *,
        width: int = 32,
        depth: int = 1,
        steps: int = 2,
        key: PRNGKeyArray,
    ):
        name = "MultiscaleFlow"
        if not isinstance(shape, tuple | list) or len(shape) != 2:
            raise ValueError(f"{name}: `shape` must be height and width; got {describe(shape)}.")
        height, columns = check_sides(name, "shape", shape)
        check_counts(name, width=width)
        check_counts(name, 0, depth=depth, steps=steps)
        check_key(name, "key", key)
        if height % 2 or columns % 2 or min(shape) < 4:
            raise ValueError(f"MultiscaleFlow: the sides of `shape` must be even and 4 or more; got {shape}.")
        pixels = check_rows(name, "pixels", pixels).ravel()
        if not len(pixels) or not np.all(np.isfinite(pixels)):
            raise ValueError(f"{name}: `pixels` must be finite, one number at least; got {len(pixels)} numbers.")
        if not np.all((pixels >= 0) & (pixels <= 1)):
            raise ValueError(
                f"MultiscaleFlow: `pixels` must be in [0, 1]; they range from {pixels.min():g} to {pixels.max():g} "
                "(`dequantize` scales bytes)."
            )
        counts = np.histogram(pixels, bins=256, range=(0, 1))[0] + 1e-3 * pixels.size / 256 + 1e-6
        self.levels = jnp.asarray(np.concatenate([[0.0], np.cumsum(counts) / counts.sum()]), jnp.result_type(float))
        scales = []
        while height % 2 == 0 and columns % 2 == 0 and min(height, columns) >= 4:
            key, used = jax.random.split(key)
            scales.append(_Scale(width, depth, steps, key=used))
            height, columns = height // 2, columns // 2
        self.scales = tuple(scales)
        self.coarse = _Coarse((height, columns), 2 * width, key=key)
        self.shape = (shape[0], shape[1])

    @property
    def codomain(self) -> constraints.Constraint:
        """Images with values in [0, 1]."""
        return constraints.independent(constraints.unit_interval, 2)

    def inverse_and_log_det(self, x: Float[Array, "h w"]) -> tuple[Float[Array, "h w"], Float[Array, ""]]:
        """From image to noise; the log determinant is minus infinity for values outside [0, 1]."""
        x = check_event("MultiscaleFlow", "x", x, self.shape)
        edges = jnp.linspace(0, 1, len(self.levels), dtype=x.dtype)
        bin_of = jnp.clip(jnp.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
        levels = jax.lax.stop_gradient(self.levels)
        slope = jnp.diff(levels) * (len(edges) - 1)
        u = levels[bin_of] + (x - edges[bin_of]) * slope[bin_of]
        log_det = jnp.sum(jnp.log(slope[bin_of]))
        details = []
        for scale in self.scales:
            parts = _cut(u)
            u = parts[..., 0]
            z, change = scale.inverse_and_log_det(parts)
            details.append(z)
            log_det += change
        z, change = self.coarse.inverse_and_log_det(u)
        for rest in reversed(details):
            z = _join(jnp.concatenate([z[..., None], rest], axis=-1))
        return z, jnp.where(jnp.all((x >= 0) & (x <= 1)), log_det + change, -jnp.inf)

    def forward_and_log_det(self, z: Float[Array, "h w"]) -> tuple[Float[Array, "h w"], Float[Array, ""]]:
        """From noise to image."""
        z, details = check_event("MultiscaleFlow", "z", z, self.shape), []
        for _ in self.scales:
            parts = _cut(z)
            z = parts[..., 0]
            details.append(parts[..., 1:])
        u, log_det = self.coarse.forward_and_log_det(z)
        for scale, rest in zip(reversed(self.scales), reversed(details), strict=True):
            parts, change = scale.forward_and_log_det(u, rest)
            log_det += change
            u = _join(parts)
        edges = jnp.linspace(0, 1, len(self.levels), dtype=z.dtype)
        levels = jax.lax.stop_gradient(self.levels)
        bin_of = jnp.clip(jnp.searchsorted(levels, u, side="right") - 1, 0, len(edges) - 2)
        slope = jnp.diff(levels) * (len(edges) - 1)
        x = edges[bin_of] + (u - levels[bin_of]) / slope[bin_of]
        return x, log_det - jnp.sum(jnp.log(slope[bin_of]))


class _Scale(eqx.Module):
    """Three quarters of an image given the fourth, a: uniform variables to Gaussian noise and back."""

    between: ZeroConvNet  # b and c given a and d
    centre: ZeroConvNet  # d given a; so named in the files of weights
    mixing: tuple[Float[Array, "3 3"], ...]
    affine: tuple[ZeroConvNet, ...]

    def __init__(self, width: int, depth: int, steps: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, steps + 2)
        self.between = ZeroConvNet(2, 2 * (3 * BINS + 1), width, depth, key=keys[0])
        self.centre = ZeroConvNet(1, 3 * BINS + 1, width, depth, key=keys[1])
        self.mixing = tuple(jnp.zeros((3, 3)) for _ in range(steps))
        self.affine = tuple(ZeroConvNet(2, 4, width, depth, key=k) for k in keys[2:])

    def inverse_and_log_det(self, parts):
        a, b_and_c, d = parts[..., :1], parts[..., 1:3], parts[..., 3:]
        b_and_c, change = self._between(a, d).inverse_and_log_det(b_and_c)
        log_det = jnp.sum(change)
        d, change = self._center(a).inverse_and_log_det(d)
        log_det += jnp.sum(change)
        u = jnp.concatenate([b_and_c, d], axis=-1)
        e, change = _gaussian(u)
        log_det += change
        for matrix, network in zip(self.mixing, self.affine, strict=True):
            mix = _invertible(matrix)
            e = jnp.einsum("ij,...j->...i", mix, e)
            log_det += _cells(e) * jnp.linalg.slogdet(mix)[1]
            e, change = _coupling(network, a).inverse_and_log_det(e)
            log_det += change
        return e, log_det

    def forward_and_log_det(self, a, e):
        a, log_det = a[..., None], jnp.zeros((), e.dtype)
        for matrix, network in zip(reversed(self.mixing), reversed(self.affine), strict=True):
            mix = _invertible(matrix)
            e, change = _coupling(network, a).forward_and_log_det(e)
            log_det += change - _cells(e) * jnp.linalg.slogdet(mix)[1]
            e = jnp.einsum("ij,...j->...i", jnp.linalg.inv(mix), e)
        u, change = _uniform(e)
        log_det += change
        d, change = self._center(a).forward_and_log_det(u[..., 2:])
        log_det += jnp.sum(change)
        b_and_c, change = self._between(a, d).forward_and_log_det(u[..., :2])
        return jnp.concatenate([a, b_and_c, d], axis=-1), log_det + jnp.sum(change)

    def _between(self, a, d):
        parameters = self.between(_centered(jnp.concatenate([a, d], axis=-1)))
        return _spline(parameters.reshape(*parameters.shape[:2], 2, -1))

    def _center(self, a):
        return _spline(self.centre(_centered(a))[..., None, :])


class _Coarse(eqx.Module):
    """A small image: couplings of all pixels with all, and a linear map."""

    networks: tuple[ZeroMLP, ...]
    matrix: Float[Array, "n n"]
    white: tuple[bool, ...] = eqx.field(static=True)

    def __init__(self, shape: tuple[int, int], width: int, *, key: PRNGKeyArray):
        n = shape[0] * shape[1]
        keys = jax.random.split(key, 4)
        self.white = tuple(bool(v) for v in (np.indices(shape).sum(axis=0) % 2 == 0).ravel())
        self.networks = tuple(ZeroMLP(n, n * (3 * BINS + 1), width, key=k) for k in keys)
        self.matrix = jnp.zeros((n, n))

    def _couplings(self) -> distrax.Chain:
        """From noise to image."""
        distrax = import_distrax()
        white = np.array(self.white)
        masks = [white if i % 2 else ~white for i in range(len(self.networks))]
        return distrax.Chain(
            [
                distrax.MaskedCoupling(
                    jnp.asarray(mask),
                    lambda u, network=network: network(_centered(u)).reshape(len(white), -1),
                    _spline,
                )
                for mask, network in zip(masks, self.networks, strict=True)
            ]
        )

    def inverse_and_log_det(self, u):
        flat, log_det = self._couplings().inverse_and_log_det(u.ravel())
        e, change = _gaussian(flat)
        mix = _invertible(self.matrix)
        return (mix @ e).reshape(u.shape), log_det + change + jnp.linalg.slogdet(mix)[1]

    def forward_and_log_det(self, z):
        mix = _invertible(self.matrix)
        flat, change = _uniform(jnp.linalg.solve(mix, z.ravel()))
        u, log_det = self._couplings().forward_and_log_det(flat)
        return u.reshape(z.shape), log_det + change - jnp.linalg.slogdet(mix)[1]


def _spline(parameters: Float[Array, "... p"]) -> distrax.RationalQuadraticSpline:
    """A monotone map of [0, 1] to itself for each pixel."""
    return import_distrax().RationalQuadraticSpline(parameters, range_min=0.0, range_max=1.0)


def _coupling(network: ZeroConvNet, a: Array) -> distrax.SplitCoupling:
    """Two channels scaled and shifted given the first one and the coarse image."""

    def conditioner(first: Array) -> Array:
        return network(jnp.concatenate([_centered(a), first], axis=-1)).reshape(*a.shape[:2], 2, 2)

    return import_distrax().SplitCoupling(1, 3, conditioner, affine)


def _invertible(matrix: Array) -> Array:
    """A unit lower triangular matrix times an upper triangular one with positive diagonal; zero gives the identity."""
    lower = jnp.tril(matrix, -1) + jnp.eye(len(matrix), dtype=matrix.dtype)
    upper = jnp.triu(matrix, 1) + jnp.diag(jnp.exp(jnp.diag(matrix)))
    return lower @ upper


def _gaussian(u: Array) -> tuple[Array, Array]:
    """Uniform to standard normal, and the log determinant."""
    z = ndtri(jnp.clip(u, EDGE, 1 - EDGE))
    return z, jnp.sum(0.5 * z**2) + 0.5 * z.size * jnp.log(2 * jnp.pi)


def _uniform(z: Array) -> tuple[Array, Array]:
    """Standard normal to uniform, and the log determinant."""
    return jnp.clip(ndtr(z), EDGE, 1 - EDGE), -jnp.sum(0.5 * z**2) - 0.5 * z.size * jnp.log(2 * jnp.pi)


def _centered(u: Array) -> Array:
    """Uniform variables with mean 0 and variance 1, for the networks."""
    return (u - 0.5) * 12**0.5


def _cells(e: Array) -> int:
    return e.shape[0] * e.shape[1]


def _cut(image: Float[Array, "h w"]) -> Float[Array, "half_h half_w 4"]:
    h, w = image.shape
    return image.reshape(h // 2, 2, w // 2, 2).transpose(0, 2, 1, 3).reshape(h // 2, w // 2, 4)


def _join(parts: Float[Array, "half_h half_w 4"]) -> Float[Array, "h w"]:
    h, w, _ = parts.shape
    return parts.reshape(h, w, 2, 2).transpose(0, 2, 1, 3).reshape(2 * h, 2 * w)
