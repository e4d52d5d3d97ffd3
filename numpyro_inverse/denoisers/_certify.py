"""A Lipschitz bound of a layer or a network, from bounds of its parts; and an estimate, which is none."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_callable, check_count, check_finite, check_key, check_real, check_static
from numpyro_inverse.denoisers._certificate import Certificate
from numpyro_inverse.denoisers._denoiser import check_array
from numpyro_inverse.denoisers._krylov import largest_singular_value
from numpyro_inverse.denoisers._norm_bounds import (
    DENSE,
    check_sides,
    circular_convolution_norm,
    matrix_norm,
    same_convolution_norm,
    zero_padded_convolution_bound,
)

HERE = "certificate"
IDENTITY = inspect.signature(eqx.nn.MLP.__init__).parameters["final_activation"].default
# The largest slope, in absolute value, of functions of one number; rounded up.
SLOPES: tuple[tuple[Callable, float], ...] = (
    (IDENTITY, 1.0),
    (jax.nn.identity, 1.0),
    (jax.nn.relu, 1.0),
    (jax.nn.leaky_relu, 1.0),
    (jax.nn.elu, 1.0),
    (jax.nn.celu, 1.0),
    (jax.nn.softplus, 1.0),
    (jax.nn.sigmoid, 0.25),
    (jax.nn.silu, 1.09984),
    (jax.nn.gelu, 1.12905),
    (jax.nn.soft_sign, 1.0),
    (jax.nn.hard_tanh, 1.0),
    (jax.nn.log_sigmoid, 1.0),
    (jnp.tanh, 1.0),
    (jax.lax.tanh, 1.0),
    (jnp.sin, 1.0),
    (jnp.cos, 1.0),
    (jnp.abs, 1.0),
)


def certificate(layer: Any, shape: tuple[int, int] | None = None) -> Certificate:
    r"""A number that the Lipschitz constant of a layer or a network is certain not to exceed.

    =====================================  =========================================================================
    a matrix, ``eqx.nn.Linear``            its largest singular value
    ``eqx.nn.Conv2d``, circular            its largest singular value, by Fourier transform
    ``eqx.nn.Conv2d``, zero padded         a bound by Fourier transform on n + k - 1 points; of a small 'same'
                                           convolution the largest singular value itself
    an activation function of ``jax.nn``   its largest slope
    ``eqx.nn.Sequential``                  the product of the bounds of the parts, which may be far above the truth
    ``eqx.nn.MLP``, a tuple or list        the same
    with a method ``norm_bound()``         that bound (an operator)
    with ``lipschitz_certificate(shape)``  that certificate (the networks of this package)
    =====================================  =========================================================================

    The norm is the Euclidean one of whole arrays, for a layer in exact arithmetic.

    >>> import equinox as eqx
    >>> network = eqx.nn.MLP(2, 1, 8, 1, key=key)
    >>> ni.denoisers.certificate(network).certified
    True

    Args:
        layer: one of the above; its arrays must be known.
        shape: (H, W) of the images that convolutions act on.

    Returns:
        Its bound is infinite, and not certified, if a part is none of the above.

    Raises:
        TypeError: traced arrays, arrays of other than real numbers, or a class; ``shape`` no pair of integers.
        ValueError: a convolution without ``shape``; a side below 1; weights that are not finite.

    References:
        The references of :func:`matrix_norm`, :func:`circular_convolution_norm` and
        :func:`zero_padded_convolution_bound`.
    """
    if shape is not None:
        check_sides(HERE, shape)
    if isinstance(layer, type):
        raise TypeError(f"{HERE}: `layer` must be a layer; got the class {layer.__name__}. Make one of it first.")
    if hasattr(layer, "lipschitz_certificate"):
        return layer.lipschitz_certificate(shape)
    if hasattr(layer, "norm_bound"):
        bound = layer.norm_bound()
        return _unknown(layer) if bound is None else Certificate(float(bound), "the operator's own bound", True)
    if isinstance(layer, list | tuple):
        return _product(layer, shape)
    if isinstance(layer, eqx.nn.Sequential):
        return _product(layer.layers, shape)
    if isinstance(layer, eqx.nn.MLP):
        activations = (layer.activation,) * (len(layer.layers) - 1) + (layer.final_activation,)
        return _product([part for pair in zip(layer.layers, activations, strict=True) for part in pair], shape)
    if isinstance(layer, eqx.nn.Linear):
        return matrix_norm(np.atleast_2d(_known_weights(layer.weight)))
    if isinstance(layer, eqx.nn.Conv2d):
        return _convolution(layer, shape)
    if isinstance(layer, eqx.nn.Identity):
        return Certificate(1.0, "the identity", True)
    if isinstance(layer, eqx.nn.Lambda):
        return certificate(layer.fn, shape)
    if eqx.is_array_like(layer) and np.ndim(layer) == 2:
        return matrix_norm(_known_weights(layer))
    for function, slope in SLOPES:
        if layer is function:
            return Certificate(slope, "largest slope of the activation", True)
    return _unknown(layer)


def jacobian_norm(
    function: Callable[[Float[Array, "*shape"]], Float[Array, "*shape2"]],
    x: Float[Array, "*shape"],
    *,
    rng_key: PRNGKeyArray,
    num_iterations: int = 20,
) -> Certificate:
    """An estimate, from below, of the norm of a function's Jacobian at one point.

    It proves nothing: the norm may be larger there, and elsewhere. It can only show that a claimed bound is false.

    Args:
        function: from an array to an array.
        x: where.
        rng_key: of the starting vector.
        num_iterations: products with the Jacobian and its transpose (Golub-Kahan-Lanczos bidiagonalization).

    Raises:
        TypeError: no function, real numbers or key; ``function`` returns no array of real numbers.
        ValueError: ``x`` is empty; it or what is found there is not finite; ``num_iterations`` below 1.

    References:
        G. H. Golub and C. F. Van Loan, *Matrix Computations*, 4th ed., section 10.4.
    """
    here = "jacobian_norm"
    check_callable(here, "function", function)
    x = check_array(here, check_finite(here, "x", x))

    def checked(x: Array) -> Array:
        return jnp.asarray(check_real(here, "what the function returns", function(x)))

    start = jax.random.normal(check_key(here, "rng_key", rng_key), x.shape, x.dtype)
    steps = check_count(here, "num_iterations", num_iterations)
    found = largest_singular_value(
        lambda v: jax.jvp(checked, (x,), (v,))[1], lambda v: jax.vjp(checked, x)[1](v)[0], start, steps
    )
    bound = float(check_finite(here, "the norm of the Jacobian", found))
    return Certificate(bound, f"Lanczos, {steps} iterations, at one point", False, "a lower bound")


def _product(layers: Any, shape: tuple[int, int] | None) -> Certificate:
    found = [certificate(layer, shape) for layer in layers]
    bound = float(np.prod([part.bound for part in found]))
    methods = ", ".join(dict.fromkeys(part.method for part in found))
    conditions = "; ".join(dict.fromkeys(part.conditions for part in found if part.conditions))
    return Certificate(bound, f"product of layers: {methods}", all(part.certified for part in found), conditions)


def convolution_certificate(kernel: Any, shape: tuple[int, int] | None) -> Certificate:
    """Of a 'same' convolution that is zero outside the image: its norm, or a bound where that would be costly."""
    shape = _needed(shape)
    out, into = kernel.shape[:2]
    small = max(out, into) * shape[0] * shape[1] <= DENSE
    return (same_convolution_norm if small else zero_padded_convolution_bound)(kernel, shape)


def _convolution(layer: eqx.nn.Conv2d, shape: tuple[int, int] | None) -> Certificate:
    shape = _needed(shape)
    weights = _known_weights(layer.weight)
    sides = weights.shape[2:]
    halves = tuple((side // 2, side // 2) for side in sides)
    same = layer.padding == "SAME" or tuple(layer.padding) == halves
    same &= all(side % 2 == 1 for side in sides) and all(step == 1 for step in layer.stride)
    plain = all(step == 1 for step in layer.dilation) and layer.groups == 1
    if plain and same and layer.padding_mode == "CIRCULAR":
        found = circular_convolution_norm(weights, shape)
    elif plain and same and layer.padding_mode == "ZEROS":
        found = convolution_certificate(weights, shape)
    elif plain and layer.padding_mode == "ZEROS":
        found = zero_padded_convolution_bound(weights, shape)
    else:
        return _unknown(layer)
    return found._replace(conditions=f"images of {shape[0]} x {shape[1]}")


def _needed(shape: tuple[int, int] | None) -> tuple[int, int]:
    if shape is None:
        raise ValueError(f"{HERE}: `shape` is missing, the sides (H, W) of the images that the convolutions act on.")
    return check_sides(HERE, shape)


def _known_weights(weights: Any) -> Any:
    return check_finite(HERE, "layer", check_static(HERE, "layer", weights))


def _unknown(layer: Any) -> Certificate:
    name = getattr(layer, "__name__", type(layer).__name__)
    return Certificate(float("inf"), f"no bound is known of {name}", False)
