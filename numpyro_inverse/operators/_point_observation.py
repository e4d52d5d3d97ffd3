"""Values of a field at points."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float

from numpyro_inverse._checks import describe
from numpyro_inverse.operators._linear_operator import LinearOperator


@runtime_checkable
class Interpolable(Protocol):
    """What a point observation needs of a domain."""

    def interpolation(self, points: Any) -> LinearOperator:
        """From a field to its values at points."""


class PointObservation(LinearOperator):
    """The values of a field at ``points``, in that order; a point may be observed repeatedly.

    The domain says how a field continues between the places where its values are: a ``Grid`` evaluates the field's own
    cosine, sine or Fourier series, so that the values have the field's variance wherever the points are. The cost is
    that of ``domain.interpolation``; ``Grid.multilinear_interpolation`` is the cheaper and coarser one.

    Args:
        domain: where the field lives: a ``Grid``, or any object with the method ``interpolation(points)``.
        points: shape ``(m, ndim)``, or ``(m,)`` for one axis, in the domain's length units.

    Raises:
        TypeError: ``domain`` has no interpolation, or ``points`` are no real numbers or traced.
        ValueError: ``points`` of another shape, none, not finite or outside the domain.
    """

    interpolation: LinearOperator

    def __init__(self, domain: Interpolable, points: Float[Array, "m ndim"]):
        if isinstance(domain, type) or not isinstance(domain, Interpolable):
            raise TypeError(
                f"PointObservation: `domain` must be a `domains.Grid`, or have the method `interpolation(points)`; got "
                f"{describe(domain)}."
            )
        self.interpolation = domain.interpolation(points)

    @property
    def in_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.interpolation.in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.interpolation.out_shape

    def mv(self, x):
        return self.interpolation.mv(x)

    def norm_bound(self):
        """That of the domain's interpolation."""
        return self.interpolation.norm_bound()
