"""A Matérn field that does not cross a barrier."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float

from numpyro_inverse._checks import check_instance
from numpyro_inverse.distributions._matern_mesh import MaternMesh
from numpyro_inverse.domains import Barrier, Mesh


class BarrierMatern(MaternMesh):
    r"""A Gaussian field on a mesh with a barrier, such as the sea around a coast, through which nothing is correlated.

    The range is :math:`\rho_1 = \rho` outside of the barrier and :math:`\rho_2 = f \rho` within. The equation, of
    smoothness :math:`\nu = 2 - d/2`, is

    .. math:: \Bigl(1 - \nabla \cdot \frac{\rho(x)^2}{8 \nu} \nabla\Bigr) u
        = \sigma\, c^{1/2} \rho(x)^{d/2}\, \mathcal W, \qquad c = \frac{(4 \pi)^{d/2}}{\Gamma(\nu) (8 \nu)^{d/2}}

    (:math:`c = \pi / 2` in the plane), so that its precision is :math:`\sigma^{-2} R \tilde C^{-1} R` with
    :math:`R = C + \sum_i \frac{\rho_i^2}{8 \nu} G_i` and :math:`\tilde C = c \sum_i \rho_i^d C_i`, of the mass and
    stiffness matrices of the two parts. Near the barrier the field is that with a Neumann boundary, nearly. What the
    values mean within the barrier does not matter; the mesh needs an outer margin as always.

    Args:
        barrier: the mesh and its barrier, ``Barrier(mesh, inside)``.
        range: :math:`\rho > 0` outside of the barrier, in length units, of any batch shape.
        scale: standard deviation :math:`\sigma > 0` away from barrier and boundary.
        mean: a number or an array that broadcasts to ``batch + (n,)``.

    Raises:
        TypeError: ``barrier`` of another kind, or a parameter that is no real number.
        ValueError: a range or scale that is not positive and finite, or shapes that do not fit. Traced ones give NaN.

    References:
        Bakka, Vanhatalo, Illian, Simpson & Rue, Spatial Statistics 29 (2019) 268-288, eq. 4 and section 3 (in the
        plane, with a lumped :math:`\tilde C`; here it is the consistent one).
    """

    pytree_data_fields = ("_barrier",)

    def __init__(
        self,
        barrier: Barrier,
        *,
        range: float | Float[Array, "*batch"],
        scale: float | Float[Array, "*batch"],
        mean: float | Float[Array, "..."] = 0.0,
        validate_args: bool | None = None,
    ):
        self._barrier = check_instance("BarrierMatern", "barrier", barrier, Barrier, "a Barrier(mesh, inside)")
        smoothness = 2 - barrier.mesh.manifold_dim / 2
        super().__init__(
            barrier.mesh, range=range, scale=scale, smoothness=smoothness, mean=mean, validate_args=validate_args
        )

    # In units of the range outside, R is C + (G_1 + f^2 G_2) / kappa^2: the stationary field's, with other matrices.

    @property
    def _noise(self) -> Any:
        return self._barrier.noise

    @property
    def _noise_logdet(self) -> float:
        return self._barrier.noise.logdet

    @property
    def _stiffness(self) -> Array:
        return self._barrier.stiffness

    def ritz_projection(self, coarse: Mesh) -> Any:
        """There is none, for the barrier is not known on another mesh.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("BarrierMatern: the barrier is not known on another mesh.")
