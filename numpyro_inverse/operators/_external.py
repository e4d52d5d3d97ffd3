"""Forward models that JAX cannot trace: programs, other frameworks, servers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import (
    check_callable,
    check_count,
    check_instance,
    check_real,
    check_sample_shape,
    describe,
)
from numpyro_inverse._on_host import on_host
from numpyro_inverse._workers import Failure, Workers, check_sendable
from numpyro_inverse.operators._inputs import acts_on_real
from numpyro_inverse.operators._linear_call import Shapes, linear_call, rows
from numpyro_inverse.operators._linear_operator import LinearOperator

FEW = 6  # numbers of an argument in a message


class ExternalError(RuntimeError):
    """A call of an external model failed: which, with what arguments, and why."""


class ExternalMap:
    r"""A function of arrays whose values and derivatives are found outside JAX; :func:`external` makes it.

    It can be compiled, batched by ``vmap`` and, where ``vjp`` or ``jvp`` is given, differentiated once. The calls of a
    batch go to the workers at once.

    Attributes:
        failures: how many calls failed, retries apart, by reason.
        in_shapes: of the arguments, where they are known beforehand (:func:`umbridge`), else None.
    """

    in_shapes: Shapes | None = None

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        shape: Any,
        *,
        vjp: Callable[..., Any] | None,
        jvp: Callable[..., Any] | None,
        workers: Workers,
        retries: int,
        allowed_failures: int,
    ):
        self.name = name
        self.function, self.vjp, self.jvp = function, vjp, jvp
        self.shapes, self.single = _shapes(name, shape)
        self.workers = workers
        self.retries = check_count(name, "retries", retries, 0)
        self.allowed_failures = check_count(name, "allowed_failures", allowed_failures, 0)
        self.failures: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._calls: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *args: Float[Array, "..."]) -> Any:
        """The model at one point; under ``vmap`` at a batch of them.

        Raises:
            TypeError: an argument that is not an array of real numbers, or none at all.
            ValueError: shapes that a server does not take.
        """
        if not args:
            raise TypeError(f"{self.name}: called without arguments; `args` must be those of the model.")
        args = tuple(check_real(self.name, f"argument {i}", a) for i, a in enumerate(args))
        shapes = tuple(np.shape(a) for a in args)
        if self.in_shapes is not None and shapes != self.in_shapes:
            raise ValueError(f"{self.name}: `args` have shapes {shapes}; it takes {self.in_shapes}.")
        dtype = jnp.result_type(float)
        arrays = [jnp.asarray(a, dtype) for a in args]
        out = self._at(tuple(a.shape for a in arrays))(*arrays)
        return out[0] if self.single else tuple(out)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; the next call starts others."""
        self.workers.close()

    def _at(self, shapes: Shapes) -> Callable[..., Any]:
        """The differentiable function of arguments of these shapes, always the same one, for programs to be reused."""
        with self._lock:
            if shapes not in self._calls:
                self._calls[shapes] = self._differentiable(shapes)
            return self._calls[shapes]

    def _differentiable(self, shapes: Shapes) -> Callable[..., Any]:
        out_shapes = self.shapes
        evaluate = self._host_call("the model", self.function, shapes, out_shapes)
        missing = "derivatives need one of `vjp` and `jvp`"
        if self.vjp is not None:
            missing = "forward-mode derivatives need `jvp`"
        forward = self._host_call("jvp", self.jvp, shapes + shapes, out_shapes, missing)
        backward = self._host_call("vjp", self.vjp, shapes + out_shapes, shapes)

        @jax.custom_jvp
        def call(*args: Array) -> list[Array]:
            outs = tuple(jax.ShapeDtypeStruct(s, args[0].dtype) for s in out_shapes)
            return list(on_host(evaluate, outs, *args, vmap_method="broadcast_all"))

        @call.defjvp
        def rule(args: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Any, Any]:
            if self.vjp is None and self.jvp is None:
                raise TypeError(
                    f"{self.name}: its derivative is not known. Give `vjp` (reverse mode: NUTS, MALA, optimizers), or "
                    "use a kernel without gradients (infer.PCN, NumPyro's AIES and SA), a surrogate "
                    "(infer.fit_surrogate) or simulation-based inference (sbi)."
                )
            return call(*args), linear_call(forward, backward, args, tangents, out_shapes)

        return call

    def _host_call(
        self,
        what: str,
        function: Callable[..., Any] | None,
        in_shapes: Shapes,
        out_shapes: Shapes,
        missing: str = "reverse-mode derivatives need `vjp`",
    ) -> Callable[..., tuple[np.ndarray, ...]]:
        def call(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
            if function is None:
                raise TypeError(f"{self.name}: {missing}, which was not given.")
            batch, calls = rows([a.astype(float) for a in arrays], in_shapes)
            results = self._results(what, function, calls, out_shapes)
            columns = zip(*results, strict=True)
            return tuple(np.stack(c).reshape(batch + s) for c, s in zip(columns, out_shapes, strict=True))

        return call

    def _results(
        self, what: str, function: Callable[..., Any], calls: list[tuple[Any, ...]], shapes: Shapes
    ) -> list[tuple[np.ndarray, ...]]:
        outcomes = self._run(function, calls, shapes)
        for _ in range(self.retries):
            again = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, Failure)]
            if not again:
                break
            for i, outcome in zip(again, self._run(function, [calls[i] for i in again], shapes), strict=True):
                outcomes[i] = outcome
        for i, outcome in enumerate(outcomes):
            if not isinstance(outcome, Failure):
                continue
            with self._lock:
                self.failures[outcome.reason] += 1
                count = sum(self.failures.values())
            if count > self.allowed_failures:
                raise ExternalError(self._message(what, i, calls, outcome, count)) from outcome.error
            outcomes[i] = tuple(np.full(shape, np.nan) for shape in shapes)
        return outcomes  # type: ignore[return-value]

    def _run(self, function: Callable[..., Any], calls: list[tuple[Any, ...]], shapes: Shapes) -> list[Any]:
        def checked(outcome: Any) -> Any:
            if not isinstance(outcome, Failure) and not _finite(outcome):
                return Failure("NaN or infinite values in the result")
            return outcome

        asked = [i for i, arguments in enumerate(calls) if _finite(arguments)]
        outcomes = [tuple(np.full(shape, np.nan) for shape in shapes)] * len(calls)
        for i, outcome in zip(asked, self.workers.run(function, [calls[i] for i in asked], shapes), strict=True):
            outcomes[i] = checked(outcome)
        return outcomes

    def _message(self, what: str, index: int, calls: list[Any], failure: Failure, count: int) -> str:
        shown = "; ".join(np.array2string(np.ravel(a), threshold=FEW, edgeitems=FEW // 2) for a in calls[index])
        tries = f" in {self.retries + 1} tries" if self.retries else ""
        allowed = f" Failure {count}; `allowed_failures` is {self.allowed_failures}." if self.allowed_failures else ""
        advice = "" if self.allowed_failures else " To go on with NaN, which samplers reject, raise `allowed_failures`."
        return (
            f"{self.name}: {what} failed{tries} in call {index + 1} of {len(calls)}, at arguments {shown}: "
            f"{failure.reason}.{allowed}{advice}"
        )


def external(
    function: Callable[..., Any],
    shape: Any,
    *,
    vjp: Callable[..., Any] | None = None,
    jvp: Callable[..., Any] | None = None,
    name: str | None = None,
    threads: int = 1,
    processes: int | None = None,
    timeout: float | None = None,
    retries: int = 0,
    allowed_failures: int = 0,
) -> ExternalMap:
    r"""A forward model that JAX cannot trace, as a function to be used in a model like any other.

    >>> def oven(theta):  # any program
    ...     return np.array([theta[0] * theta[1], theta[1] ** 2])
    >>> def oven_vjp(theta, w):  # the transpose of its Jacobian, times w
    ...     return np.array([theta[1] * w[0], theta[0] * w[0] + 2 * theta[1] * w[1]])
    >>> G = ni.operators.external(oven, (2,), vjp=oven_vjp)
    >>> jax.grad(lambda theta: jnp.sum(G(theta)))(jnp.array([2.0, 3.0])).tolist()
    [3.0, 8.0]

    Functions get NumPy arrays in double precision, and are called once a row of a batch. Values that are not finite
    count as failures. At arguments that are not finite, where a sampler has left its path, the functions are not called
    and the result is NaN. Where the adjoint needs the forward solution, let ``vjp`` find it again, or keep
    the last one in the function's object.

    Args:
        function: from NumPy arrays to an array of ``shape``.
        shape: of what it returns; a list of shapes, if it returns a tuple of arrays.
        vjp: reverse mode: from the arguments and a cotangent w (one per array returned) to :math:`J^{\mathsf T} w` in
            the argument's shape; a tuple of one per argument, if there are several.
        jvp: forward mode: from the arguments and as many tangents to :math:`J v`.
        name: for messages; the site that it computes, say. Default: the function's.
        threads: of this process, that call at a time. One, unless the function may be called by several at once, as
            programs and requests may.
        processes: instead of threads, for functions of Python that hold up each other, or that may hang. The functions
            must be defined in a module. Needs Pebble (extra ``external``).
        timeout: seconds that one call in a process may take.
        retries: of a call that failed.
        allowed_failures: calls that may fail in all, after their retries, and are NaN, which samplers reject. The next
            one raises.

    Raises:
        TypeError: a function that cannot be called, or not be sent to another process.
        ValueError: a number out of range, a timeout without processes.
        ExternalError: while the model runs, in the text of JAX's own error: the call, its arguments and the reason.
    """
    where = name if name is not None else f"external({getattr(function, '__name__', type(function).__name__)})"
    check_instance("external", "name", where, str, "a string")
    check = check_callable if processes is None else check_sendable
    check("external", "function", function)
    for argument, value in (("vjp", vjp), ("jvp", jvp)):
        if value is not None:
            check("external", argument, value)
    workers = Workers(where, threads=threads, processes=processes, timeout=timeout)
    return ExternalMap(
        where,
        function,
        shape,
        vjp=vjp,
        jvp=jvp,
        workers=workers,
        retries=retries,
        allowed_failures=allowed_failures,
    )


class ExternalLinear(LinearOperator):
    r"""A linear operator of two functions that JAX cannot trace, such as projector and backprojector of a package:

    .. math:: \langle A x, y \rangle = \langle x, A^{\mathsf T} y \rangle

    is theirs to keep; :func:`check_adjoint` tells whether they do. Both take and return NumPy arrays.

    Args:
        forward: from an array of ``in_shape`` to one of ``out_shape``.
        transpose: back.
        in_shape: of x.
        out_shape: of A x.
        options: ``name``, ``threads``, ``processes``, ``timeout``, ``retries``, ``allowed_failures`` of
            :func:`external`.

    Raises:
        TypeError, ValueError: as :func:`external`.
    """

    in_shape: tuple[int, ...] = eqx.field(static=True)
    out_shape: tuple[int, ...] = eqx.field(static=True)
    forward: Callable[..., Any] = eqx.field(static=True)
    backward: Callable[..., Any] = eqx.field(static=True)

    def __init__(
        self,
        forward: Callable[..., Any],
        transpose: Callable[..., Any],
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        **options: Any,
    ):
        self.in_shape = check_sample_shape("ExternalLinear", "in_shape", in_shape)
        self.out_shape = check_sample_shape("ExternalLinear", "out_shape", out_shape)
        check = check_callable if options.get("processes") is None else check_sendable
        check("ExternalLinear", "forward", forward)
        check("ExternalLinear", "transpose", transpose)
        there, back = external(forward, self.out_shape, **options), external(transpose, self.in_shape, **options)
        self.forward = there._host_call("forward", forward, (self.in_shape,), (self.out_shape,))
        self.backward = back._host_call("transpose", transpose, (self.out_shape,), (self.in_shape,))

    @acts_on_real
    def mv(self, x):
        return linear_call(self.forward, self.backward, (), (x,), (self.out_shape,))[0]


def _finite(arrays: Sequence[Any]) -> bool:
    return all(np.isfinite(a).all() for a in arrays)


def _shapes(where: str, shape: Any) -> tuple[Shapes, bool]:
    if not isinstance(shape, tuple | list):
        raise TypeError(f"{where}: `shape` must be a tuple of integers or a list of such; got {describe(shape)}.")
    if any(isinstance(part, tuple | list) for part in shape):
        return tuple(check_sample_shape(where, "shape", part) for part in shape), False
    return (check_sample_shape(where, "shape", shape),), True
