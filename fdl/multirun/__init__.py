"""More than one run: seeds, studies, sweeps."""
