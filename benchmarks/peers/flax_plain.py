"""Flax Linen as its documentation has it: a Python loop of jitted steps, optax.adam, XLA's own flags; nothing of fdl."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from benchmarks.peers import common
from benchmarks.workloads import blocks


class Net(nn.Module):
    """uint8 [B, ...] -> logits [B, ..., classes]."""

    net: str
    width: int
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        cells = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell, "rnn": nn.SimpleCell}
        if self.net in cells:
            x = nn.RNN(cells[self.net](self.width))(jax.nn.one_hot(x, self.classes))
            return nn.Dense(self.classes)(x)
        x = x.astype(jnp.float32) / 255
        if self.net == "mlp":
            x = nn.relu(nn.Dense(self.width)(x.reshape(len(x), -1)))
        elif self.net == "cnn":
            for _ in range(2):
                x = nn.relu(nn.Conv(64, (3, 3), padding="VALID")(x))
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
            x = nn.relu(nn.Dense(128)(x.reshape(len(x), -1)))
        else:
            x = self.resnet(x)
        return nn.Dense(self.classes)(x)

    def resnet(self, x: jax.Array) -> jax.Array:
        x = nn.relu(self.conv(x, self.width, *((3, 1) if self.net == "resnet18" else (7, 2))))
        if self.net == "resnet50":
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for convs, shortcut in blocks(self.net, self.width):
            residual, strides = x, 1
            for number, (channels, kernel, stride) in enumerate(convs, 1):
                x, strides = self.conv(x, channels, kernel, stride), strides * stride
                x = nn.relu(x) if number < len(convs) else x
            x = nn.relu(x + (self.conv(residual, convs[-1][0], 1, strides) if shortcut else residual))
        return x.mean((1, 2))

    def conv(self, x: jax.Array, channels: int, kernel: int, stride: int) -> jax.Array:
        x = nn.Conv(channels, (kernel, kernel), stride, padding=kernel // 2, use_bias=False)(x)
        return nn.BatchNorm(use_running_average=False, momentum=0.9)(x)


def main() -> None:
    for spec in common.specs():
        inputs, targets = common.rows(spec)
        model, tx = Net(spec["net"], spec["width"], spec["classes"]), optax.adam(1e-3)
        feed = common.batches(inputs, targets, spec["batch"])
        variables = jax.jit(model.init)(jax.random.key(0), next(feed)[0])
        params, stats = variables["params"], {name: part for name, part in variables.items() if name != "params"}
        opt_state = tx.init(params)

        @jax.jit
        def step(params: Any, stats: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
            def loss_of(params: Any) -> Any:
                logits, changed = model.apply({"params": params, **stats}, x, mutable=list(stats))
                return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), changed

            (loss, changed), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
            updates, after = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), changed, after, loss

        clock = common.Clock(spec)
        for x, y in feed:
            params, stats, opt_state, loss = step(params, stats, opt_state, x, y)
            if clock.tick(loss.item):
                break
        common.report(clock, sum(leaf.size for leaf in jax.tree.leaves(params)), "jax", "flax", "optax")


if __name__ == "__main__":
    main()
