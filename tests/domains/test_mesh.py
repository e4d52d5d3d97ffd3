"""Meshes: finite elements against scikit-fem and closed forms, interpolation, bad input, doors."""

import jax
import jax.numpy as jnp
import meshio
import numpy as np
import pytest
import skfem
from skfem.models.poisson import laplace, mass

from numpyro_inverse.domains import Domain, Mesh
from numpyro_inverse.domains._domain import axis_names
from numpyro_inverse.domains._finite_elements import lumped_mass, mass_matrix, stiffness_matrix
from tests.domains.meshes import cube, disc, interval, l_shape, sphere, square

P1 = {
    1: (skfem.MeshLine, skfem.ElementLineP1),
    2: (skfem.MeshTri, skfem.ElementTriP1),
    3: (skfem.MeshTet, skfem.ElementTetP1),
}
MESHES = {
    "interval": (lambda: interval(9, -1.0, 2.0), 3.0, 2.0),
    "square": (lambda: square(6), 1.0, 4.0),
    "l_shape": (lambda: l_shape(7), 3.0, 8.0),
    "cube": (lambda: cube(4), 1.0, 6.0),
}


@pytest.fixture(params=list(MESHES))
def known(request, x64):
    make, volume, boundary = MESHES[request.param]
    return make(), volume, boundary


def test_matrices_are_scikit_fem_s(known):
    mesh, volume, boundary = known
    kind, element = P1[mesh.ndim]
    theirs = kind(mesh.points.T.copy(), mesh.simplices.T.copy())
    basis = skfem.CellBasis(theirs, element())
    np.testing.assert_allclose(mesh.mass_matrix.toarray(), mass.assemble(basis).toarray(), atol=1e-14)
    np.testing.assert_allclose(mesh.stiffness_matrix.toarray(), laplace.assemble(basis).toarray(), atol=1e-12)
    facets = mass.assemble(skfem.FacetBasis(theirs, element())).toarray()
    np.testing.assert_allclose(mesh.boundary_mass_matrix.toarray(), facets, atol=1e-14)
    np.testing.assert_allclose(mesh.weights.sum(), volume)
    np.testing.assert_allclose(mesh.boundary_mass_matrix.sum(), boundary)


def test_values_are_the_matrices(known):
    mesh = known[0]
    for values, matrix in (
        (mesh.mass, mesh.mass_matrix),
        (mesh.stiffness, mesh.stiffness_matrix),
        (mesh.boundary_mass, mesh.boundary_mass_matrix),
    ):
        np.testing.assert_allclose(mesh.pattern.matrix(values).toarray(), matrix.toarray(), atol=1e-15)


def test_a_flat_surface_in_space_has_the_matrices_of_the_plane():
    flat = square(5)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    points = flat.points @ turn[:2] + 1.0
    for function in (mass_matrix, stiffness_matrix):
        np.testing.assert_allclose(
            function(points, flat.simplices).toarray(), function(flat.points, flat.simplices).toarray(), atol=1e-12
        )


def test_a_sphere(x64):
    """Area and the stiffness of a first spherical harmonic, 4 pi and 2 (4 pi / 3), at the order of the mesh."""
    errors = []
    for n in (200, 800):
        mesh = sphere(n)
        assert len(mesh.boundary_facets) == 0
        assert mesh.boundary_mass_matrix.nnz == 0
        z = mesh.points[:, 2]
        errors.append([mesh.weights.sum() / (4 * np.pi) - 1, z @ mesh.stiffness_matrix @ z / (8 * np.pi / 3) - 1])
    ratio = np.abs(errors[0]) / np.abs(errors[1])
    np.testing.assert_allclose(ratio, 4, rtol=0.15)
    assert np.abs(errors[1]).max() < 0.01


def test_a_mesh_is_a_domain(known):
    mesh = known[0]
    assert isinstance(mesh, Domain)
    assert axis_names(mesh) == ("node",)
    assert (mesh.shape, mesh.size) == ((len(mesh.points),), len(mesh.points))
    np.testing.assert_array_equal(np.stack([c for _, c in mesh.coordinates.values()], axis=1), mesh.points)
    affine = 1 + mesh.points @ np.arange(1.0, 1 + mesh.ndim)
    fine = lumped_mass(mesh.points, mesh.simplices)
    np.testing.assert_allclose(np.sum(mesh.weights * affine), fine @ affine)


