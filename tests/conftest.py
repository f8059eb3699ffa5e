"""What the tests share: strict JAX settings, the real data where it is, and a way to call the command line."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Before JAX starts: eight virtual CPU devices, so that layouts can be compared on any machine.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("NPROC", "16")
# The suite's time is mostly compiling. Nothing here is timed, and what counts the compiler's own work
# (test_programs, test_golden) switches this off.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import forked  # noqa: E402
import jax  # noqa: E402

import fdl  # noqa: E402, F401  (sets its own defaults before JAX is imported)

jax.config.update("jax_numpy_rank_promotion", "raise")


def real_data() -> Path | None:
    """The folder of real data sets: FDL_DATA_DIR, else ../shared/data."""
    for path in (os.environ.get("FDL_DATA_DIR"), ROOT.parent / "shared" / "data"):
        if path and Path(path).is_dir():
            return Path(path)
    return None


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """`real_data`; skips by name where there is none."""
    return real_data() or pytest.skip("no real data: set FDL_DATA_DIR")


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the user's cache; compiled programs are shared by all subprocesses of one session."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.getbasetemp().parent / "fdl-cache")
    # Many tests build the same small program. A cache of this process's own: nobody else writes what it reads.
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.getbasetemp() / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session")
def server() -> Iterator[forked.Server]:
    """Starts command lines by a fork of a process that has imported everything; one for each process of the tests."""
    with forked.server() as running:
        yield running


@pytest.fixture(scope="session")
def run_fdl(server: forked.Server) -> forked.Command:
    """`run_fdl(folder, "--experiment=digits_cnn", ...)` runs the command line in `folder`; it must end with `code=0`."""
    return lambda folder, *args, code=0, **how: server.run(args, folder, code=code, **how)


@pytest.fixture
def fdl_main(server: forked.Server, tmp_path: Path) -> forked.Command:
    """`fdl_main("--experiment=digits_cnn", ...)` runs the command line in a folder of its own; it may end with any code."""
    return lambda *args, **how: server.run(args, tmp_path, **how)


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caches of fdl and of TensorFlow Datasets lie in a folder of the test's own."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tensorflow_datasets"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A folder of two classes with five pictures each, all different."""
    from small import picture

    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(5):
            (tmp_path / "pets" / name / f"{number}.png").write_bytes(picture(100 * label + number))
    return tmp_path / "pets"


# ---- with FDL_STRICT_TESTS=1 a skip that nothing on this machine explains fails the session --------------------------------


def expected_skips() -> list[str]:
    """Patterns of the reasons for which a test may be skipped here: each names what is missing, and it really is."""
    absent = {name for name in ("torch", "keras", "libtpu") if importlib.util.find_spec(name) is None}
    data = real_data()
    may_be_skipped = {
        r"could not import 'torch'": "torch" in absent,
        r"not installed: (torch|keras)": bool(absent & {"torch", "keras"}),
        r"no TPU compiler": "libtpu" in absent,
        r"no real data": data is None,
        r"no mnist under the data directory": data is not None and not (data / "mnist").is_dir(),
        r"a file system cannot be mounted here": not may_mount(),
    }
    return [reason for reason, may in may_be_skipped.items() if may]


def may_mount() -> bool:
    """Whether this process has CAP_SYS_ADMIN, bit 21 of its effective capabilities."""
    status = Path("/proc/self/status")
    found = re.search(r"^CapEff:\s*(\w+)$", status.read_text(), re.MULTILINE) if status.exists() else None
    return bool(found and int(found[1], 16) >> 21 & 1)


def skips(config: pytest.Config) -> dict[str, list[str]]:
    """The reason of every skip of the session -> the files or tests that gave it; those of all workers, in the controller."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    found: dict[str, list[str]] = {}
    for report in reporter.stats.get("skipped", []) if reporter else []:
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        found.setdefault(reason, []).append(report.nodeid)
    return found


def unexpected_skips(config: pytest.Config) -> dict[str, list[str]]:
    """Those that fail the session; none unless FDL_STRICT_TESTS is 1."""
    if os.environ.get("FDL_STRICT_TESTS") != "1":
        return {}
    expected = expected_skips()
    return {reason: of for reason, of in skips(config).items() if not any(re.search(e, reason) for e in expected)}


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and unexpected_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    unexpected = unexpected_skips(config)
    if unexpected:
        terminalreporter.section("skips that nothing on this machine explains", red=True)
    for reason, of in unexpected.items():
        terminalreporter.line(f"{reason}: {', '.join(sorted(set(of)))}")


@pytest.fixture(scope="module")
def optimised() -> Iterator[None]:
    """Compile as a user's process does, where the compiler's own work is looked at."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
