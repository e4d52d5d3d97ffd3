"""Linear maps whose two directions JAX cannot trace, as a JAX primitive that it can batch and transpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from numpyro_inverse._on_host import on_host

Shapes = tuple[tuple[int, ...], ...]


def linear_call(
    forward: Callable[..., Any],
    transpose: Callable[..., Any],
    given: Sequence[Array],
    vectors: Sequence[Array],
    out_shapes: Shapes,
) -> list[Array]:
    r"""Apply a map that is linear in ``vectors``, by a function on the host:
    :math:`(g, v) \mapsto A(g)\, v`, with :math:`A(g)^{\mathsf T}` known as a function too.

    Args:
        forward: from NumPy arrays, those ``given`` and the vectors, each with the same leading batch axes, to a tuple
            of arrays with these axes.
        transpose: likewise, from those given and cotangents to what belongs to the vectors.
        given: what the map may depend on nonlinearly; it has no derivative.
        vectors: what it is linear in.
        out_shapes: of what it returns.
    """
    return _linear.bind(
        *given,
        *vectors,
        forward=forward,
        transpose=transpose,
        given_shapes=tuple(g.shape for g in given),
        in_shapes=tuple(v.shape for v in vectors),
        out_shapes=tuple(out_shapes),
    )


_linear = Primitive("external_linear")
_linear.multiple_results = True


def _batch(args: Sequence[Any], given_shapes: Shapes, in_shapes: Shapes) -> tuple[int, ...]:
    """The batch axes that batching has put before all operands."""
    return args[-1].shape[: args[-1].ndim - len((*given_shapes, *in_shapes)[-1])]


def _call(*args, forward, transpose, given_shapes, in_shapes, out_shapes):
    batch, dtype = _batch(args, given_shapes, in_shapes), args[-1].dtype
    outs = tuple(jax.ShapeDtypeStruct(batch + shape, dtype) for shape in out_shapes)
    return list(on_host(forward, outs, *args))


def _abstract(*avals, forward, transpose, given_shapes, in_shapes, out_shapes):
    batch = _batch(avals, given_shapes, in_shapes)
    return [jax.core.ShapedArray(batch + shape, avals[-1].dtype) for shape in out_shapes]


def _batched(args, axes, **parameters):
    size = next(a.shape[axis] for a, axis in zip(args, axes, strict=True) if axis is not None)
    moved = [
        jnp.broadcast_to(a, (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
        for a, axis in zip(args, axes, strict=True)
    ]
    return _linear.bind(*moved, **parameters), [0] * len(parameters["out_shapes"])


def _jvp(primals, tangents, **parameters):
    count = len(parameters["given_shapes"])
    if any(type(t) is not ad.Zero for t in tangents[:count]):
        raise TypeError(
            "external: second derivatives are not known, for `jvp` and `vjp` are functions on the host. Use methods of "
            "first order, or the Gauss-Newton form of the Hessian."
        )
    out = _linear.bind(*primals, **parameters)
    vectors = [ad.instantiate_zeros(t) for t in tangents[count:]]
    return out, _linear.bind(*primals[:count], *vectors, **parameters)


def _transposed(cotangents, *args, forward, transpose, given_shapes, in_shapes, out_shapes):
    count = len(given_shapes)
    found = _linear.bind(
        *args[:count],
        *(ad.instantiate_zeros(c) for c in cotangents),
        forward=transpose,
        transpose=forward,
        given_shapes=given_shapes,
        in_shapes=out_shapes,
        out_shapes=in_shapes,
    )
    return [None] * count + [f if ad.is_undefined_primal(a) else None for f, a in zip(found, args[count:], strict=True)]


_linear.def_impl(jax.jit(_call, static_argnames=("forward", "transpose", "given_shapes", "in_shapes", "out_shapes")))
_linear.def_abstract_eval(_abstract)
mlir.register_lowering(_linear, mlir.lower_fun(_call, multiple_results=True))
batching.primitive_batchers[_linear] = _batched
ad.primitive_jvps[_linear] = _jvp
ad.primitive_transposes[_linear] = _transposed


def rows(arrays: Sequence[Any], shapes: Shapes) -> tuple[tuple[int, ...], list[tuple[Any, ...]]]:
    """The batch axes of ``arrays``, and the arguments of each call in the batch, in order."""
    batch = arrays[0].shape[: arrays[0].ndim - len(shapes[0])]
    flat = [a.reshape((prod(batch), *shape)) for a, shape in zip(arrays, shapes, strict=True)]
    return batch, list(zip(*flat, strict=True))
