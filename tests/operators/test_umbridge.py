"""The client against a server of the protocol on the loopback address."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.operators import check_gradient, umbridge
from tests.operators.programs import Handler, Server

POINT = (jnp.array([2.0, 3.0]), jnp.array([0.5]))


@pytest.fixture(scope="module", autouse=True)
def server():
    with pytest.MonkeyPatch.context() as patch, Server() as server:
        patch.setenv("no_proxy", "127.0.0.1")
        yield server


def _traced(x, k):
    return jnp.array([x[0] * x[1], x[1] ** 2 * k[0]]), x[:1] * k


def test_values_and_both_derivatives(server):
    G = umbridge(server.url, "forward", threads=2)
    assert G.in_shapes == ((2,), (1,))
    for derivative in (lambda f: f, lambda f: jax.jacrev(f, (0, 1)), lambda f: jax.jacfwd(f, (0, 1))):
        found, expected = jax.jit(derivative(G))(*POINT), derivative(_traced)(*POINT)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)
    assert check_gradient(lambda x: G(*x), POINT).holds


def test_config_reaches_the_server(server):
    np.testing.assert_allclose(umbridge(server.url, "forward", config={"scale": 10.0})(*POINT)[0], [60.0, 4.5])


def test_derivatives_that_the_server_has_not(server):
    G = umbridge(server.url, "plain")
    np.testing.assert_allclose(G(*POINT)[1], [1.0])
    with pytest.raises(TypeError, match="its derivative is not known"):
        jax.grad(lambda x: G(x, POINT[1])[0].sum())(POINT[0])


def test_errors_of_the_server_are_told(server):
    G = umbridge(server.url, "forward")
    with pytest.raises(jax.errors.JaxRuntimeError, match="the server reports InvalidInput: a is negative"):
        jax.block_until_ready(G(-POINT[0], POINT[1]))


class _Newer(Handler):
    version = 2.0


class _OtherPage(Handler):
    def do_GET(self):
        body = b"<html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Missing(Handler):
    def do_GET(self):
        self.send_error(404)


@pytest.mark.parametrize(
    ("handler", "message"),
    [(_Newer, "speaks protocol 2.0, not 1.0"), (_OtherPage, "answers no JSON"), (_Missing, "answers 404 Not Found")],
)
def test_what_is_no_such_server(handler, message):
    with Server(handler) as other, pytest.raises(ConnectionError, match=message):
        umbridge(other.url, "forward")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda url: umbridge(url, "backward"), ValueError, "no model 'backward'; it has 'forward', 'plain', 'none'"),
        (lambda url: umbridge(url, "none"), ValueError, "cannot be evaluated"),
        (lambda url: umbridge(url, "forward")(POINT[0]), ValueError, "it takes"),
        (lambda url: umbridge(url, "forward", timeout=0.0), ValueError, "`timeout` must be positive"),
        (lambda url: umbridge(url, 3), TypeError, "`model` must be the model's name"),
        (lambda url: umbridge("ftp://x", "forward"), ValueError, "must begin with http"),
        (lambda url: umbridge(3, "forward"), TypeError, "`url` must be a URL"),
        (lambda url: umbridge(url, "forward", config=3), TypeError, "`config` must be a dictionary"),
        (lambda url: umbridge("http://127.0.0.1:9", "forward"), ConnectionError, "Is the server running there"),
    ],
)
def test_bad_input(call, error, message, server):
    with pytest.raises(error, match=message):
        call(server.url)
