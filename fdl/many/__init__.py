"""More than one run: seeds, studies, sweeps; each run an ordinary one, in a directory of its own."""
