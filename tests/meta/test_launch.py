"""launch.sh in a copy of the tree, with a Python that writes down what it is called with instead of doing it.

No network, no device: `compgen`, which launch.sh asks for device files, answers from FAKE_DEVICES.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Code (-c) is really run, `venv` puts this stub into the environment, pip takes PIP_SECONDS and exits with PIP_CODE.
STUB = f"""#!/usr/bin/env bash
echo "$*" >>"$CALLS"
case "$1 ${{2:-}}" in
    "-c "*) exec {sys.executable} "$@" ;;
    "-m venv")
        if [[ -n ${{NO_ENSUREPIP:-}} && $* != *--without-pip* ]]; then exit 1; fi
        mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-P -m") ls -l /proc/$$/fd >"$CALLS.open" ;;
    "-m pip") echo started >>"$CALLS.pip"; sleep "${{PIP_SECONDS:-0}}"; exit "${{PIP_CODE:-0}}" ;;
esac
"""
DEVICES = """() {
    local device
    for device in ${FAKE_DEVICES:-}; do [[ $device == $2 ]] && return 0; done
    return 1
}"""
INSTALL = "-m pip install --quiet --disable-pip-version-check --editable"


@dataclasses.dataclass(frozen=True)
class Checkout:
    root: Path
    env: dict[str, str]

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "launch.sh", *args], env=self.env | env, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.root.parent,
        )  # fmt: skip

    def run(self, *args: str, code: int = 0, **env: str) -> str:
        """What it said on stderr."""
        process = self.start(*args, **env)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == code, said
        return said

    def calls(self) -> list[str]:
        """The command lines Python was called with since the last time, without those of -c."""
        path = Path(self.env["CALLS"])
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line for line in lines if line.startswith(("-m ", "-P -m "))]

    def installs(self) -> list[str]:
        return [line.removeprefix(f"{INSTALL} ") for line in self.calls() if line.startswith("-m pip install")]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root = tmp_path / "a checkout"
    root.mkdir()
    for name in ("launch.sh", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    stub = tmp_path / "bin" / "stub-python"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    foreign = ("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "FDL_JAX")
    env = {name: value for name, value in os.environ.items() if name not in foreign}
    env |= {"FDL_PYTHON": str(stub), "CALLS": str(tmp_path / "calls"), "BASH_FUNC_compgen%%": DEVICES}
    return Checkout(root, env | {"PATH": f"{stub.parent}{os.pathsep}{env['PATH']}"})


def test_the_first_start_sets_up_and_the_second_does_not(checkout: Checkout) -> None:
    assert "setting up (cpu)" in checkout.run()
    assert checkout.calls() == ["-m venv .venv", f"{INSTALL} .", "-P -m fdl.main --experiment=fashion_cnn"]
    assert checkout.run("--list") == ""
    assert checkout.calls() == ["-P -m fdl.main --list"]


@pytest.mark.parametrize(
    ("devices", "driver", "installed"),
    [
        ("", "", "."),
        ("/dev/accel0 /dev/accel1", "", ".[tpu]"),
        ("/dev/vfio/0 /dev/vfio/vfio", "", ".[tpu]"),
        ("/dev/vfio/vfio", "", "."),  # every machine with the module has that one
        ("/dev/nvidia0 /dev/nvidiactl", "580.65.06", ".[cuda]"),
        ("/dev/nvidia0", "", ".[cuda]"),  # no nvidia-smi to ask
        ("/dev/nvidia0", "550.54.15", ". jax[cuda12]"),
        ("/dev/nvidiactl", "580.65.06", "."),
    ],
)
def test_the_build_of_jax_is_that_of_the_device(checkout: Checkout, devices: str, driver: str, installed: str) -> None:
    smi = Path(checkout.env["FDL_PYTHON"]).with_name("nvidia-smi")
    smi.write_text(f"#!/bin/sh\n{f'echo {driver}; echo {driver}' if driver else 'exit 9'}\n")
    smi.chmod(0o755)
    checkout.run(FAKE_DEVICES=devices)
    assert checkout.installs() == [installed]


def test_fdl_jax_overrides_the_device(checkout: Checkout) -> None:
    checkout.run(FAKE_DEVICES="/dev/accel0", FDL_JAX="cpu")
    assert checkout.installs() == ["."]
    assert "FDL_JAX=gpu is none of" in checkout.run(code=2, FDL_JAX="gpu")
    assert checkout.calls() == []


def test_another_device_needs_another_build_but_the_cpu_none(checkout: Checkout) -> None:
    """A login node without a GPU and compute nodes with one share a disk: they must not take turns installing."""
    for devices, installed in [("", ["."]), ("/dev/nvidia0", [".[cuda]"]), ("", []), ("/dev/nvidia0", [])]:
        checkout.run(FAKE_DEVICES=devices)
        assert checkout.installs() == installed


def test_tools_come_with_the_first_test_or_check_and_stay(checkout: Checkout) -> None:
    """A first run installs what it needs; nothing is taken away again, on no kind of device."""
    steps: list[tuple[list[str], str, list[str]]] = [
        ([], "", ["."]),
        (["check"], "", [".[dev]"]),
        (["test"], "", []),
        (["--mode=sweep"], "", []),  # the tools include what it needs
        ([], "/dev/nvidia0", [".[dev,cuda]"]),
        (["test"], "", []),
        ([], "", []),
    ]
    for args, devices, installed in steps:
        checkout.run(*args, FAKE_DEVICES=devices)
        assert checkout.installs() == installed, (args, devices)


def test_extras_are_added_for_the_device_that_is_set_up(checkout: Checkout) -> None:
    checkout.run(FAKE_DEVICES="/dev/nvidia0")
    assert checkout.installs() == [".[cuda]"]
    checkout.run("--mode=sweep")  # on the login node
    assert checkout.installs() == [".[tune,cuda]"]
    checkout.run(FDL_EXTRAS="text,audio")
    assert checkout.installs() == [".[text,audio,tune,cuda]"]
    checkout.run(FAKE_DEVICES="/dev/nvidia0", FDL_EXTRAS="audio")
    assert checkout.installs() == []


def test_starts_at_the_same_time_install_once(checkout: Checkout) -> None:
    """As `srun ./launch.sh` does it, on one disk."""
    starts = [checkout.start("--list", PIP_SECONDS="1") for _ in range(4)]
    said = "".join(process.communicate(timeout=60)[1] for process in starts)
    assert [process.returncode for process in starts] == [0] * 4, said
    calls = checkout.calls()
    assert calls.count("-m venv .venv") == calls.count(f"{INSTALL} .") == 1
    assert calls.count("-P -m fdl.main --list") == 4
    assert said.count("setting up (cpu)") == 1


def test_training_does_not_hold_the_lock(checkout: Checkout) -> None:
    checkout.run()
    held = Path(f"{checkout.env['CALLS']}.open").read_text()
    assert "bin/python" in held  # the stub, which its shell reads
    assert ".lock" not in held


@pytest.mark.parametrize(
    "stamp", ["", "\n", "cpu", "cpu 1 2 /elsewhere\n", "cpu base 1 2 /elsewhere\n", "cpu 1 2 {root}\n", "\0\1\n"]
)
def test_a_broken_stamp_is_mended(checkout: Checkout, stamp: str) -> None:
    checkout.run()
    checkout.calls()
    state = checkout.root / ".venv" / ".fdl-setup"
    good = state.read_text()
    state.write_text(stamp.replace("{root}", str(checkout.root)))
    checkout.run()
    assert checkout.installs() == ["."]
    assert state.read_text() == good


def test_a_changed_pyproject_is_installed_again(checkout: Checkout) -> None:
    checkout.run()
    checkout.calls()
    (checkout.root / "pyproject.toml").write_text("[project]\n")
    checkout.run()
    assert checkout.calls()[:-1] == [f"{INSTALL} ."]


def killed_in_pip(checkout: Checkout, **env: str) -> None:
    process = checkout.start(PIP_SECONDS="60", **env)
    began = Path(f"{checkout.env['CALLS']}.pip")
    deadline = time.monotonic() + 30
    while not began.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert checkout.installs(), "pip was not reached"


def test_a_set_up_that_was_killed_is_begun_anew(checkout: Checkout) -> None:
    killed_in_pip(checkout)
    (checkout.root / ".venv" / "half").write_text("of a package")
    checkout.run()
    assert checkout.calls()[:-1] == ["-m venv .venv", f"{INSTALL} ."]
    assert not (checkout.root / ".venv" / "half").exists()


def test_a_set_up_that_failed_is_tried_again(checkout: Checkout) -> None:
    checkout.run(code=3, PIP_CODE="3")
    assert checkout.calls() == ["-m venv .venv", f"{INSTALL} ."]  # and no training
    checkout.run()
    assert checkout.installs() == ["."]


def in_an_environment(checkout: Checkout, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "own" / "bin").mkdir(parents=True)
    shutil.copy(checkout.env["FDL_PYTHON"], tmp_path / "own" / "bin" / "python")
    return {"VIRTUAL_ENV": str(tmp_path / "own")}


def test_an_activated_environment_is_used(checkout: Checkout, tmp_path: Path) -> None:
    own = in_an_environment(checkout, tmp_path)
    checkout.run(**own)
    assert checkout.calls() == [f"{INSTALL} .", "-P -m fdl.main --experiment=fashion_cnn"]
    assert not (checkout.root / ".venv").exists()


def test_a_killed_set_up_of_an_activated_environment_is_mended_in_place(checkout: Checkout, tmp_path: Path) -> None:
    own = in_an_environment(checkout, tmp_path)
    kept = tmp_path / "own" / "the user's"
    kept.write_text("")
    killed_in_pip(checkout, **own)
    checkout.run(**own)
    assert "--force-reinstall" in checkout.calls()[0]
    assert kept.exists()


def test_an_activated_conda_environment_is_used_but_not_its_base(checkout: Checkout, tmp_path: Path) -> None:
    """Base is active in every shell of most installations, without anybody's having chosen it."""
    own = in_an_environment(checkout, tmp_path)["VIRTUAL_ENV"]
    checkout.run(CONDA_PREFIX=own, CONDA_DEFAULT_ENV="base")
    assert checkout.calls()[0] == "-m venv .venv"
    assert not (tmp_path / "own" / ".fdl-setup").exists()
    checkout.run(CONDA_PREFIX=own, CONDA_DEFAULT_ENV="mine")
    assert (tmp_path / "own" / ".fdl-setup").exists()