def test_interpolation_is_exact_for_affine_functions_and_at_nodes(known):
    mesh = known[0]
    rng = np.random.default_rng(3)
    corners = rng.integers(len(mesh.simplices), size=40)
    weight = rng.dirichlet(np.ones(mesh.simplices.shape[1]), size=40)
    places = np.einsum("mk,mkd->md", weight, mesh.points[mesh.simplices[corners]])
    places = np.concatenate([places, mesh.points[:5]])
    slope = np.arange(1.0, 1 + mesh.ndim)
    operator = mesh.interpolation(places)
    np.testing.assert_allclose(operator(1 + mesh.points @ slope), 1 + places @ slope, atol=1e-12)
    values = rng.normal(size=mesh.size)
    inside = np.einsum("mk,mk->m", weight, values[mesh.simplices[corners]])
    np.testing.assert_allclose(operator(values), np.concatenate([inside, values[:5]]), atol=1e-9)


@pytest.mark.slow
def test_interpolation_and_its_adjoint_as_matrices(x64):
    """Also with hundreds of points in one triangle, in batches, inside grad, jvp and hessian."""
    mesh = square(4)
    rng = np.random.default_rng(4)
    places = np.concatenate([rng.uniform(size=(30, 2)), rng.uniform(0.0, 0.05, size=(300, 2))])
    operator = mesh.interpolation(places)
    matrix = np.zeros((len(places), mesh.size))
    np.add.at(matrix, (np.arange(len(places))[:, None], operator.index), np.asarray(operator.weight))
    np.testing.assert_allclose(operator.as_matrix(), matrix)
    np.testing.assert_allclose(operator.T.as_matrix(), matrix.T)
    assert len(operator.sums) > 1
    x, y = rng.normal(size=(3, mesh.size)), rng.normal(size=len(places))
    np.testing.assert_allclose(jax.jit(operator.__call__)(x), x @ matrix.T, atol=1e-12)

    def loss(x):
        return jnp.sum((operator(x) - y) ** 2)

    np.testing.assert_allclose(jax.vmap(jax.grad(loss))(x), 2 * (x @ matrix.T - y) @ matrix, atol=1e-10)
    np.testing.assert_allclose(jax.hessian(loss)(x[0]), 2 * matrix.T @ matrix, atol=1e-10)
    assert np.linalg.norm(matrix, 2) <= operator.norm_bound()


def test_the_adjoint_writes_to_no_place_twice(x64):
    """On a GPU such writes are serialized."""
    operator = square(4).interpolation(np.random.default_rng(5).uniform(size=(50, 2)))
    program = jax.jit(jax.grad(lambda x: jnp.sum(operator(x) ** 2))).lower(jnp.zeros(16)).as_text()
    assert "gather" in program
    assert "scatter" not in program


def test_interpolation_on_a_sphere():
    """Of a linear function, within the gap between the sphere and its triangles."""
    mesh = sphere(500, radius=2.0)
    places = np.random.default_rng(6).normal(size=(50, 3))
    places *= 2 / np.linalg.norm(places, axis=1, keepdims=True)
    gap = np.max(mesh.longest_edges) ** 2 / (8 * 2.0)
    values = mesh.interpolation(places)(mesh.points[:, 0])
    assert np.max(np.abs(values - places[:, 0])) < gap


def test_a_mesh_crosses_jit_as_data_and_is_known_by_its_content(x64):
    """No array of it is a constant of the program; another mesh is another program, the same again is not."""
    traced = []

    @jax.jit
    def volume(mesh, x):
        traced.append(mesh.coordinates["x"][1])
        return jnp.sum(mesh.weights * x)

    mesh, again = square(4), square(4)
    assert (mesh == again, hash(mesh) == hash(again)) == (True, True)
    assert mesh != square(4, seed=1)
    for each in (mesh, again):
        np.testing.assert_allclose(volume(each, jnp.ones(16)), 1.0)
    assert len(traced) == 1
    np.testing.assert_array_equal(traced[0], mesh.points[:, 0])
    assert len(jax.make_jaxpr(lambda m: m.weights @ m.weights)(mesh).consts) == 0


