"""Coupling flows for vectors: each half is transformed given the other, and given a context."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_key
from numpyro_inverse.nn._bijectors import affine, import_distrax, linear, spline, standardizing
from numpyro_inverse.nn._context_embedding import ContextEmbedding, as_embedding, features_of
from numpyro_inverse.nn._flow_density import FlowDensity
from numpyro_inverse.nn._networks import ZeroMLP, check_counts, check_event

if TYPE_CHECKING:
    import distrax


class CouplingFlow(FlowDensity):
    r"""Couplings of halves of a vector with linear maps between them, for up to a few hundred numbers.

    Layer l is :math:`f_l = A_l \circ c_l`, where :math:`A_l z = L_l U_l z + b_l` mixes all numbers, and :math:`c_l`
    transforms one half element by element with parameters computed from the other, and from a context if there is one.
    It starts as the identity, up to a linear map that standardizes the data if there are some.

    Args:
        size: numbers per event, 2 or more; 1 or more with a context.
        layers: couplings.
        width: of the conditioners' two hidden layers.
        bins: of the rational-quadratic splines on [-8, 8], the identity outside; 0 for affine couplings.
        data: rows whose mean and covariance the last linear map is to have at the start.
        context: makes it conditional: the numbers in a context vector, or a
            :class:`~numpyro_inverse.nn.ContextEmbedding` for contexts on another scale, of another shape or seen
            through a network.
        key: of the initial weights.

    Raises:
        TypeError: a size that is no integer; a ``context`` that is neither a number nor an embedding; data that are no
            numbers; ``key`` is no random key.
        ValueError: too few numbers, no layer or width; data that are not finite, have another length or are all
            the same. When called: events and contexts of another shape.

    References:
        Dinh, Sohl-Dickstein & Bengio, ICLR 2017 (affine couplings); Durkan, Bekasov, Murray & Papamakarios, NeurIPS
        2019, section 3 (splines, and linear maps in LU form between them); Winkler, Worrall, Hoogeboom & Welling,
        arXiv:1912.00042 (conditional flows).
    """

    networks: tuple[ZeroMLP, ...]
    matrices: tuple[Float[Array, "size size"], ...]
    shifts: tuple[Float[Array, " size"], ...]
    embedding: ContextEmbedding | None
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
        context: int | ContextEmbedding | None = None,
        key: PRNGKeyArray,
    ):
        check_counts("CouplingFlow", size=size, layers=layers, width=width)
        check_counts("CouplingFlow", 0, bins=bins)
        check_key("CouplingFlow", "key", key)
        self.embedding = as_embedding("CouplingFlow", context)
        if size < 2 and self.embedding is None:
            raise ValueError(f"CouplingFlow: `size` must be 2 or more, for a half is given the other; got {size}.")
        each = 3 * bins + 1 if bins else 2
        halves = [(size // 2, size - size // 2)[:: -1 if i % 2 and size > 1 else 1] for i in range(layers)]
        seen = 0 if self.embedding is None else self.embedding.size
        keys = jax.random.split(key, layers)
        self.networks = tuple(
            ZeroMLP(kept + seen, moved * each, width, key=k) for (kept, moved), k in zip(halves, keys, strict=True)
        )
        matrix, shift = standardizing("CouplingFlow", data, size)
        self.matrices = (*(jnp.eye(size) for _ in range(layers - 1)), matrix)
        self.shifts = (*(jnp.zeros(size) for _ in range(layers - 1)), shift)
        self.shape = (size,)
        self.bins = bins

    @property
    def context_shape(self) -> tuple[int, ...] | None:
        """The shape of a context; None if the flow takes none."""
        return None if self.embedding is None else self.embedding.shape

    def forward_and_log_det(
        self, z: Float[Array, " size"], context: Float[Array, "*context"] | None = None
    ) -> tuple[Float[Array, " size"], Float[Array, ""]]:
        """From noise to data."""
        z = check_event("CouplingFlow", "z", z, self.shape)
        return self._bijector(context).forward_and_log_det(z)

    def inverse_and_log_det(
        self, x: Float[Array, " size"], context: Float[Array, "*context"] | None = None
    ) -> tuple[Float[Array, " size"], Float[Array, ""]]:
        """From data to noise."""
        x = check_event("CouplingFlow", "x", x, self.shape)
        return self._bijector(context).inverse_and_log_det(x)

    def _bijector(self, context: Array | None = None) -> distrax.Chain:
        distrax = import_distrax()
        features = features_of("CouplingFlow", self.embedding, context)
        size = self.shape[0]
        steps: list[distrax.Bijector] = []  # from the last applied to the first
        for i, (network, matrix, shift) in enumerate(zip(self.networks, self.matrices, self.shifts, strict=True)):
            coupling = distrax.SplitCoupling(
                size // 2, 1, self._conditioner(network, features), self._scalar, swap=i % 2 == 1 and size > 1
            )
            steps = [linear(matrix, shift), coupling, *steps]
        return distrax.Chain(steps)

    def _conditioner(self, network: ZeroMLP, features: Array | None) -> Callable[[Array], Array]:
        each = 3 * self.bins + 1 if self.bins else 2
        if features is None:
            return lambda kept: network(kept).reshape(-1, each)
        return lambda kept: network(jnp.concatenate([kept, features.astype(kept.dtype)])).reshape(-1, each)

    def _scalar(self, parameters: Float[Array, "n p"]) -> distrax.Bijector:
        return spline(parameters) if self.bins else affine(parameters)
