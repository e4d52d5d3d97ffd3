"""Have the chains mixed? Asked of what a symmetry leaves alone, and of where on their orbits they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float, Inexact
from numpyro.infer import MCMC

from numpyro_inverse._checks import check_instance
from numpyro_inverse.infer.export._draws import by_chain
from numpyro_inverse.infer.export._orbit_draws import INVARIANTS, orbit_draws
from numpyro_inverse.symmetry import Symmetry

if TYPE_CHECKING:
    from pandas import DataFrame

RHAT = 1.01  # above, chains have not mixed (Vehtari et al. 2021)
MIN_ESS = 400  # of four chains, below which R-hat itself is not reliable (ibid.)
MOST_COPIES = 64  # whose weights are counted


@dataclass(frozen=True)
class OrbitDiagnostics:
    """What :func:`orbit_diagnostics` found.

    Attributes:
        rhat: the largest split R-hat, rank-normalized: of ``"invariants"``, ``"canonical"`` forms, the group element
            that says in which ``"copy"`` a draw is, and the ``"raw"`` coordinates, **which proves nothing**. Infinite
            where every chain is constant.
        ess: the smallest effective number of draws, bulk, likewise; 0 where every chain is constant.
        switches: how often a draw is in another copy than the one before.
        weights: of the copies, by element in the group's order; None of groups with more than 64 elements.
        weights_by_chain: likewise, chain by chain.
        num_draws: of all chains together.
    """

    rhat: dict[str, float]
    ess: dict[str, float]
    switches: float
    weights: Float[np.ndarray, " order"] | None
    weights_by_chain: Float[np.ndarray, "chain order"] | None
    num_draws: int

    @property
    def mixed_within(self) -> bool:
        """Whether the chains agree on what the symmetry leaves alone: R-hat at most 1.01, ESS at least 400."""
        return all(self._good(kind) for kind in ("invariants", "canonical"))

    @property
    def mixed_among_copies(self) -> bool:
        """Whether the chains go from copy to copy often enough for the copies' weights to mean something."""
        return self._good("copy")

    @property
    def table(self) -> DataFrame:
        """R-hat and ESS, one row each."""
        from pandas import DataFrame

        return DataFrame({"rhat": self.rhat, "ess": self.ess})

    def verdict(self) -> str:
        """Two sentences: along the orbits, and across them."""
        kind = max(("invariants", "canonical"), key=lambda kind: (self.rhat[kind], -self.ess[kind]))
        within = f"R-hat {self.rhat[kind]:.3f}, {self.ess[kind]:.0f} effective of {self.num_draws} draws ({kind})"
        if self.mixed_within:
            text = f"Modulo the symmetry the chains have mixed: {within}."
        else:
            raw = f"R-hat {self.rhat['raw']:.3f}, {self.ess['raw']:.0f} effective draws"
            text = f"Modulo the symmetry the chains have NOT mixed: {within}, whatever raw coordinates say ({raw})."
        among = f"R-hat {self.rhat['copy']:.3f}, {self.ess['copy']:.0f} effective draws, {self.switches:.1%} switches"
        if self.mixed_among_copies:
            return f"{text} They go freely from copy to copy: {among}."
        return (
            f"{text} They do NOT go from copy to copy ({among}), so the share of draws in each means nothing: use "
            "`OrbitMoves`, or, of an invariant posterior, report canonical forms."
        )

    def _good(self, kind: str) -> bool:
        return bool(self.rhat[kind] <= RHAT and self.ess[kind] >= MIN_ESS)


