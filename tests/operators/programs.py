"""External models that processes of their own can run, well and badly, and a UM-Bridge server of the loopback."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType

import numpy as np


def oven(theta):
    return np.array([theta[0] * theta[1], theta[1] ** 2])


def jacobian(theta):
    return np.array([[theta[1], theta[0]], [0.0, 2 * theta[1]]])


def oven_vjp(theta, w):
    return jacobian(theta).T @ w


def oven_jvp(theta, v):
    return jacobian(theta) @ v


def hanging(theta):
    if theta[0] < 0:
        time.sleep(60.0)
    return oven(theta)


def failing(theta):
    raise ArithmeticError("no convergence")


class Forward:
    """Two inputs of sizes 2 and 1, two outputs of sizes 2 and 1: (c a b, b^2 k) and (a k)."""

    in_sizes, out_sizes = (2, 1), (2, 1)

    def evaluate(self, inputs, config):
        (a, b), (k,) = inputs
        return [[config.get("scale", 1.0) * a * b, b**2 * k], [a * k]]

    def block(self, out, into, inputs):
        (a, b), (k,) = inputs
        return {
            (0, 0): np.array([[b, a], [0.0, 2 * b * k]]),
            (0, 1): np.array([[0.0], [b**2]]),
            (1, 0): np.array([[k, 0.0]]),
            (1, 1): np.array([[a]]),
        }[out, into]


class Handler(BaseHTTPRequestHandler):
    """Protocol 1.0: https://um-bridge-benchmarks.readthedocs.io/en/docs/umbridge/protocol.html (HTTP, JSON)."""

    model = Forward()
    names = MappingProxyType({"forward": ("Evaluate", "Gradient", "ApplyJacobian"), "plain": ("Evaluate",), "none": ()})
    version = 1.0

    def do_GET(self):
        self.answer({"protocolVersion": self.version, "models": list(self.names)})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        what = self.path.strip("/")
        if what == "ModelInfo":
            kinds = ("Evaluate", "Gradient", "ApplyJacobian", "ApplyHessian")
            return self.answer({"support": {kind: kind in self.names[asked["name"]] for kind in kinds}})
        if what == "InputSizes":
            return self.answer({"inputSizes": self.model.in_sizes})
        if what == "OutputSizes":
            return self.answer({"outputSizes": self.model.out_sizes})
        inputs = asked["input"]
        if [len(v) for v in inputs] != list(self.model.in_sizes) or inputs[0][0] < 0:
            return self.answer({"error": {"type": "InvalidInput", "message": "a is negative"}}, 400)
        if what == "Evaluate":
            return self.answer({"output": self.model.evaluate(inputs, asked["config"])})
        block = self.model.block(asked["outWrt"], asked["inWrt"], inputs)
        out = block.T @ asked["sens"] if what == "Gradient" else block @ asked["vec"]
        return self.answer({"output": out.tolist()})

    def answer(self, content, status=200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server:
    """A server in a thread, on a port that the system chooses."""

    def __init__(self, handler=Handler):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
