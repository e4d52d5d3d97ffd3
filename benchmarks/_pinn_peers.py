"""The peers' side of pinn.py training, run by it in the peers' environment: ``PEER INPUT.npz OUTPUT.json``.

jinns (Adam, its natural gradient, its self-scaled Broyden method) and DeepXDE (Adam; its JAX backend has no other of
use) on the same objective, network, boundary condition and precision as ours, until the error of the field is at most
the target, looked at every step or every so many. CPU seconds without compilation.
"""

import json
import os
import sys
import time
import types
import typing
import warnings

os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_ENABLE_X64"] = "1"
os.environ["DDE_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _record import package

WIDTH = 32


# What is left of each equation, of u, its second derivatives along the axes, theta and the point; and the network's
# factor that vanishes on the boundary, of coordinates x and the library of arrays.
RESIDUALS = {
    1: lambda u, second, theta, x: -second[0] + theta * u - 20 * jnp.exp(-((x[0] - 0.3) ** 2) / 0.02),
    2: lambda u, second, theta, x: 0.01 * (second[0] + second[1]) + theta * u**2 - plane_source(x),
}
DISTANCES = {1: lambda x: 4 * x[0] * (1 - x[0]), 2: lambda x: (1 - x[0] ** 2) * (1 - x[1] ** 2)}


def plane_source(x):
    """Of theta = 1 and u = sin pi x sin pi y."""
    u = jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * x[1])
    return -0.02 * jnp.pi**2 * u + u**2


def error_of(problem, fields):
    """Largest error in one dimension, root mean square in two, as numbers."""
    off = jnp.abs(jnp.ravel(fields) - problem["exact"])
    return jnp.max(off) if problem["grid"].shape[1] == 1 else jnp.sqrt(jnp.mean(off**2))


def import_jinns():
    """jinns, which writes ``TypeVar(name="T", ...)``; CPython 3.12.1 crashes on that unless the name stands first."""
    original = typing.TypeVar

    class Positional(type):
        def __call__(cls, name, *bounds, **options):
            return original(name, *bounds, **options)

        def __instancecheck__(cls, x):
            return isinstance(x, original)

    typing.TypeVar = Positional("TypeVar", (), {})
    try:
        import jinns
        import jinns.validation
    finally:
        typing.TypeVar = original
    return jinns


def get_value_fn(loss, batch):
    """The objective, for a line search; jinns wants such names and arguments."""
    return lambda params, **_: loss(params, batch)[0]


def get_grad_fn(loss, batch):
    """Its gradient."""
    return lambda params, **_: jax.grad(lambda p: loss(p, batch)[0])(params)


def run_jinns(problem, optimizer, num_steps, every, extra=None):
    """CPU seconds, steps, error and theta where it stopped."""
    import equinox as eqx

    jinns = import_jinns()
    keys = jax.random.split(jax.random.key(0), 3)
    ndim = problem["grid"].shape[1]
    layers = ((eqx.nn.Linear, ndim, WIDTH), (jnp.tanh,), (eqx.nn.Linear, WIDTH, WIDTH), (jnp.tanh,))
    u, weights = jinns.nn.PINN_MLP.create(
        key=keys[0],
        eqx_list=(*layers, (eqx.nn.Linear, WIDTH, 1)),
        eq_type="PDEStatio",
        output_transform=lambda x, out, _: DISTANCES[ndim](x) * out,
    )
    params = jinns.parameters.Params(nn_params=weights, eq_params={"theta": jnp.array(problem["theta"])})

    class Equation(jinns.loss.PDEStatio):
        def equation(self, x, u, params):
            def value(x):
                return u(x, params)[0]

            def second(e):
                return jax.jvp(lambda x: jax.jvp(value, (x,), (e,))[1], (x,), (e,))[1]

            second = [second(e) for e in jnp.eye(ndim)]
            return jnp.atleast_1d(RESIDUALS[ndim](value(x), second, params.eq_params.theta, x))

    class Until(jinns.validation.AbstractValidationModule):
        call_every: int = eqx.field(static=True, default=every)

        def __call__(self, params):
            error = error_of(problem, jax.vmap(lambda x: u(x, params)[0])(jnp.asarray(problem["grid"])))
            return self, error <= problem["target"], error, False

    both = jinns.parameters.DerivativeKeysPDEStatio.from_str(dyn_loss="both", observations="nn_params", params=params)
    loss = jinns.loss.LossPDEStatio(
        u=u,
        dynamic_loss=Equation(),
        loss_weights=jinns.loss.LossWeightsPDEStatio(dyn_loss=problem["ratio"], observations=1.0),
        derivative_keys=both,
        params=params,
    )
    collocation = jinns.data.CubicMeshPDEStatio(
        key=keys[1],
        n=int(problem["num_points"]),
        dim=ndim,
        min_pts=tuple(map(float, problem["lower"])),
        max_pts=tuple(map(float, problem["upper"])),
        method="grid",
    )
    observations = jinns.data.DataGeneratorObservations(
        key=keys[2], observed_pinn_in=problem["sensors"], observed_values=problem["values"][:, None]
    )
    ticks: list[float] = []  # jinns looks at the clock before and after compilation, and before and after training

    def tick():
        ticks.append(time.process_time())
        return ticks[-1]

    sys.modules["jinns.solver._solve"].time = types.SimpleNamespace(time=tick)
    out = jinns.solve(
        n_iter=num_steps,
        init_params=params,
        data=collocation,
        loss=loss,
        optimizer=optimizer,
        obs_data=observations,
        validation=Until(),
        verbose=False,
        extra_optax_args_and_kwargs=extra,
    )
    found, criteria = out[0], out[10]
    criteria = np.asarray(criteria)
    fields = jax.vmap(lambda x: u(x, found)[0])(jnp.asarray(problem["grid"]))
    done = np.flatnonzero(criteria <= problem["target"])
    return {
        "seconds": ticks[-1] - ticks[-2],
        "compile_s": ticks[-3] - ticks[-4],
        "steps": int(done[0]) if len(done) else num_steps,
        "error": float(error_of(problem, fields)),
        "theta": float(found.eq_params.theta),
    }