def orbit_diagnostics(
    posterior: MCMC | Mapping[str, Inexact[np.ndarray, "..."]], symmetry: Symmetry, *, num_chains: int | None = None
) -> OrbitDiagnostics:
    r"""R-hat and effective sizes that a symmetry does not fool.

    Raw coordinates of a symmetric posterior fail both ways. Chains that are stuck in a copy each have a large R-hat
    though nothing is wrong but the copies' weights; and random flips, by ``OrbitMoves`` or ``symmetrize``, make every
    draw nearly independent of the last, so that R-hat is 1.01 and the effective size that of all draws, whatever the
    chain does across the orbits. What says something is asked apart:

    - **invariants** and **canonical forms**: has the chain mixed modulo the symmetry?
    - the **copy**, the group element that takes a draw to its canonical form: does it go from copy to copy?

    Args:
        posterior: an ``MCMC`` that has run, or samples of shape ``(chain, draw, ...)`` by site.
        symmetry: of sites of the posterior.
        num_chains: number of chains in a dict of samples without a chain axis.

    Raises:
        TypeError: ``posterior`` is neither an ``MCMC`` nor numbers by site.
        ValueError: a symmetric site that is missing; fewer than 4 draws a chain.

    References:
        Vehtari, Gelman, Simpson, Carpenter & Bürkner, Bayesian Analysis 16 (2021) 667-718.
    """
    where = "orbit_diagnostics"
    check_instance(where, "symmetry", symmetry, Symmetry, "a Symmetry")
    draws = by_chain(where, posterior, num_chains)
    symmetry.check_sites(where, draws)
    draws = {name: draws[name] for name in symmetry.sites}
    chains, length = next(iter(draws.values())).shape[:2]
    if length < 4:
        raise ValueError(f"{where}: 4 draws a chain are needed for split chains; got {length}.")
    orbits = orbit_draws(draws, symmetry)
    elements = jax.device_get(jax.jit(jax.vmap(jax.vmap(symmetry.canonicalizer)))(draws))
    copies = np.concatenate([_numbers(leaf) for leaf in jax.tree.leaves(elements)], axis=-1)
    kinds = {
        "invariants": [orbits[name + INVARIANTS] for name in symmetry.sites],
        "canonical": [orbits[name] for name in symmetry.sites],
        "copy": [copies],
        "raw": list(draws.values()),
    }
    found = {kind: _worst(arrays, may_be_constant=kind != "copy") for kind, arrays in kinds.items()}
    weights = _weights(symmetry, elements)
    return OrbitDiagnostics(
        rhat={kind: rhat for kind, (rhat, _) in found.items()},
        ess={kind: ess for kind, (_, ess) in found.items()},
        switches=float(np.mean(np.any(copies[:, 1:] != copies[:, :-1], axis=-1))),
        weights=None if weights is None else weights.mean(axis=0),
        weights_by_chain=weights,
        num_draws=chains * length,
    )


def _numbers(leaf: Any) -> Float[np.ndarray, "chain draw k"]:
    """A part of the elements as numbers that go round with an angle."""
    leaf = np.asarray(leaf)
    if np.issubdtype(leaf.dtype, np.floating):
        leaf = np.stack([np.cos(leaf), np.sin(leaf)], axis=-1)
    return leaf.reshape(*leaf.shape[:2], -1).astype(float)


def _worst(arrays: list[Inexact[np.ndarray, "chain draw ..."]], may_be_constant: bool) -> tuple[float, float]:
    """The largest R-hat and the smallest effective size; of what varies, if some of it may be constant."""
    import arviz as az

    columns = []
    for x in arrays:
        x = np.stack([x.real, x.imag], axis=-1) if np.iscomplexobj(x) else x
        columns += list(x.reshape(*x.shape[:2], -1).transpose(2, 0, 1))
    varying = [x for x in columns if np.any(x != x[0, 0])]
    rhats, sizes = [], []
    for x in varying if may_be_constant and varying else columns:
        still = np.all(x == x[:, :1])  # every chain by itself
        rhats.append(np.inf if still else float(az.rhat(x)))
        sizes.append(0.0 if still else float(az.ess(x)))
    return float(np.max(rhats)), float(np.min(sizes))


def _weights(symmetry: Symmetry, elements: Any) -> Float[np.ndarray, "chain order"] | None:
    """The share of each chain's draws that are in the copy of each element."""
    order = symmetry.group.order
    if order is None or order > MOST_COPIES:
        return None
    listed = [np.asarray(leaf).reshape(order, -1) for leaf in jax.tree.leaves(symmetry.group.elements())]
    drawn = [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(elements)]
    equal = [np.all(one[:, :, None] == other, axis=-1) for one, other in zip(drawn, listed, strict=True)]
    return np.mean(np.all(equal, axis=0), axis=1)
