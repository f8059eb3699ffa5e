"""PyTorch as it comes."""

from benchmarks.peers import torch_nets

if __name__ == "__main__":
    torch_nets.train()
