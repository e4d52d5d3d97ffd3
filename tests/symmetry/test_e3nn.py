"""Networks of e3nn: its representations of the octahedral group as a `FiniteGroup`, and its layers checked by ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.symmetry import FiniteGroup, check_equivariance

e3nn = pytest.importorskip("e3nn_jax")


def octahedral_angles():
    """Euler angles of the 24 rotations of a cube, identity first."""
    quarter = np.arange(4) * np.pi / 2
    angles = np.stack(np.meshgrid(quarter, quarter, quarter, indexing="ij"), axis=-1).reshape(-1, 3)
    matrices = jax.vmap(e3nn.Irreps("1o").D_from_angles)(*angles.T)
    _, first = np.unique(np.round(np.asarray(matrices)).astype(int).reshape(-1, 9), axis=0, return_index=True)
    assert len(first) == 24
    return angles[np.sort(first)]


def representation(irreps, angles):
    """The group's action on one array of features."""
    irreps = e3nn.Irreps(irreps)
    matrices = jax.vmap(irreps.D_from_angles)(*angles.T)
    return FiniteGroup([lambda x, d=d: d @ x for d in matrices], (irreps.dim,))


@pytest.mark.slow
def test_a_layer_of_e3nn_is_equivariant_and_a_dense_one_is_not():
    angles = octahedral_angles()
    group_in, group_out = representation("0e + 1o", angles), representation("0e + 1o + 2e", angles)
    x = jnp.asarray([0.3, 1.0, -0.7, 0.2])

    def squares(x):
        features = e3nn.IrrepsArray("0e + 1o", x)
        product = e3nn.tensor_product(features, features).regroup().filter("0e + 1o + 2e")
        return jnp.concatenate(
            [product.slice_by_mul[:1].array, product.filter("1o").array[:3], product.filter("2e").array[:5]]
        )

    assert check_equivariance(squares, group_in, group_out, x, num_elements=24).holds
    dense = jax.random.normal(jax.random.key(0), (9, 4))
    assert not check_equivariance(lambda x: dense @ x, group_in, group_out, x).holds
