"""PyTorch under torch.compile."""

from benchmarks.peers import torch_nets

if __name__ == "__main__":
    torch_nets.train(compiled=True)
