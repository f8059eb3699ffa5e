"""The recurrences over time of the LSTM, the GRU and the simple RNN, each with a gradient written by hand.

Legend: T time steps, B batch, H hidden units, G the gates' units side by side (4H, 3H or H). Everything is time-major.

Each function is given the inputs' share of the gates for all time steps, x_TxBxG (bias included), so that only h @ W is
left inside the scan. Differentiated as it comes, a scan adds up the gradient of W step by step, a [H, G] sum read and
written T times; here the backward scan hands out the gradient of each step's h @ W instead, and the gradient of W is
one product over all steps after it. The equations are those of `flax.linen`'s LSTMCell, GRUCell and SimpleCell.

Reverse mode only: `jax.jvp` and forward-over-reverse Hessians are refused by `jax.custom_vjp`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fdl.types import Array


def _before(first_BxH: Array, all_TxBxH: Array) -> Array:
    """Return the state each step started from."""
    return jnp.concatenate([first_BxH[None], all_TxBxH[:-1]])


def _kernel_gradient(before_TxBxH: Array, d_TxBxG: Array) -> Array:
    return jnp.einsum("tbh,tbg->hg", before_TxBxH, d_TxBxG)


@jax.custom_vjp
def lstm(x_TxBx4H: Array, carry: tuple[Array, Array], kernel_Hx4H: Array) -> tuple[Array, tuple[Array, Array]]:
    """Run long short-term memory with forget gate and no peepholes (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

    With i, f, g, o the four quarters of a_t = x_t + h_{t-1} W, in that order:

        c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)
        h_t = sigmoid(o) tanh(c_t)

    Args:
        x_TxBx4H: the inputs' share of the gates.
        carry: (c, h), each [B, H].
        kernel_Hx4H: W.

    Returns:
        h [T, B, H], and the last (c, h).
    """
    return _lstm_forward(x_TxBx4H, carry, kernel_Hx4H)[0]


def _lstm_forward(x: Array, carry: tuple[Array, Array], kernel: Array) -> tuple[Any, Any]:
    def step(carry: tuple[Array, Array], x_t: Array) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        c, h = carry
        a_i, a_f, a_g, a_o = jnp.split(x_t + h @ kernel, 4, axis=-1)
        i, f, g, o = jax.nn.sigmoid(a_i), jax.nn.sigmoid(a_f), jnp.tanh(a_g), jax.nn.sigmoid(a_o)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (c, h), (i, f, g, o, c, h)

    last, (i, f, g, o, c, h) = lax.scan(step, carry, x)
    return (h, last), (i, f, g, o, c, h, carry, kernel)


def _lstm_backward(saved: Any, gradients: Any) -> tuple[Array, tuple[Array, Array], Array]:
    i, f, g, o, c, h, (c_first, h_first), kernel = saved
    dh_TxBxH, d_last = gradients
    transposed = kernel.T  # once, not in each step

    def step(carry: tuple[Array, Array], saved_t: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        dc, dh = carry
        i, f, g, o, c, c_before, dh_t = saved_t
        dh = dh + dh_t
        tanh_c = jnp.tanh(c)
        dc = dc + dh * o * (1 - tanh_c * tanh_c)
        da = jnp.concatenate(
            [dc * g * i * (1 - i), dc * c_before * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)],
            axis=-1,
        )
        return (dc * f, da @ transposed), da

    d_first, da = lax.scan(step, d_last, (i, f, g, o, c, _before(c_first, c), dh_TxBxH), reverse=True)
    return da, d_first, _kernel_gradient(_before(h_first, h), da)


lstm.defvjp(_lstm_forward, _lstm_backward)


@jax.custom_vjp
def gru(x_TxBx3H: Array, carry_BxH: Array, kernel_Hx3H: Array, bias_H: Array) -> tuple[Array, Array]:
    """Run the gated recurrent unit (Cho et al. 2014), reset gate after the product, as in cuDNN, PyTorch and Flax.

    With r, z, n the three thirds of x_t, U_r, U_z, U_n those of W, and b `bias_H`:

        r = sigmoid(r_t + h_{t-1} U_r)
        z = sigmoid(z_t + h_{t-1} U_z)
        n = tanh(n_t + r (h_{t-1} U_n + b))
        h_t = (1 - z) n + z h_{t-1}

    Args:
        x_TxBx3H: the inputs' share of the gates.
        carry_BxH: h.
        kernel_Hx3H: W.
        bias_H: b.

    Returns:
        h [T, B, H], and the last h.
    """
    return _gru_forward(x_TxBx3H, carry_BxH, kernel_Hx3H, bias_H)[0]


def _gru_forward(x: Array, carry: Array, kernel: Array, bias: Array) -> tuple[Any, Any]:
    size = carry.shape[-1]
    bias_1xH = bias[None]

    def step(h: Array, x_t: Array) -> tuple[Array, tuple[Array, ...]]:
        product = h @ kernel
        gates = jax.nn.sigmoid(x_t[:, : 2 * size] + product[:, : 2 * size])
        r, z = gates[:, :size], gates[:, size:]
        q = product[:, 2 * size :] + bias_1xH
        n = jnp.tanh(x_t[:, 2 * size :] + r * q)
        h = (1 - z) * n + z * h
        return h, (r, z, n, q, h)

    last, (r, z, n, q, h) = lax.scan(step, carry, x)
    return (h, last), (r, z, n, q, h, carry, kernel)


def _gru_backward(saved: Any, gradients: Any) -> tuple[Array, Array, Array, Array]:
    r, z, n, q, h, first, kernel = saved
    dh_TxBxH, d_last = gradients
    size = first.shape[-1]
    transposed = kernel.T
    before = _before(first, h)

    def step(dh: Array, saved_t: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        r, z, n, q, before, dh_t = saved_t
        dh = dh + dh_t
        da_n = dh * (1 - z) * (1 - n * n)
        da_r = da_n * q * r * (1 - r)
        da_z = dh * (before - n) * z * (1 - z)
        d_product = jnp.concatenate([da_r, da_z, da_n * r], axis=-1)
        return dh * z + d_product @ transposed, (d_product, da_n)

    d_first, (d_product, da_n) = lax.scan(step, d_last, (r, z, n, q, before, dh_TxBxH), reverse=True)
    dx = jnp.concatenate([d_product[..., : 2 * size], da_n], axis=-1)
    return dx, d_first, _kernel_gradient(before, d_product), d_product[..., 2 * size :].sum((0, 1))


gru.defvjp(_gru_forward, _gru_backward)


@jax.custom_vjp
def rnn(x_TxBxH: Array, carry_BxH: Array, kernel_HxH: Array) -> tuple[Array, Array]:
    """Run the simple recurrent network (Elman 1990): h_t = tanh(x_t + h_{t-1} W).

    Args:
        x_TxBxH: the inputs' share.
        carry_BxH: h.
        kernel_HxH: W.

    Returns:
        h [T, B, H], and the last h.
    """
    return _rnn_forward(x_TxBxH, carry_BxH, kernel_HxH)[0]


def _rnn_forward(x: Array, carry: Array, kernel: Array) -> tuple[Any, Any]:
    def step(h: Array, x_t: Array) -> tuple[Array, Array]:
        h = jnp.tanh(x_t + h @ kernel)
        return h, h

    last, h = lax.scan(step, carry, x)
    return (h, last), (h, carry, kernel)


def _rnn_backward(saved: Any, gradients: Any) -> tuple[Array, Array, Array]:
    h, first, kernel = saved
    dh_TxBxH, d_last = gradients
    transposed = kernel.T

    def step(dh: Array, saved_t: tuple[Array, Array]) -> tuple[Array, Array]:
        h, dh_t = saved_t
        da = (dh + dh_t) * (1 - h * h)
        return da @ transposed, da

    d_first, da = lax.scan(step, d_last, (h, dh_TxBxH), reverse=True)
    return da, d_first, _kernel_gradient(_before(first, h), da)


rnn.defvjp(_rnn_forward, _rnn_backward)
