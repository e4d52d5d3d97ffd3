r"""How far a trajectory of NUTS should turn.

On a standard normal a trajectory doubles until it has turned by more than :math:`\pi`. With a step of
:math:`1.2 \pi / (2^j - 1)` it ends at :math:`1.2 \pi`, after :math:`2^j - 1` steps. The next draw comes from the last
doubling, at an angle :math:`\theta` that is spread, like a triangle, around half of that, so the autocorrelation of
values, :math:`E \cos \theta`, is -0.23 and that of squares, :math:`E \cos^2 \theta`, is 0.40. Trajectories that turn
further are better for means but worse for variances.
"""

import numpy as np

TURN = 1.2 * np.pi


def step_for_turn(depth: int) -> float:
    r""":math:`1.2 \pi / (2^j - 1)`, j the ``depth`` of the tree."""
    return TURN / (2**depth - 1)
