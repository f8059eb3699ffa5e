"""The foundations of deep learning by hand: every forward pass and every gradient in NumPy alone.

Read in this order; each file needs only those above it.

    trees           parameters as nested dicts, and a function mapped over them
    initialisers    zeros, random, Xavier, He
    activations     linear, ReLU, leaky ReLU, sigmoid, tanh, GELU, softmax
    layers          dense, embedding, dropout
    convolution     padding, convolution by patches, and by loops to compare; transposed convolution
    pooling         maximum, average, global average
    normalisation   batch and layer normalisation, rows of unit length
    recurrent       RNN, GRU and LSTM cells, backpropagation through time, both directions
    attention       additive and dot-product attention, several heads
    residual        bottleneck blocks and ResNet-50
    losses          binary and softmax cross entropy, on logits and on probabilities; squared, absolute, hinge, Huber; L2
    optimizers      gradient descent, momentum, Nesterov, RMSProp, Adam, AdamW; learning-rate decay, clipping, batches
    gradient_check  finite differences against the gradients above
    network         layers composed into networks, and trained

One form runs through all of them. A layer is two pure functions,

    y, cache  = layer(x, params)              the forward pass; the cache is what the way back needs
    dx, grads = layer_backward(dy, cache)     the chain rule, one layer of it

where dz means dL/dz, the gradient of the scalar loss L, and always has z's shape. `grads` has the
names and shapes of `params`. Layouts and names are Flax Linen's (images NHWC, kernels HWIO, dense kernels
[in, out]), so weights go across unchanged, and the results keep the dtype of what they are given.
"""
