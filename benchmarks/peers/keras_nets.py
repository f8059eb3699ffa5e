"""The nets in Keras 3, trained by model.fit on NumPy arrays; the scripts keras_* are its backends."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.peers import common
from benchmarks.workloads import blocks


def build(spec: common.Spec) -> keras.Model:
    net, width, classes = spec["net"], spec["width"], spec["classes"]
    if net in ("lstm", "gru", "rnn"):
        x = tokens = keras.Input((spec["shape"][0] - 1,), dtype="uint8")
        x = keras.ops.one_hot(x, classes)
        kind = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.SimpleRNN}[net]
        return keras.Model(tokens, layers.Dense(classes)(kind(width, return_sequences=True)(x)))
    images = keras.Input(spec["shape"], dtype="uint8")
    x = layers.Rescaling(1 / 255)(images)
    if net == "mlp":
        x = layers.Dense(width, activation="relu")(layers.Flatten()(x))
    elif net == "cnn":
        for _ in range(2):
            x = layers.MaxPooling2D(2)(layers.Conv2D(64, 3, activation="relu")(x))
        x = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    else:
        x = layers.ReLU()(conv(x, width, *((3, 1) if net == "resnet18" else (7, 2))))
        x = layers.MaxPooling2D(3, 2, padding="same")(x) if net == "resnet50" else x
        for convs, shortcut in blocks(net, width):
            residual, strides = x, 1
            for number, (channels, kernel, stride) in enumerate(convs, 1):
                x, strides = conv(x, channels, kernel, stride), strides * stride
                x = layers.ReLU()(x) if number < len(convs) else x
            residual = conv(residual, convs[-1][0], 1, strides) if shortcut else residual
            x = layers.ReLU()(layers.Add()([x, residual]))
        x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(classes)(x))


def conv(x: Any, channels: int, kernel: int, stride: int) -> Any:
    x = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(momentum=0.9)(x)


def parameters(model: keras.Model) -> int:
    """Trained numbers; of a GRU's two biases the second counts only where it is multiplied before it is added."""
    total = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    return total - sum(2 * layer.units for layer in model.layers if isinstance(layer, layers.GRU))


class _Stop(keras.callbacks.Callback):
    def __init__(self, clock: common.Clock) -> None:
        super().__init__()
        self.clock = clock

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.clock.tick(lambda: float(logs["loss"])):
            self.model.stop_training = True


def train(backend: str) -> None:
    """Every spec of the command line.

    Raises:
        SystemExit: KERAS_BACKEND is another.
    """
    if keras.backend.backend() != backend:
        raise SystemExit(f"KERAS_BACKEND={keras.backend.backend()}: set it to {backend}")
    for spec in common.specs():
        inputs, targets = common.rows(spec)
        if targets is None:
            inputs, targets = inputs[:, :-1], inputs[:, 1:].astype(np.int32)
        whole = len(inputs) // spec["batch"] * spec["batch"]  # no partial batches, as in the other scripts
        model = build(spec)
        model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        clock = common.Clock(spec)
        # Its loss is the mean over the epoch so far.
        model.fit(inputs[:whole], targets[:whole], spec["batch"], 10**6, verbose=0, callbacks=[_Stop(clock)])
        common.report(clock, parameters(model), "keras", backend)
