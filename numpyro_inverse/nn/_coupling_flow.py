"""Normalizing flows for vectors: couplings and masked autoregressive maps."""

from __future__ import annotations

from collections.abc import Callable

import distrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse.nn._networks import ZeroMLP, check_counts

REACH = 8.0  # splines are the identity outside of [-REACH, REACH]
LARGEST_LOG_SCALE = 3.0


class CouplingFlow(eqx.Module):
    r"""Couplings of halves of a vector with linear maps between them, for up to a few hundred numbers.

    Layer l is :math:`f_l = A_l \circ c_l`, where :math:`A_l z = L_l U_l z + b_l` mixes all numbers, and :math:`c_l`
    transforms one half element by element with parameters computed from the other. It starts as
    the identity, up to a linear map that standardises the data if there are some.

    Args:
        size: numbers per event, 2 or more.
        layers: couplings.
        width: of the conditioners' two hidden layers.
        bins: of the rational-quadratic splines on [-8, 8], the identity outside; 0 for affine couplings.
        data: rows whose mean and covariance the last linear map is to have at the start.
        key: of the initial weights.

    Raises:
        TypeError: a size that is no integer.
        ValueError: fewer than two numbers, no layer or width; data that are not finite, have another length or are all
            the same.

    References:
        Dinh, Sohl-Dickstein & Bengio, ICLR 2017 (affine couplings); Durkan, Bekasov, Murray & Papamakarios, NeurIPS
        2019, section 3 (splines, and linear maps in LU form between them).
    """

    networks: tuple[ZeroMLP, ...]
    matrices: tuple[Float[Array, "size size"], ...]
    shifts: tuple[Float[Array, " size"], ...]
    shape: tuple[int] = eqx.field(static=True)
    bins: int = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        *,
        layers: int = 6,
        width: int = 64,
        bins: int = 8,
        data: Float[np.ndarray, "n size"] | None = None,
        key: PRNGKeyArray,
    ):
        check_counts("CouplingFlow", size=size, layers=layers, width=width)
        check_counts("CouplingFlow", 0, bins=bins)
        if size < 2:
            raise ValueError(f"CouplingFlow: `size` must be 2 or more, for a half is given the other; got {size}.")
        each = 3 * bins + 1 if bins else 2
        halves = [(size // 2, size - size // 2)[:: -1 if i % 2 else 1] for i in range(layers)]
        keys = jax.random.split(key, layers)
        self.networks = tuple(
            ZeroMLP(kept, moved * each, width, key=k) for (kept, moved), k in zip(halves, keys, strict=True)
        )
        matrix, shift = _standardising("CouplingFlow", data, size)
        self.matrices = (*(jnp.eye(size) for _ in range(layers - 1)), matrix)
        self.shifts = (*(jnp.zeros(size) for _ in range(layers - 1)), shift)
        self.shape = (size,)
        self.bins = bins

    def forward_and_log_det(self, z: Float[Array, " size"]) -> tuple[Float[Array, " size"], Float[Array, ""]]:
        """From noise to data."""
        return self._bijector().forward_and_log_det(z)

    def inverse_and_log_det(self, x: Float[Array, " size"]) -> tuple[Float[Array, " size"], Float[Array, ""]]:
        """From data to noise."""
        return self._bijector().inverse_and_log_det(x)

    def _bijector(self) -> distrax.Chain:
        steps: list[distrax.Bijector] = []  # from the last applied to the first
        for i, (network, matrix, shift) in enumerate(zip(self.networks, self.matrices, self.shifts, strict=True)):
            coupling = distrax.SplitCoupling(
                self.shape[0] // 2, 1, self._conditioner(network), self._scalar, swap=i % 2 == 1
            )
            steps = [_linear(matrix, shift), coupling, *steps]
        return distrax.Chain(steps)

    def _conditioner(self, network: ZeroMLP) -> Callable[[Array], Array]:
        each = 3 * self.bins + 1 if self.bins else 2
        return lambda kept: network(kept).reshape(-1, each)

    def _scalar(self, parameters: Float[Array, "n p"]) -> distrax.Bijector:
        return spline(parameters) if self.bins else affine(parameters)


class AutoregressiveFlow(eqx.Module):
    r"""Masked autoregressive maps: :math:`z_i = (x_i - m_i(x_{<i})) / s_i(x_{<i})`, in a new order in every layer.

    The density takes one evaluation per layer; a draw takes as many as there are numbers, in a loop.

    Args:
        size: numbers per event, 2 or more.
        layers: maps; the order is reversed between them.
        width: of the two masked hidden layers.
        data: rows whose mean and covariance the last linear map is to have at the start.
        key: of the initial weights.

    Raises:
        TypeError: a size that is no integer.
        ValueError: fewer than two numbers, no layer or width; data that are not finite, have another length or are all
            the same.

    References:
        Papamakarios, Pavlakou & Murray, NeurIPS 2017, equation 3; Germain, Gregor, Murray & Larochelle, ICML 2015 (the
        masks).
    """

    layers: tuple[tuple[tuple[Array, Array], ...], ...]
    matrix: Float[Array, "size size"]
    shift: Float[Array, " size"]
    shape: tuple[int] = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        *,
        layers: int = 5,
        width: int = 64,
        data: Float[np.ndarray, "n size"] | None = None,
        key: PRNGKeyArray,
    ):
        check_counts("AutoregressiveFlow", size=size, layers=layers, width=width)
        if size < 2:
            raise ValueError(f"AutoregressiveFlow: `size` must be 2 or more; got {size}.")

        def dense(key, n, m):
            return jax.random.normal(key, (m, n)) * (2 / n) ** 0.5, jnp.zeros(m)

        made = []
        for one in jax.random.split(key, layers):
            first, second = jax.random.split(one)
            last = (jnp.zeros((2 * size, width)), jnp.zeros(2 * size))
            made.append((dense(first, size, width), dense(second, width, width), last))
        self.layers = tuple(made)
        matrix, shift = _standardising("AutoregressiveFlow", data, size)
        self.matrix, self.shift = matrix, shift
        self.shape = (size,)
        self.width = width

    def inverse_and_log_det(self, x: Float[Array, " size"]) -> tuple[Float[Array, " size"], Float[Array, ""]]:
        """From data to noise."""
        z, log_det = _linear(self.matrix, self.shift).inverse_and_log_det(x)
        for layer in reversed(self.layers):
            z = z[::-1]
            shift, log_scale = self._shift_and_log_scale(layer, z)
            z = (z - shift) * jnp.exp(-log_scale)
            log_det -= jnp.sum(log_scale)
        return z, log_det

    def forward_and_log_det(self, z: Float[Array, " size"]) -> tuple[Float[Array, " size"], Float[Array, ""]]:
        """From noise to data, number by number."""
        log_det = jnp.zeros((), z.dtype)
        for layer in self.layers:

            def one(i, x, z=z, layer=layer):
                shift, log_scale = self._shift_and_log_scale(layer, x)
                return x.at[i].set(z[i] * jnp.exp(log_scale[i]) + shift[i])

            x = jax.lax.fori_loop(0, self.shape[0], one, jnp.zeros_like(z))
            log_det += jnp.sum(self._shift_and_log_scale(layer, x)[1])
            z = x[::-1]
        x, change = _linear(self.matrix, self.shift).forward_and_log_det(z)
        return x, log_det + change

    def _shift_and_log_scale(self, layer, x):
        size = self.shape[0]
        of_hidden = np.arange(self.width) % (size - 1)  # a unit sees the numbers up to this one
        masks = (
            of_hidden[:, None] >= np.arange(size)[None],
            of_hidden[:, None] >= of_hidden[None],
            np.tile(np.arange(size), 2)[:, None] > of_hidden[None],
        )
        for i, ((weight, bias), mask) in enumerate(zip(layer, masks, strict=True)):
            x = (weight * mask) @ x + bias
            if i < 2:
                x = jax.nn.gelu(x)
        shift, log_scale = x[:size], x[size:]
        return shift, LARGEST_LOG_SCALE * jnp.tanh(log_scale / LARGEST_LOG_SCALE)


def spline(parameters: Float[Array, "n p"]) -> distrax.RationalQuadraticSpline:
    """A monotone map of each number, the identity outside [-8, 8]."""
    return distrax.RationalQuadraticSpline(parameters, range_min=-REACH, range_max=REACH, boundary_slopes="identity")


def affine(parameters: Float[Array, "*n 2"]) -> distrax.ScalarAffine:
    """Shift and scale of each number, the scale within a factor of e^3."""
    log_scale = LARGEST_LOG_SCALE * jnp.tanh(parameters[..., 1] / LARGEST_LOG_SCALE)
    return distrax.ScalarAffine(shift=parameters[..., 0], log_scale=log_scale)


def _linear(matrix: Float[Array, "n n"], shift: Float[Array, " n"]) -> distrax.Bijector:
    """L U x + b; the strict lower triangle of ``matrix`` is that of L (ones on its diagonal), the rest is U."""
    return distrax.LowerUpperTriangularAffine(matrix, shift)


def _standardising(
    name: str, data: np.ndarray | None, size: int
) -> tuple[Float[Array, "size size"], Float[Array, " size"]]:
    """Factors and shift of the affine map from white noise to the mean and covariance of the rows."""
    if data is None:
        return jnp.eye(size), jnp.zeros(size)
    data = np.asarray(data, float)
    if data.ndim != 2 or data.shape[1] != size or not np.all(np.isfinite(data)):
        raise ValueError(
            f"{name}: `data` must be finite rows of {size} numbers; got shape {data.shape}"
            f"{'' if np.all(np.isfinite(data)) else ' with numbers that are not finite'}."
        )
    if len(data) < 2 or not np.any(np.ptp(data, axis=0)):
        raise ValueError(
            f"{name}: `data` must be two different rows at least, to have a covariance; got {len(data)} rows."
        )
    covariance = np.atleast_2d(np.cov(data, rowvar=False))
    root = np.linalg.cholesky(covariance + 1e-8 * np.trace(covariance) / size * np.eye(size))
    scale = np.diag(root)
    return jnp.asarray(root / scale - np.eye(size) + np.diag(scale), float), jnp.asarray(data.mean(axis=0), float)
