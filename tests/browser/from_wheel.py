"""Runs the browser suite against the installed wheel, without any network.

Builds the wheel of this checkout, unpacks it with pip into an empty folder, copies the tests out
of the checkout, and runs them in a network namespace that has a loopback interface and nothing
else. Where namespaces are forbidden it says so; the tests themselves still fail on any request to
another host.

    python tests/browser/from_wheel.py            # arguments go to pytest
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
LEFT_OUT = (
    ".*", "build", "dist", "*.egg-info", "__pycache__", "node_modules", "tests", "docs",
    "simulation-results",
)  # fmt: skip
SUITE = ("browser", "unit/review_portal", "conftest.py")
PACKAGES = ("review_portal", "model_bundle", "perimeter")
SETTINGS = """[pytest]
addopts = --strict-markers --import-mode=importlib -ra
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
timeout = 300
markers =
    browser: drives a real browser
"""
CHECK = (
    "import importlib, pathlib, sys\n"
    "for name in sys.argv[2:]:\n"
    "    found = pathlib.Path(list(importlib.import_module(name).__path__)[0]).resolve()\n"
    "    assert found.is_relative_to(pathlib.Path(sys.argv[1]).resolve()), (name, found)\n"
)


def install(folder: Path) -> Path:
    """Builds the wheel and installs it, without what it depends on. Returns where it lies."""
    source, wheels, target = folder / "source", folder / "wheels", folder / "installed"
    # A copy: a build inside the checkout would leave folders behind that later builds take in.
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*LEFT_OUT))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--wheel-dir", str(wheels), str(source)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True)
    return target


def copy_tests(folder: Path) -> Path:
    """Copies the suite to where no checkout is near. Returns its folder."""
    tests = folder / "tests"
    for name in SUITE:
        place = ROOT / "tests" / name
        if place.is_dir():
            shutil.copytree(place, tests / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif place.exists():
            shutil.copy2(place, tests / name)
    (tests / "pytest.ini").write_text(SETTINGS)
    return tests


def cut_network() -> None:
    """Leaves this process loopback only; prints why where that is forbidden."""
    library = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if library.unshare(CLONE_NEWNET) != 0:
        if library.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
            reason = os.strerror(ctypes.get_errno())
            print(f"no network namespace here ({reason}); the network stays", flush=True)
            return
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
    with socket.socket() as outside:
        outside.settimeout(1)
        assert outside.connect_ex(("192.0.2.1", 443)) != 0, "the network is still there"
    print("the network is cut: loopback only", flush=True)


def main() -> int:
    axe = ROOT / "tests" / "browser" / "node_modules" / "axe-core"
    if not axe.exists() and shutil.which("npm"):
        command = ["npm", "install", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=axe.parents[1], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target, tests = install(folder), copy_tests(folder)
        environment = {**os.environ, "PYTHONPATH": str(target)}
        cut_network()
        check = [sys.executable, "-c", CHECK, str(target), *PACKAGES]
        subprocess.run(check, cwd=tests, env=environment, check=True)
        suite = [sys.executable, "-m", "pytest", "-q", "browser", *sys.argv[1:]]
        return subprocess.run(suite, cwd=tests, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
