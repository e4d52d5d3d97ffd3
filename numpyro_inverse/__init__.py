"""Bayesian inverse problems in NumPyro.

Write the inverse problem as a NumPyro model; put a field prior from :mod:`numpyro_inverse.distributions` on a domain
from :mod:`numpyro_inverse.domains`, a forward map from :mod:`numpyro_inverse.operators`, and infer with NumPyro's own
``MCMC`` on the model made ready by :func:`~numpyro_inverse.infer.whiten`.

What is named here is imported when it is first touched.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpyro_inverse import (
        calibration,
        denoisers,
        distributions,
        domains,
        factors,
        infer,
        nn,
        operators,
        pinn,
        plots,
        sbi,
        solvers,
        sparse,
        symmetry,
    )
    from numpyro_inverse.infer import fit_coordinates, to_arviz, whiten

__all__ = [
    "calibration",
    "denoisers",
    "distributions",
    "domains",
    "factors",
    "fit_coordinates",
    "infer",
    "nn",
    "operators",
    "pinn",
    "plots",
    "sbi",
    "solvers",
    "sparse",
    "symmetry",
    "to_arviz",
    "whiten",
]
__version__ = "0.1.0"

_FROM_INFER = ("fit_coordinates", "to_arviz", "whiten")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _FROM_INFER:
        return getattr(import_module(f"{__name__}.infer"), name)
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
