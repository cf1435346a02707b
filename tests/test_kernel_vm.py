"""The kernel in a virtual machine: what is told when it can't be had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parent / "kernel_vm.py"


def said(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(TOOL), *words], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def test_a_kernel_that_was_not_booted() -> None:
    code, text = said("run", "never-booted", "true")
    assert code == 1
    assert text == "never-booted: no such kernel is running: boot it\n"


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    code, text = said("boot", "never-booted", str(tmp_path / "vmlinuz"))
    assert code == 1
    assert "no kernel image" in text or "needs qemu-system-x86_64" in text
    assert "Traceback" not in text
