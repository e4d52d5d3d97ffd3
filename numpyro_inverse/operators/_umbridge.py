"""A client of UM-Bridge: forward models behind an HTTP server, in any language."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import numpy as np

from numpyro_inverse._checks import check_count, check_instance, check_positive_number
from numpyro_inverse._workers import Workers
from numpyro_inverse.operators._external import ExternalMap

VERSION = 1.0  # of the protocol


def umbridge(
    url: str,
    model: str,
    *,
    config: Mapping[str, Any] | None = None,
    threads: int = 1,
    timeout: float | None = None,
    retries: int = 0,
    allowed_failures: int = 0,
) -> ExternalMap:
    r"""A model behind a UM-Bridge server, as a function of its input vectors.

    Derivatives are those that the server has: ``Gradient`` gives reverse mode, ``ApplyJacobian`` forward mode. The
    server is asked for sizes and abilities when this function is called; no package is needed.

    >>> # not run: needs a server
    >>> G = ni.operators.umbridge("http://localhost:4242", "forward", threads=8)  # doctest: +SKIP
    >>> G.in_shapes, G(jnp.zeros(3))  # doctest: +SKIP

    Args:
        url: of the server.
        model: its name there.
        config: given to the server with each request, such as a level of discretization.
        threads: requests at a time. A server works on one at a time unless it was started otherwise.
        timeout: seconds that a request may take; default: any time.
        retries: of a request that failed.
        allowed_failures: as in :func:`external`.

    Returns:
        The function; with more than one output vector it returns a tuple. Its attribute ``in_shapes`` has the shapes of
        the inputs.

    Raises:
        TypeError: arguments of the wrong kind; a ``config`` that JSON does not have.
        ConnectionError: nobody answers at ``url``, or not in this protocol.
        ValueError: a number out of range; the server has no such model, or the model cannot be evaluated.

    References:
        L. Seelinger, V. Cheng-Seelinger, A. Davis, M. Parno, A. Reinarz, UM-Bridge: Uncertainty quantification and
        modeling bridge, Journal of Open Source Software 8(83), 4748 (2023); protocol 1.0.
    """
    where = "umbridge"
    check_instance(where, "url", url, str, "a URL")
    check_instance(where, "model", model, str, "the model's name")
    config = {} if config is None else dict(check_instance(where, "config", config, Mapping, "a dictionary"))
    try:
        json.dumps(config)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{where}: `config` must be what JSON has, numbers, words, lists; got {error}.") from error
    if urlparse(url).scheme not in ("http", "https"):
        raise ValueError(f"umbridge: `url` must begin with http:// or https://; got {url!r}.")
    workers = Workers(where, threads=threads)
    retries = check_count(where, "retries", retries, 0)
    allowed_failures = check_count(where, "allowed_failures", allowed_failures, 0)
    seconds = None if timeout is None else check_positive_number(where, "timeout", timeout)
    url, here = url.rstrip("/"), {"name": model, "config": config}

    def ask(what: str, **content: Any) -> Any:
        return _ask(f"{url}/{what}", {**here, **content}, seconds)

    info = _ask(f"{url}/Info", None, seconds)
    if info.get("protocolVersion") != VERSION:
        raise ConnectionError(f"umbridge: {url} speaks protocol {info.get('protocolVersion')}, not {VERSION}.")
    if model not in info.get("models", []):
        raise ValueError(f"umbridge: {url} has no model {model!r}; it has {', '.join(map(repr, info['models']))}.")
    can = ask("ModelInfo")["support"]
    if not can.get("Evaluate"):
        raise ValueError(f"umbridge: model {model!r} at {url} cannot be evaluated.")
    ins, outs = ask("InputSizes")["inputSizes"], ask("OutputSizes")["outputSizes"]

    def values(*args: np.ndarray) -> Any:
        return _arrays(ask("Evaluate", input=_lists(args))["output"])

    def jvp(*args: np.ndarray) -> Any:
        points, tangents = _lists(args[: len(ins)]), args[len(ins) :]
        moving = [(i, v) for i, v in enumerate(tangents) if np.any(v)]

        def along(o: int) -> np.ndarray:
            terms = [
                np.asarray(ask("ApplyJacobian", outWrt=o, inWrt=i, input=points, vec=v.tolist())["output"], float)
                for i, v in moving
            ]
            return sum(terms, np.zeros(outs[o]))

        return _one_or_all([along(o) for o in range(len(outs))])

    def vjp(*args: np.ndarray) -> Any:
        points, cotangents = _lists(args[: len(ins)]), args[len(ins) :]
        asked = [(o, w) for o, w in enumerate(cotangents) if np.any(w)]

        def back(i: int) -> np.ndarray:
            terms = [
                np.asarray(ask("Gradient", outWrt=o, inWrt=i, input=points, sens=w.tolist())["output"], float)
                for o, w in asked
            ]
            return sum(terms, np.zeros(ins[i]))

        return _one_or_all([back(i) for i in range(len(ins))])

    found = ExternalMap(
        f"umbridge({model!r} at {url})",
        values,
        [(n,) for n in outs] if len(outs) > 1 else (outs[0],),
        vjp=vjp if can.get("Gradient") else None,
        jvp=jvp if can.get("ApplyJacobian") else None,
        workers=workers,
        retries=retries,
        allowed_failures=allowed_failures,
    )
    found.in_shapes = tuple((n,) for n in ins)
    return found


def _ask(address: str, content: Any, seconds: float | None) -> Any:
    """The server's answer to a request; what is wrong with it raises."""
    data = None if content is None else json.dumps(content).encode()
    request = Request(address, data, {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=seconds) as reply:
            body = reply.read()
    except HTTPError as error:
        body = error.read()
        if not body.lstrip().startswith(b"{"):
            raise ConnectionError(f"umbridge: {address} answers {error.code} {error.reason}.") from error
    except TimeoutError as error:
        raise ConnectionError(f"umbridge: {address} does not answer within {seconds:g} s.") from error
    except (URLError, OSError) as error:
        raise ConnectionError(
            f"umbridge: {address} does not answer ({getattr(error, 'reason', error)}). Is the server running there?"
        ) from error
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise ConnectionError(f"umbridge: {address} answers no JSON: {body[:60]!r}.") from error
    if "error" in answer:
        raise RuntimeError(f"the server reports {answer['error'].get('type')}: {answer['error'].get('message')}")
    return answer


def _lists(args: tuple[np.ndarray, ...]) -> list[list[float]]:
    return [a.tolist() for a in args]


def _arrays(output: list[list[float]]) -> Any:
    return _one_or_all([np.asarray(v, float) for v in output])


def _one_or_all(values: list[np.ndarray]) -> Any:
    return values[0] if len(values) == 1 else tuple(values)
