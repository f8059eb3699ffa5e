"""Process-wide settings that must hold before JAX or TensorFlow start. A value that the user has set is never touched."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import gc
import hashlib
import os
import platform
import shutil
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_IMPORTED = time.monotonic()

YNN_FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def set_defaults() -> None:
    """Set environment variables that JAX reads when it first meets a device, and TensorFlow when it is imported.

    - jaxlib 0.10.2's default YNNPACK fusion gives wrong results for some vmapped products over 32,769 rows or more on
      the CPU (jax-ml/jax#39103; tests/meta/test_environment.py holds such a case) and slows convolutions (docs/speed.md).
      `individual_dot` fixes both. XLA aborts on a flag it does not know, so it is set for that release alone.
    - XLA's collectives on virtual CPU devices need a thread a device, or they dead-lock on a machine with few cores.
    - NumPy's OpenBLAS keeps its threads spinning between products, which the rest of a step pays for where a core has
      anything else to do (docs/speed.md); with one, the bits do not depend on the number of cores either. It takes effect
      only where NumPy has not been imported before.
    - TensorFlow carries the input here; its start-up notices are noise.
    - libtpu, installed for --mode=plan on a machine without a TPU, would look for one, complain, and lock every other
      process out.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if YNN_FLAG not in flags and _jaxlib_version().startswith("0.10."):
        os.environ["XLA_FLAGS"] = f"{flags} {YNN_FLAG}=individual_dot".strip()
    if "xla_force_host_platform_device_count" in flags or os.environ.get("JAX_NUM_CPU_DEVICES"):
        os.environ.setdefault("NPROC", "16")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # else a notice about them is printed at every start
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if not has_tpu():
        for name, value in _NO_TPU.items():
            os.environ.setdefault(name, value)


def has_tpu() -> bool:
    """Return whether this machine has TPU chips, by their device files (v2 to v5e; v5p, v6e and newer v5e)."""
    return any(Path("/dev").glob("accel*")) or any(Path("/dev/vfio").glob("[0-9]*"))


_NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-8", "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_LOG_DIR": "disabled",
}  # fmt: skip


def _jaxlib_version() -> str:
    from importlib import metadata

    try:
        return metadata.version("jaxlib")
    except metadata.PackageNotFoundError:
        return ""


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks instead of handing them back to the system after every step.

    The same as MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_ and MALLOC_ARENA_MAX, without a restart of the process; to be
    called before there are threads. Blocks of over 64 MiB fit no arena but the main one, and a step's temporaries are
    one block, hence the last setting (docs/speed.md has the figures).
    Other C libraries (macOS, musl) are left as they are.
    """
    if platform.libc_ver()[0] != "glibc" or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8  # malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(m_mmap_threshold, 1 << 30)
    libc.mallopt(m_trim_threshold, (1 << 31) - 1)
    libc.mallopt(m_arena_max, 1)


def return_freed_memory() -> None:
    """Give memory that is free, such as what a compiler has used, back to the system; where glibc allocates."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Keep Python's cycle collector off during a block of imports, and its hands off what they made from then on.

    Importing JAX makes most of a million objects that live to the end. Going over them again and again, here and while
    the step is traced, takes a tenth of the time to the first step (docs/speed.md).
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def seconds_since_start() -> float:
    """Return seconds since the kernel started this process (since this file was imported, where /proc is missing)."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _IMPORTED


def cache_dir() -> Path:
    """Return where fdl keeps what can be made again: $XDG_CACHE_HOME/fdl or ~/.cache/fdl; without a home, in $TMPDIR."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fdl"
    except RuntimeError:  # no HOME, and a user whom the system does not know, as in many containers
        return _homeless_cache()


@functools.cache
def _homeless_cache() -> Path:
    """Return a folder in $TMPDIR that is this user's alone: what is read from it is trusted."""
    folder = Path(tempfile.gettempdir()) / f"fdl-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="fdl-"))


MAX_CACHE_BYTES = 2 << 30
"""Of compiled programs that are kept for one jaxlib and processor: some 10,000 small ones."""
MAX_IDLE_DAYS = 60.0
"""A folder of another jaxlib or processor that nobody has used for so long is deleted."""


def enable_compile_cache() -> None:
    """Keep compiled programs between runs, in a private folder keyed by jaxlib and processor.

    Compiled code is trusted code and fits one processor only: hence 0700 and the key. What is old is deleted first; JAX's own
    limit (jax_compilation_cache_max_size) needs a package that fdl does not, and locks the folder at every look.
    """
    import jax

    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return  # the user's own
    try:
        cpu = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        cpu = "\n".join(
            line for line in cpu.splitlines() if line.startswith(("model", "vendor_id", "flags", "cpu family"))
        )
    except OSError:
        cpu = platform.processor() + platform.machine()
    folder = cache_dir() / f"jax-{_jaxlib_version()}-{hashlib.sha256(cpu.encode()).hexdigest()[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.utime(folder)  # in use: see `drop_old_programs`
    except OSError:
        return  # a read-only home costs a compile, not the run
    drop_old_programs(folder)
    _warn_once_of_a_full_cache(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def drop_old_programs(folder: Path, max_bytes: int = MAX_CACHE_BYTES, idle_days: float = MAX_IDLE_DAYS) -> None:
    """Delete folders beside `folder` that were idle for so long, and what was used longest ago in it beyond `max_bytes`.

    Other processes may read or delete at the same time: a program that has gone is compiled anew.
    """
    for other in folder.parent.glob("jax-*"):
        with contextlib.suppress(OSError):
            if other != folder and time.time() - other.stat().st_mtime > idle_days * 86400:
                shutil.rmtree(other, ignore_errors=True)
    known = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                found = entry.stat()
                known.append((max(found.st_atime, found.st_mtime), found.st_size, entry.path))
    kept = 0
    for _, size, path in sorted(known, reverse=True):
        kept += size
        if kept > max_bytes:
            with contextlib.suppress(OSError):
                os.unlink(path)


@functools.cache
def _warn_once_of_a_full_cache(folder: Path) -> None:
    """Warn once of programs that could not be kept: JAX warns of each, and the first of these warnings says it all."""
    show = warnings.showwarning
    seen: list[str] = []

    def show_once(message: Warning | str, *place: Any, **more: Any) -> None:
        text = str(message)
        if "persistent compilation cache" not in text:
            show(message, *place, **more)
        elif not seen:
            seen.append(text)
            reason = os.strerror(errno.ENOSPC) if "Errno 28" in text else " ".join(text.split())[:200]
            said = f"{folder} cannot keep compiled programs ({reason}): each start compiles anew"
            print(f"fdl: warning: {said}", file=sys.stderr)

    warnings.showwarning = show_once