def test_meshes_of_other_packages():
    flat = skfem.MeshTri().refined(2)
    mesh = Mesh.from_skfem(flat)
    np.testing.assert_array_equal(mesh.points, flat.p.T)
    points = np.c_[mesh.points, np.zeros(mesh.size)]
    edges = mesh.boundary_facets
    other = Mesh.from_meshio(meshio.Mesh(points, [("line", edges), ("triangle", mesh.simplices)]))
    assert other == mesh
    solid = cube(3)
    assert Mesh.from_meshio(meshio.Mesh(solid.points, [("tetra", solid.simplices)])) == solid
    for kind in (skfem.MeshLine, skfem.MeshTet):
        assert Mesh.from_skfem(kind()).size == kind().p.shape[1]


def test_from_points_in_the_plane():
    pytest.importorskip("netgen")
    locations = np.random.default_rng(7).uniform(100.0, 102.0, size=(40, 2))
    mesh = Mesh.from_points(locations, max_edge=(0.25, 0.8), offset=(0.2, 1.0))
    at = mesh.points[mesh.simplices].mean(axis=1)
    inside = ((at > 100.0) & (at < 102.0)).all(axis=1)
    assert 0.8 * 0.25 < np.median(mesh.longest_edges[inside]) < 1.4 * 0.25
    assert np.max(mesh.longest_edges) < 1.5 * 0.8
    assert np.max(mesh.longest_edges) > 2 * 0.25
    edges = np.sort(np.linalg.norm(mesh.points[mesh.simplices] - mesh.points[np.roll(mesh.simplices, 1, 1)], axis=2))
    half = edges.sum(axis=1) / 2
    heron = np.sqrt(half * np.prod(half[:, None] - edges, axis=1))
    assert np.degrees(np.arcsin(2 * heron / (edges[:, 1] * edges[:, 2]))).min() > 20
    beyond = np.random.default_rng(8).normal(size=(30, 2))
    beyond *= 1.1 / np.linalg.norm(beyond, axis=1, keepdims=True)
    mesh.interpolation(np.concatenate([locations, locations[:30] + beyond]))  # all inside
    assert mesh == Mesh.from_points(locations, max_edge=(0.25, 0.8), offset=(0.2, 1.0))
    finer = Mesh.from_points(locations, max_edge=(0.25, 0.8), offset=(0.2, 1.0), cutoff=0.1)
    assert finer.size > 1.1 * mesh.size


def test_from_points_in_space_and_on_a_line():
    pytest.importorskip("netgen")
    locations = np.random.default_rng(9).uniform(size=(20, 3))
    mesh = Mesh.from_points(locations, max_edge=(0.3, 0.8), offset=(0.1, 0.6))
    mesh.interpolation(locations)
    sides = np.ptp(locations, axis=0) + 2 * 0.7
    np.testing.assert_allclose(mesh.weights.sum(), np.prod(sides), rtol=1e-5)
    line = Mesh.from_points([0.0, 0.1, 0.15, 2.0], max_edge=(0.5, 1.0), offset=0.3, cutoff=0.02)
    np.testing.assert_allclose([line.points.min(), line.points.max()], [-0.3, 2.3])
    h = np.diff(line.points[:, 0])
    assert (h.max() <= 0.5, h.min() >= 0.01, h[line.points[:-1, 0] < 0.1].max() <= 0.11) == (True, True, True)


TRIANGLES = np.array([[0, 1, 2], [1, 3, 2]])
UNIT = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


