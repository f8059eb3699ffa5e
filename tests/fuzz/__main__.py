"""One campaign in a process that may take 2 GiB more than its imports did; prints a line of JSON."""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
import warnings
from pathlib import Path

from absl import logging

from fuzz import TARGETS, campaign

MORE_BYTES = 2 << 30


def main() -> None:
    flags = argparse.ArgumentParser()
    flags.add_argument("target", choices=TARGETS)
    flags.add_argument("count", type=int)
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--only", type=int, help="this case alone")
    given = flags.parse_args()
    warnings.simplefilter("error")
    logging.set_verbosity(logging.ERROR)
    target = TARGETS[given.target]()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MORE_BYTES, resource.RLIM_INFINITY))
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as root:
        first, count = (0, given.count) if given.only is None else (given.only, 1)
        seen = campaign.run(target, count, given.seed, Path(root), first)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps(seen | {"seconds": round(time.monotonic() - began, 1), "grown_mib": grown // 1024}))


main()
