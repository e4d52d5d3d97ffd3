"""Every group, with an array for it to act on."""

from typing import NamedTuple

import numpy as np

from numpyro_inverse.denoisers import square_symmetries
from numpyro_inverse.symmetry import (
    CyclicShift,
    FiniteGroup,
    GlobalPhase,
    Group,
    Permutation,
    Reflection,
    Rotation90,
    Scaling,
    SignFlip,
)


class Case(NamedTuple):
    group: Group
    shape: tuple[int, ...]
    is_complex: bool = False

    def array(self, seed=0):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=self.shape)
        return (x + 1j * rng.normal(size=self.shape)).astype(np.complex64) if self.is_complex else x.astype(np.float32)

    def other(self):
        """An array that is not too far from the first."""
        return self.array() + self.array(1)


GROUPS = {
    "sign": Case(SignFlip(), (5,)),
    "phase": Case(GlobalPhase(), (4,), True),
    "phase of two parts": Case(GlobalPhase(0), (2, 3)),
    "shift": Case(CyclicShift((6,)), (6,)),
    "shift of complex images with channels": Case(CyclicShift((3, 4)), (2, 3, 4), True),
    "reflection": Case(Reflection(-1), (2, 5)),
    "rotation": Case(Rotation90(), (2, 3, 3)),
    "square": Case(FiniteGroup(square_symmetries(), (3, 3)), (3, 3)),
    "permutation": Case(Permutation(4, axis=1), (2, 4)),
    "scaling": Case(Scaling(), (5,)),
    "shift and sign": Case(CyclicShift((5,)) * SignFlip(), (5,)),
    "two reflections": Case(Reflection(-1) * Reflection(-2), (3, 4)),
    "shift, phase and scaling": Case(CyclicShift((4,)) * GlobalPhase() * Scaling(), (4,), True),
}
