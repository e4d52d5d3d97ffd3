"""Draws as diagnostics need them under a symmetry: canonical forms and invariants."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Inexact

from numpyro_inverse.symmetry import Symmetry, canonicalize

INVARIANTS = "_invariants"


def orbit_draws(
    draws: Mapping[str, Inexact[np.ndarray, "chain draw ..."]], symmetry: Symmetry
) -> dict[str, Inexact[np.ndarray, "chain draw ..."]]:
    """The draws with each symmetric site ``u`` in canonical form, and its invariants as ``u_invariants``.

    Raises:
        ValueError: a symmetric site that is missing, or another that has the name of the invariants.
    """
    symmetry.check_sites("orbit_draws", draws)
    found = {name: np.asarray(x) for name, x in canonicalize(draws, symmetry, batch_ndims=2).items()}
    for name in symmetry.sites:
        if f"{name}{INVARIANTS}" in draws:
            raise ValueError(f"orbit_draws: there is a site {name + INVARIANTS!r} already; rename it in the model.")
        of_each = jax.jit(jax.vmap(jax.vmap(symmetry.group.invariants)))
        found[f"{name}{INVARIANTS}"] = np.asarray(of_each(draws[name]))
    return found
