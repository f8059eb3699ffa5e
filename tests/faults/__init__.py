"""Faults for runs of fdl, from outside: nothing of this is known to the product.

starts.py    starts runs by the fork server; what a finished run is compared by
points.py    in a child, before the run: at the n-th call of a named function die, hang, be signalled, or find the disk full
small_*.py   the real experiments, shrunk: the same code with less to do
"""
