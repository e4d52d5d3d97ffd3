"""The effect handler that puts a learned law in a simulator's place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpyro.distributions import Distribution
from numpyro.primitives import Messenger

from numpyro_inverse.distributions import Simulator
from numpyro_inverse.sbi._marked import simulator_in, with_law


class replace_law(Messenger):
    """Effect handler: one site's simulator becomes another law of the same arguments, in the same plates.

    Args:
        fn: a model.
        site: whose law.
        law: from the simulator to a distribution of its batch and event shape.

    Raises:
        ValueError: when the model runs: the site is no simulator.
    """

    def __init__(self, fn: Callable | None = None, *, site: str, law: Callable[[Simulator], Distribution]):
        self.site, self.law = site, law
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        """Exchange the law of the site."""
        if msg["type"] != "sample" or msg["name"] != self.site:
            return
        if simulator_in(msg["fn"]) is None:
            raise ValueError(
                f"site {self.site!r} is no longer a `distributions.Simulator`: the surrogate was learned for another "
                "model."
            )
        msg["fn"] = with_law(msg["fn"], self.law)
