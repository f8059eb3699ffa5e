"""PyTorch with channels last in memory; its environment has glibc keep freed memory."""

from benchmarks.peers import torch_nets

if __name__ == "__main__":
    torch_nets.train(channels_last=True)