def jinns_rows(problem):
    """A row for each of its optimizers."""
    jinns = import_jinns()
    warnings.simplefilter("ignore")
    steps = int(problem["adam"])
    adam = optax.adam(optax.cosine_decay_schedule(1e-3, steps))
    natural = jinns.optimizers.vanilla_ngd(eq_params_tx={"theta": optax.adam(1e-1)})
    broyden = jinns.optimizers.scale_by_SSBroyden_family()
    name = jinns.solver.GetJinnsVariableName
    extra = {"value": name("train_loss_value"), "grad_pt": name("grads")}
    extra |= {"value_fn": get_value_fn, "grad_fn": get_grad_fn}
    yield "jinns, Adam", lambda: run_jinns(problem, adam, steps, 100)
    yield "jinns, natural gradient", lambda: run_jinns(problem, natural, 1000, 1)
    yield "jinns, SSBroyden", lambda: run_jinns(problem, broyden, 3000, 2, extra)


def run_deepxde(problem, num_steps, every=100):
    """As :func:`run_jinns`."""
    import deepxde as dde

    dde.config.set_default_float("float64")
    dde.config.set_random_seed(0)
    theta = dde.Variable(float(problem["theta"]))
    ndim, lower, upper = problem["grid"].shape[1], problem["lower"], problem["upper"]

    def equation(x, y, unknowns=None):
        t = theta.value if unknowns is None else unknowns[0]
        second = [dde.grad.hessian(y, x, i=i, j=i)[0] for i in range(ndim)]
        return RESIDUALS[ndim](y[0], second, t, [x[..., i : i + 1] for i in range(ndim)])

    data = dde.data.PDE(
        dde.geometry.Interval(lower[0], upper[0]) if ndim == 1 else dde.geometry.Rectangle(lower, upper),
        equation,
        [dde.icbc.PointSetBC(problem["sensors"], problem["values"][:, None])],
        num_domain=int(problem["num_points"]),
        train_distribution="uniform",
    )
    net = dde.nn.FNN([ndim, WIDTH, WIDTH, 1], "tanh", "Glorot normal")
    net.apply_output_transform(lambda x, y: DISTANCES[ndim]([x[..., i : i + 1] for i in range(ndim)]) * y)
    model = dde.Model(data, net)
    model.compile(
        "adam",
        lr=1e-3,
        decay=("cosine", num_steps, 0.0),
        loss_weights=[float(problem["ratio"]), 1.0],
        external_trainable_variables=[theta],
    )

    class Until(dde.callbacks.Callback):
        def on_train_begin(self):
            self.steps, self.seconds, self.error = 0, 0.0, np.inf
            self.start = time.process_time()

        def on_epoch_end(self):
            self.steps += 1
            if self.steps % every == 0:
                self.seconds += time.process_time() - self.start
                self.error = error_of(problem, self.model.predict(problem["grid"]))
                self.model.stop_training = bool(self.error <= problem["target"])
                self.start = time.process_time()

    start = time.process_time()
    model.train(iterations=2, verbose=0)
    model.predict(problem["grid"])
    compile_s = time.process_time() - start
    until = Until()
    model.train(iterations=num_steps, display_every=10 * num_steps, callbacks=[until], verbose=0)
    return {
        "seconds": until.seconds,
        "compile_s": compile_s,
        "steps": until.steps,
        "error": float(until.error),
        "theta": float(theta.value),
    }


def deepxde_rows(problem):
    """One row."""
    yield "DeepXDE, Adam", lambda: run_deepxde(problem, int(problem["adam"]))


def main(peer, source, output):
    """Run a peer, and keep what there is after each row."""
    with np.load(source) as arrays:
        problem = dict(arrays)
    rows, version = [], package({"jinns": "jinns", "DeepXDE": "deepxde"}[peer])
    for title, call in {"jinns": jinns_rows, "DeepXDE": deepxde_rows}[peer](problem):
        try:
            rows.append({"title": title, "package": version, **call()})
        except Exception as error:  # a peer that fails is reported, not hidden
            rows.append({"title": title, "package": version, "why": f"{type(error).__name__}: {error}"})
        print(rows[-1], flush=True)
        with open(output, "w") as file:
            json.dump(rows, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
