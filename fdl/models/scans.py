"""The recurrences over time: LSTM, GRU, simple RNN with gradients written by hand, and the minGRU without a loop.

Legend: T time steps, B batch, H hidden units, G the gates' units side by side (4H, 3H, 2H or H). Everything is time-major.

Each function is given the inputs' share of the gates for all time steps, x_TxBxG (bias included), so that only h @ W is
left inside the scan. Differentiated as it comes, a scan adds up the gradient of W step by step, a [H, G] sum read and
written T times; here the backward scan hands out the gradient of each step's h @ W instead, and the gradient of W is
one product over all steps after it. The equations are those of `flax.linen`'s LSTMCell, GRUCell and SimpleCell.

Every function takes `mask_TxBx1` (None: every step counts) and `reverse`. A step whose mask is 0 leaves the state as it
is, so h repeats the state before it: padding at the end changes no result, whichever way the scan runs. With `reverse` the
scan runs from the last step to the first, and h[t] has read the steps t ... T - 1.

Reverse mode only: `jax.jvp` and forward-over-reverse Hessians are refused by `jax.custom_vjp` (the minGRU's are not).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from fdl.types import Array

State = tuple[Array, ...]
"""What a recurrence carries from step to step, h last: (c, h) for the LSTM, (h,) for the others; each [B, H]."""


@dataclasses.dataclass(frozen=True)
class _Cell:
    """One recurrence and its gradient; `_scan` runs it over time.

    Attributes:
        forward: (state, x_t, h @ W, bias) -> (the new state, what the gradient needs of this step).
        needed: (that of all steps, states before each step, states after it) -> what `backward` reads of a step.
        backward: (gradient of the new state, `needed` of the step) -> the gradient of the state before it except through
            h @ W (None where that is the only way), the gradient of h @ W, and whatever else `to_inputs` needs.
        to_inputs: (gradients of h @ W, whatever else), of all steps -> the gradient of x.
    """

    forward: Callable[[State, Array, Array, Array | None], tuple[State, State]]
    needed: Callable[[State, State, State], State]
    backward: Callable[[State, State], tuple[tuple[Array | None, ...], Array, State]]
    to_inputs: Callable[[Array, State], Array] = lambda d_product, rest: d_product


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(
    cell: _Cell, reverse: bool, x: Array, state: State, kernel: Array, bias: Array | None, mask: Array | None
) -> tuple[Array, State]:
    """Run a cell over x [T, B, G]; return h [T, B, H] and the last state."""
    return _scan_forward(cell, reverse, x, state, kernel, bias, mask)[0]


def _scan_forward(
    cell: _Cell, reverse: bool, x: Array, state: State, kernel: Array, bias: Array | None, mask: Array | None
) -> tuple[tuple[Array, State], Any]:
    def step(state: State, given: Any) -> tuple[State, tuple[State, State]]:
        x_t, mask_t = given
        new, kept = cell.forward(state, x_t, state[-1] @ kernel, bias)
        new = _where(mask_t, new, state)
        return new, (kept, new)

    last, (kept, after) = lax.scan(step, state, (x, mask), reverse=reverse)
    return (after[-1], last), (kept, after, state, kernel, bias, mask)


def _scan_backward(cell: _Cell, reverse: bool, saved: Any, gradients: Any) -> tuple[Any, ...]:
    kept, after, first, kernel, bias, mask = saved
    dh_TxBxH, d_last = gradients
    before = tuple(_before(*pair, reverse) for pair in zip(first, after, strict=True))
    transposed = kernel.T  # once, not in each step

    def step(d_state: State, given: Any) -> tuple[State, tuple[Array, State]]:
        needed_t, dh_t, mask_t = given
        d_state = (*d_state[:-1], d_state[-1] + dh_t)
        direct, d_product, rest = cell.backward(d_state, needed_t)
        d_product, *masked = _where(mask_t, (d_product, *rest), (jnp.zeros((), d_product.dtype),) * (1 + len(rest)))
        *others, dh = direct
        through = d_product @ transposed
        d_before = (*others, through if dh is None else dh + through)
        return _where(mask_t, d_before, d_state), (d_product, tuple(masked))

    given = cell.needed(kept, before, after), dh_TxBxH, mask
    d_first, (d_product, rest) = lax.scan(step, d_last, given, reverse=not reverse)
    d_kernel = _kernel_gradient(before[-1], d_product)
    d_bias = None if bias is None else d_product[..., -bias.shape[0] :].sum((0, 1))
    return cell.to_inputs(d_product, rest), d_first, d_kernel, d_bias, None


_scan.defvjp(_scan_forward, _scan_backward)


def _before(first_BxH: Array, all_TxBxH: Array, reverse: bool) -> Array:
    """Return the state each step started from."""
    parts = [all_TxBxH[1:], first_BxH[None]] if reverse else [first_BxH[None], all_TxBxH[:-1]]
    return jnp.concatenate(parts)


def _where(mask: Array | None, new: State, old: State) -> State:
    if mask is None:
        return new
    return tuple(jnp.where(mask != 0, a, b) for a, b in zip(new, old, strict=True))


@jax.custom_vjp
def product_by_step(x_TxBxD: Array, kernel_DxG: Array) -> Array:
    """Compute x @ kernel step by step, [T, B, G], in products of the same shape however long the rows are.

    The bits of one product over all steps may depend on how many there are: padding would be seen. Its gradients do not
    reach what is compared and are one product each.
    """
    return lax.map(lambda x_BxD: x_BxD @ kernel_DxG, x_TxBxD)


def _product_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return product_by_step(x, kernel), (x, kernel)


def _product_backward(saved: tuple[Array, Array], d: Array) -> tuple[Array, Array]:
    x, kernel = saved
    return d @ kernel.T, _kernel_gradient(x, d)


product_by_step.defvjp(_product_forward, _product_backward)


def _kernel_gradient(x_TxBxD: Array, d_TxBxG: Array) -> Array:
    return jnp.einsum("tbh,tbg->hg", x_TxBxD, d_TxBxG)


# ---- the LSTM --------------------------------------------------------------------------------------------------------


def lstm(
    x_TxBx4H: Array,
    carry: tuple[Array, Array],
    kernel_Hx4H: Array,
    mask_TxBx1: Array | None = None,
    reverse: bool = False,
) -> tuple[Array, tuple[Array, Array]]:
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
    h, (c_last, h_last) = _scan(_LSTM, reverse, x_TxBx4H, tuple(carry), kernel_Hx4H, None, mask_TxBx1)
    return h, (c_last, h_last)


def _lstm_forward(state: State, x_t: Array, product: Array, bias: Array | None) -> tuple[State, State]:
    c, _ = state
    a_i, a_f, a_g, a_o = jnp.split(x_t + product, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(a_i), jax.nn.sigmoid(a_f), jnp.tanh(a_g), jax.nn.sigmoid(a_o)
    c = f * c + i * g
    return (c, o * jnp.tanh(c)), (i, f, g, o)


def _lstm_backward(d_state: State, needed: State) -> tuple[tuple[Array | None, ...], Array, State]:
    dc, dh = d_state
    i, f, g, o, c, c_before = needed
    tanh_c = jnp.tanh(c)
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    da = jnp.concatenate(
        [dc * g * i * (1 - i), dc * c_before * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)],
        axis=-1,
    )
    return (dc * f, None), da, ()


_LSTM = _Cell(_lstm_forward, lambda kept, before, after: (*kept, after[0], before[0]), _lstm_backward)


# ---- the GRU ---------------------------------------------------------------------------------------------------------


def gru(
    x_TxBx3H: Array,
    carry_BxH: Array,
    kernel_Hx3H: Array,
    bias_H: Array,
    mask_TxBx1: Array | None = None,
    reverse: bool = False,
) -> tuple[Array, Array]:
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
    h, (last,) = _scan(_GRU, reverse, x_TxBx3H, (carry_BxH,), kernel_Hx3H, bias_H, mask_TxBx1)
    return h, last


def _gru_forward(state: State, x_t: Array, product: Array, bias: Array | None) -> tuple[State, State]:
    (h,) = state
    assert bias is not None
    size = h.shape[-1]
    gates = jax.nn.sigmoid(x_t[:, : 2 * size] + product[:, : 2 * size])
    r, z = gates[:, :size], gates[:, size:]
    q = product[:, 2 * size :] + bias[None]
    n = jnp.tanh(x_t[:, 2 * size :] + r * q)
    return ((1 - z) * n + z * h,), (r, z, n, q)


def _gru_backward(d_state: State, needed: State) -> tuple[tuple[Array | None, ...], Array, State]:
    (dh,) = d_state
    r, z, n, q, before = needed
    da_n = dh * (1 - z) * (1 - n * n)
    da_r = da_n * q * r * (1 - r)
    da_z = dh * (before - n) * z * (1 - z)
    return (dh * z,), jnp.concatenate([da_r, da_z, da_n * r], axis=-1), (da_n,)


def _gru_to_inputs(d_product: Array, rest: State) -> Array:
    (da_n,) = rest
    return jnp.concatenate([d_product[..., : -da_n.shape[-1]], da_n], axis=-1)


_GRU = _Cell(_gru_forward, lambda kept, before, after: (*kept, before[0]), _gru_backward, _gru_to_inputs)


# ---- the simple RNN --------------------------------------------------------------------------------------------------


def rnn(
    x_TxBxH: Array,
    carry_BxH: Array,
    kernel_HxH: Array,
    mask_TxBx1: Array | None = None,
    reverse: bool = False,
    activation: Literal["tanh", "relu"] = "tanh",
) -> tuple[Array, Array]:
    """Run the simple recurrent network (Elman 1990): h_t = tanh(x_t + h_{t-1} W), or a ReLU in place of tanh.

    Args:
        x_TxBxH: the inputs' share.
        carry_BxH: h.
        kernel_HxH: W.

    Returns:
        h [T, B, H], and the last h.
    """
    cell = _RNN_TANH if activation == "tanh" else _RNN_RELU
    h, (last,) = _scan(cell, reverse, x_TxBxH, (carry_BxH,), kernel_HxH, None, mask_TxBx1)
    return h, last


def _rnn_cell(function: Callable[[Array], Array], slope: Callable[[Array], Array]) -> _Cell:
    """Make the cell of an activation, whose slope is a function of its value."""

    def forward(state: State, x_t: Array, product: Array, bias: Array | None) -> tuple[State, State]:
        return (function(x_t + product),), ()

    def backward(d_state: State, needed: State) -> tuple[tuple[Array | None, ...], Array, State]:
        return (None,), d_state[0] * slope(needed[0]), ()

    return _Cell(forward, lambda kept, before, after: after, backward)


_RNN_TANH = _rnn_cell(jnp.tanh, lambda h: 1 - h * h)
_RNN_RELU = _rnn_cell(jax.nn.relu, lambda h: (h > 0).astype(h.dtype))


# ---- without a loop --------------------------------------------------------------------------------------------------


def min_gru(
    x_TxBx2H: Array, carry_BxH: Array, mask_TxBx1: Array | None = None, reverse: bool = False
) -> tuple[Array, Array]:
    """Run the minGRU (Feng et al. 2024, https://arxiv.org/abs/2410.01201, section 3.1), whose gates see the input alone.

    With z, n the two halves of x_t:

        h_t = (1 - sigmoid(z)) h_{t-1} + sigmoid(z) n

    A linear recurrence, so that all steps are computed at once, in O(log T) passes (Blelloch 1990).

    Args:
        x_TxBx2H: z and n.
        carry_BxH: h.
        mask_TxBx1: ones, then zeros.

    Returns:
        h [T, B, H], and the last h.
    """
    z, candidate = jnp.split(x_TxBx2H, 2, axis=-1)
    keep, add = jax.nn.sigmoid(-z), jax.nn.sigmoid(z) * candidate
    if mask_TxBx1 is not None:
        keep, add = jnp.where(mask_TxBx1 != 0, keep, 1), jnp.where(mask_TxBx1 != 0, add, 0)
    if reverse:
        keep, add = (_reverse(part, mask_TxBx1) for part in (keep, add))
    add = add.at[0].add(keep[0] * carry_BxH)
    _, h = lax.associative_scan(lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1]), (keep, add))
    last = h[-1]
    return (_reverse(h, mask_TxBx1) if reverse else h), last


def _reverse(x_TxBxH: Array, mask_TxBx1: Array | None) -> Array:
    """Reverse the steps that count and leave padding at the end.

    The order in which an associative scan adds depends on the place from the start: were padding to come first, more of it
    would change the last bit.
    """
    if mask_TxBx1 is None:
        return x_TxBxH[::-1]
    length_1xB = (mask_TxBx1 != 0).sum(0)[:, 0][None]
    place = jnp.arange(len(x_TxBxH))[:, None]
    source = jnp.where(place < length_1xB, length_1xB - 1 - place, place)
    return jnp.take_along_axis(x_TxBxH, source[..., None], axis=0)
