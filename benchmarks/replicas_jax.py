"""JAX's side of benchmarks/replicas.py: prints milliseconds a step of all networks; exit status 3 where jax is not installed."""

import functools
import itertools
import json
import statistics
import sys
import time

try:
    import jax
    import jax.numpy as jnp
except ImportError:
    sys.exit(3)


def main(sizes, count, rows, samples, steps, optimizer, activation, repeats):
    squash = {"tanh": jnp.tanh, "relu": jax.nn.relu}[activation]
    key = jax.random.PRNGKey(0)
    shapes = list(itertools.pairwise(sizes))
    weights = [(0.3 * jax.random.normal(key, (count, i, o)), jnp.zeros((count, o))) for i, o in shapes]
    x = jax.random.normal(key, (samples, sizes[0]))
    y = (x[:, 0] > 0).astype(jnp.int32)

    def loss(weights, x, y):
        for w, b in weights[:-1]:
            x = squash(x @ w + b)
        w, b = weights[-1]
        return -jnp.take_along_axis(jax.nn.log_softmax(x @ w + b), y[:, None], 1).mean()

    slopes = jax.vmap(jax.grad(loss), in_axes=(0, None, None) if rows == samples else (0, 0, 0))

    def adam(weights, moments, g, t):
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], g)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, moments[1], g)
        scale = jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        return jax.tree.map(lambda w, m, v: w - 1e-3 * scale * m / (jnp.sqrt(v) + 1e-8), weights, first, second), (first, second)

    @jax.jit
    def run(weights, orders):
        def step(carry, index):
            weights, moments, t = carry
            g = slopes(weights, x, y) if rows == samples else slopes(weights, x[index], y[index])
            if optimizer == "adam":
                weights, moments = adam(weights, moments, g, t)
            else:
                weights = jax.tree.map(lambda w, g: w - 1e-3 * g, weights, g)
            return (weights, moments, t + 1.0), None

        zeros = jax.tree.map(jnp.zeros_like, weights)
        return jax.lax.scan(step, (weights, (zeros, zeros), 1.0), orders)[0][0]

    width = 1 if rows == samples else rows
    orders = jax.random.randint(key, (steps, count, width), 0, samples)
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        jax.block_until_ready(run(weights, orders))
        times.append(time.process_time() - start)
    print(1e3 * statistics.median(times[1:]) / steps)


functools.partial(main, **json.loads(sys.argv[1]))()