def test_paths_are_relative_to_where_it_is_called(checkout: Checkout, tmp_path: Path) -> None:
    """And what lies there (a user's types.py or json.py) takes no library's place."""
    own = tmp_path / "own"
    (own / "bin").mkdir(parents=True)
    (own / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (own / "bin" / "python").chmod(0o755)
    shutil.copytree(ROOT / "fdl", checkout.root / "fdl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "experiments", checkout.root / "experiments")
    cksum = subprocess.run(
        f"cksum <'{checkout.root}/pyproject.toml'", shell=True, capture_output=True, text=True, check=True
    )
    (own / ".fdl-setup").write_text(f"cpu base {cksum.stdout.strip()} {checkout.root}\n")
    for name in ("types", "json", "random"):
        (checkout.root.parent / f"{name}.py").write_text("raise SystemExit('the wrong one')\n")
    (checkout.root.parent / "mine.py").write_text("import beside\nfrom experiments.digits_cnn import experiment\n")
    (checkout.root.parent / "beside.py").write_text("")
    env = {"VIRTUAL_ENV": str(own), "FDL_JAX": "cpu", "PYTHONPATH": "", "XLA_FLAGS": "", "FDL_PYTHON": ""}
    checkout.run("--experiment=mine.py", "--set=steps=2", "--set=data.feed=numpy", "--noreport", **env)
    (made,) = (checkout.root.parent / "runs").iterdir()
    assert made.name.startswith("mine-")
    assert not (checkout.root / "runs").exists()


def test_python_without_ensurepip(checkout: Checkout) -> None:
    """Colab's and Debian's: the environment gets its pip from the one outside."""
    checkout.run(NO_ENSUREPIP="1", COLAB_RELEASE_TAG="release-colab")
    python = checkout.root / ".venv" / "bin" / "python"
    assert checkout.calls()[1:] == [
        "-m venv --without-pip .venv", f"-m pip --python {python} install --quiet --disable-pip-version-check pip",
        f"{INSTALL} .", "-P -m fdl.main --experiment=fashion_cnn",
    ]  # fmt: skip


def test_no_python_is_one_line(checkout: Checkout) -> None:
    tools = Path(checkout.env["CALLS"]).with_name("tools")
    tools.mkdir()
    for name in ("bash", "dirname", "cksum", "mkdir", "flock", "rm"):
        (tools / name).symlink_to(shutil.which(name) or pytest.skip(f"no {name} here"))
    said = checkout.run(code=2, PATH=str(tools), FDL_PYTHON="no-such-python")
    assert "no Python 3.11 or later" in said
    assert "line" not in said


def test_arguments_reach_main_whole(checkout: Checkout, tmp_path: Path) -> None:
    checkout.run("--list")
    (checkout.root / ".venv" / "bin" / "python").write_text("#!/bin/sh\nprintf '<%s>' \"$@\" >&2\n")
    assert checkout.run("--input=my photo.png", "--set", "model.dense=(1, 2)").endswith(
        "<-P><-m><fdl.main><--input=my photo.png><--set><model.dense=(1, 2)>"
    )


@pytest.mark.parametrize(
    ("args", "passed"),
    [
        ([], "-n 2 --dist loadfile --no-loadscope-reorder"),
        (["--slow"], "-m slow or not slow -n 2 --dist loadfile --no-loadscope-reorder"),
        (["tests/test_x.py", "-x"], "tests/test_x.py -x"),
        (["tests/test_x.py", "--slow"], "tests/test_x.py -m slow or not slow"),
    ],
)
def test_test_passes_its_arguments_to_pytest(checkout: Checkout, args: list[str], passed: str) -> None:
    checkout.run("test", *args)
    assert checkout.calls()[-1] == f"-m pytest {passed}"


@pytest.mark.parametrize("code", [0, 1, 2, 143])
def test_the_exit_code_is_that_of_the_run(checkout: Checkout, code: int) -> None:
    checkout.run()
    (checkout.root / ".venv" / "bin" / "python").write_text(f"#!/bin/sh\nexit {code}\n")
    checkout.run(code=code)
