"""Networks that are nonexpansive, or contractions, whatever their weights."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_count, check_key, check_positive_number, check_real
from numpyro_inverse.denoisers import Certificate

HERE = "NonexpansiveNetwork"
METHOD = "product of layers, each with a Jacobian of norm 1 at most by diagonal dominance (SLL)"


class _Layer(eqx.Module):
    r""":math:`x - 2 W^{\mathsf T} Q^{-1} \mathrm{relu}(W x + b)`, Q as :class:`NonexpansiveNetwork` says."""

    weight: Float[Array, "width n"]
    bias: Float[Array, " width"]

    def __init__(self, size: int, width: int, key: PRNGKeyArray):
        self.weight = jax.random.normal(key, (width, size)) / size**0.5
        self.bias = jnp.zeros(width)

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        weight = self.weight.astype(x.dtype)
        sums = jnp.sum(jnp.abs(jnp.matmul(weight, weight.T, precision="highest")), axis=1)
        inner = jax.nn.relu(jnp.matmul(weight, x, precision="highest") + self.bias.astype(x.dtype))
        safe = jnp.maximum(sums, jnp.finfo(x.dtype).tiny)
        return x - 2 * jnp.matmul(weight.T, inner / safe, precision="highest")


class NonexpansiveNetwork(eqx.Module):
    r"""A network with :math:`|N(x) - N(z)| \le \ell\, |x - z|` for all weights:

    .. math:: N = \ell\, (N_d \circ \dots \circ N_1), \qquad
        N_i(x) = x - 2 W_i^{\mathsf T} Q_i^{-1} \mathrm{relu}(W_i x + b_i), \quad
        Q_i = \mathrm{diag}\Bigl(\sum_k |W_i W_i^{\mathsf T}|_{jk}\Bigr)_j.

    :math:`W^{\mathsf T} Q^{-1} W \le I` because :math:`Q - W W^{\mathsf T}` is diagonally dominant, so that the
    Jacobian of a layer, symmetric, has eigenvalues in [-1, 1]. It acts on raveled arrays, so it is for small ones;
    it may be called as a denoiser, ``network(x, sigma)``, whose level it ignores.

    Args:
        size: numbers in x.
        width: hidden units of a layer.
        depth: layers.
        lipschitz: :math:`\ell`, at most 1; below 1 it is a contraction.
        key: a random key.

    Raises:
        TypeError: an argument that is no number, or no key.
        ValueError: ``size``, ``width`` or ``depth`` below 1; ``lipschitz`` not in (0, 1]; when called, not ``size``
            numbers.

    References:
        Araujo, Havens, Delattre, Allauzen & Hu, ICLR (2023), theorem 3 with q = 1.
    """

    layers: tuple[_Layer, ...]
    lipschitz: float = eqx.field(static=True)

    def __init__(self, size: int, width: int, depth: int = 2, *, lipschitz: float = 1.0, key: PRNGKeyArray):
        size, width = check_count(HERE, "size", size), check_count(HERE, "width", width)
        self.lipschitz = check_positive_number(HERE, "lipschitz", lipschitz)
        if self.lipschitz > 1:
            raise ValueError(f"{HERE}: `lipschitz` must be at most 1; got {lipschitz}.")
        keys = jax.random.split(check_key(HERE, "key", key), check_count(HERE, "depth", depth))
        self.layers = tuple(_Layer(size, width, k) for k in keys)

    def __call__(self, x: Float[Array, "*shape"], sigma: Any = None) -> Float[Array, "*shape"]:
        x = check_real(HERE, "x", x)
        x, size = jnp.asarray(x, jnp.result_type(x, float)), self.layers[0].weight.shape[-1]
        if x.size != size:
            raise ValueError(f"{HERE}: `x` must have {size} numbers, its `size`; got shape {x.shape}.")
        flat = x.ravel()
        for layer in self.layers:
            flat = layer(flat)
        return self.lipschitz * flat.reshape(x.shape)

    def certificates(self, sigma: Any = None) -> dict[str, Certificate]:
        """What holds by construction: ``"lipschitz"``."""
        return {"lipschitz": Certificate(self.lipschitz, METHOD, True)}
