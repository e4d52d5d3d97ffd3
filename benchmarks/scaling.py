"""Value and gradient of a whitened posterior, by size, chains and devices: the deblurring of whitening.py.

What a step of gradient descent takes inside a compiled loop; wall milliseconds, the least of three.

- size: one chain on 32 x 32 to 512 x 512 cells;
- chains: 1 to 32 of them, vectorized, on 64 x 64 cells;
- devices: eight chains of 64 x 64 cells over 1 to 8 devices, which share the machine's cores.

    python benchmarks/scaling.py [size] [chains] [devices]
"""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpyro.infer.util import initialize_model
from skimage.data import camera

import numpyro_inverse as ni
from benchmarks._options import chosen_parts
from benchmarks._record import keep, machine, measured, package

numpyro.set_host_device_count(8)
OURS = package("numpyro_inverse")
SIZES, CHAINS, DEVICES = (32, 64, 128, 256, 512), (1, 2, 4, 8, 16, 32), (1, 2, 4, 8)


def posterior(n):
    """Potential of a flat vector, and the vector where it begins."""
    image = jnp.asarray(camera()[:n, :n] / 255.0 - 0.5, jnp.float32)
    grid = ni.domains.Grid((n, n), extent=n)
    blur = ni.operators.Convolution.gaussian(grid, width=2.0)

    @ni.whiten
    def model(y):
        scale = numpyro.sample("range", dist.LogNormal(2.0, 0.5))
        field = numpyro.sample("field", ni.distributions.Matern(grid, range=scale, scale=0.3, smoothness=1.5))
        numpyro.sample("y", dist.Normal(blur(field), 0.01).to_event(2), obs=y)

    found = initialize_model(jax.random.key(0), model, model_args=(blur(image),))
    vector, unravel = jax.flatten_util.ravel_pytree(found.param_info.z)
    return lambda v: found.potential_fn(unravel(v)), vector


def milliseconds(potential, start, steps, sharding=None):
    """Wall time of a step of all chains, the rows of ``start``."""

    @partial(jax.jit, static_argnums=1)
    def descend(x, steps):
        gradient = jax.vmap(jax.value_and_grad(potential))
        return jax.lax.fori_loop(0, steps, lambda _, x: x - 1e-9 * gradient(x)[1], x)

    start = start if sharding is None else jax.device_put(start, sharding)
    jax.block_until_ready(descend(start, steps))
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        jax.block_until_ready(descend(start, steps))
        taken.append(time.perf_counter() - begun)
    return 1e3 * min(taken) / steps


def size():
    for n in SIZES:
        potential, vector = posterior(n)
        taken = milliseconds(potential, vector[None], max(10, 200 * 64**2 // n**2))
        yield f"cells {n}", {"gradient [ms]": taken}


def chains():
    potential, vector = posterior(64)
    for count in CHAINS:
        taken = milliseconds(potential, jnp.tile(vector, (count, 1)), 400 // count + 20)
        yield f"chains {count}", {"gradient of all [ms]": taken, "gradient of a chain [ms]": taken / count}


def devices():
    potential, vector = posterior(64)
    for count in DEVICES:
        sharding = NamedSharding(Mesh(jax.devices()[:count], "chains"), PartitionSpec("chains"))
        yield (
            f"devices {count}",
            {"gradient of all [ms]": milliseconds(potential, jnp.tile(vector, (8, 1)), 50, sharding)},
        )


PARTS = {part.__name__: part for part in (size, chains, devices)}

if __name__ == "__main__":
    for name in chosen_parts(__doc__, PARTS):
        for case, values in PARTS[name]():
            print(case, values, flush=True)
            keep("scaling", measured(case, "whitened", OURS, values), machine())