@pytest.mark.parametrize(
    ("points", "simplices", "error", "match"),
    [
        (np.where(UNIT == 1, np.nan, UNIT), TRIANGLES, ValueError, "`points` must be finite"),
        (UNIT.astype(str), TRIANGLES, TypeError, "`points` must be real numbers"),
        (UNIT, TRIANGLES.astype(float), TypeError, "`simplices` must be integers"),
        (UNIT, TRIANGLES[:, :2], ValueError, "must be of one of these shapes"),
        (UNIT, TRIANGLES[:0], ValueError, "must not be empty"),
        (UNIT, TRIANGLES + 1, ValueError, "must be numbers of the 4 points, 0 to 3; got 1 to 4"),
        (UNIT, TRIANGLES[:1], ValueError, r"1 of the 4 `points` are corners of no simplex, the first is points\[3\]"),
        (UNIT, [[0, 1, 1], [0, 2, 3]], ValueError, r"1 of the 2 `simplices` are degenerate.* simplices\[0\]"),
        (
            np.concatenate([UNIT[:3], [[0.2, 0.2]]]),
            TRIANGLES,
            ValueError,
            r"1 pairs of neighboring `simplices` overlap.* simplices\[0\] and simplices\[1\]",
        ),
        (
            np.concatenate([UNIT, [[2.0, 0.3]]]),
            [[0, 1, 2], [1, 3, 2], [1, 4, 2]],
            ValueError,
            r"not a manifold: 1 edges .* points \[1, 2\], in 3",
        ),
        (
            np.concatenate([UNIT[:3], UNIT[:3] + 5]),
            [[0, 1, 2], [3, 4, 5]],
            ValueError,
            "not connected: it has 2 parts, the largest of 3, 3 points",
        ),
    ],
    ids=[
        "nan",
        "strings",
        "floats",
        "shapes",
        "empty",
        "range",
        "unused",
        "degenerate",
        "inverted",
        "manifold",
        "connected",
    ],
)
def test_bad_meshes(points, simplices, error, match):
    with pytest.raises(error, match=match):
        Mesh(points, np.asarray(simplices))


def test_bad_places():
    mesh, ball = square(4), sphere(100)
    with pytest.raises(
        ValueError, match=r"1 of 2 `points` lie outside the mesh; the first is points\[1\] = \[1.5, 0.5\]"
    ):
        mesh.interpolation([[0.5, 0.5], [1.5, 0.5]])
    with pytest.raises(ValueError, match="1 of 1 `points` are not finite"):
        mesh.interpolation([[np.nan, 0.5]])
    with pytest.raises(ValueError, match=r"must have shape \(m, 2\)"):
        mesh.interpolation([0.5, 0.5])
    with pytest.raises(ValueError, match="outside the mesh"):
        ball.interpolation([[0.0, 0.0, 2.0]])
    with pytest.raises(TypeError, match="known outside `jit`"):
        jax.jit(mesh.interpolation)(jnp.zeros((1, 2)))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"max_edge": -1.0, "offset": 1.0}, ValueError, "`max_edge` must be positive"),
        ({"max_edge": (1.0, 2.0, 3.0), "offset": 1.0}, ValueError, "`max_edge` must be one number or two"),
        ({"max_edge": 1.0, "offset": "wide"}, TypeError, "`offset` must be a positive number"),
        ({"max_edge": 1.0, "offset": 1.0, "cutoff": 0.0}, ValueError, "`cutoff` must be positive"),
    ],
    ids=["negative", "three", "string", "cutoff"],
)
def test_bad_lengths(options, error, match):
    with pytest.raises(error, match=match):
        Mesh.from_points(UNIT, **options)


def test_bad_sources():
    with pytest.raises(ValueError, match=r"`locations` must have shape \(m, d\)"):
        Mesh.from_points(np.zeros((3, 4)), max_edge=1.0, offset=1.0)
    with pytest.raises(ValueError, match="`locations` must be finite"):
        Mesh.from_points([[0.0, np.nan]], max_edge=1.0, offset=1.0)
    with pytest.raises(TypeError, match="of scikit-fem"):
        Mesh.from_skfem(UNIT)
    with pytest.raises(TypeError, match=r"must be a meshio\.Mesh"):
        Mesh.from_meshio(UNIT)
    with pytest.raises(ValueError, match="first-order intervals, triangles or tetrahedra alone"):
        Mesh.from_meshio(meshio.Mesh(UNIT, [("quad", [[0, 1, 3, 2]])]))


def test_traced_points_are_refused():
    with pytest.raises(TypeError, match="known outside `jit`"):
        jax.jit(lambda p: Mesh(p, TRIANGLES).weights)(jnp.asarray(UNIT))
    assert disc(2).size == 19
