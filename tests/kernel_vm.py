"""A Linux of one's own to ask: boot a kernel image under QEMU and run commands in it, as root.

    python tests/kernel_vm.py boot 7.3 VMLINUZ      boot the image under the name 7.3
    python tests/kernel_vm.py run 7.3 'COMMAND'     run a shell command there: output and exit code
    python tests/kernel_vm.py stop 7.3

The guest sees this machine's files, read-only and at the same paths, so a checkout and its virtual
environment are there as they are; it writes to /mnt, which is the folder that `boot` prints. It
has no network. A kernel that warns or dies there harms nobody: boot it again. `run` says on
stderr when the kernel is tainted.

Needs QEMU (x86-64), virtiofsd, root, and an image with CONFIG_VIRTIO_FS=y, as Debian's cloud
kernels have: packages qemu-system-x86, and `vmlinuz` out of linux-binary-*-cloud-amd64 (before 7.0:
linux-image-*-cloud-amd64).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

HOME = Path(tempfile.gettempdir()) / "bpfvm-kernels"
VIRTIOFSD = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd")
MEMORY = "3G"
BOOT_SECONDS = 120
_POLL_SECONDS = 0.1

#: Process 1 of the guest: runs each `*.job` of /mnt, leaving its output beside it.
INIT = """\
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs run /run
mount -t virtiofs queue /mnt
ip link set lo up
cd /mnt
uname -r >ready
while :; do
    cat /proc/sys/kernel/tainted >tainted
    for job in *.job; do
        [ -e "$job" ] || continue
        name=${job%.job}
        mv "$job" "$name.sh"
        (sh "./$name.sh" >"$name.out" 2>"$name.err" </dev/null
         echo $? >"$name.code"; mv "$name.code" "$name.done") &
    done
    sleep 0.2
done
"""


class VmError(Exception):
    """What the user is told."""


def boot(name: str, image: Path) -> Path:
    """Boot *image* as *name* and return the folder that is its /mnt.

    Raises:
        VmError: a program is missing, or the kernel isn't up in time.
    """
    qemu = shutil.which("qemu-system-x86_64")
    virtiofsd = next((path for path in VIRTIOFSD if Path(path).exists()), None)
    if qemu is None or virtiofsd is None:
        raise VmError("needs qemu-system-x86_64 and virtiofsd (Debian: qemu-system-x86)")
    if not image.is_file():
        raise VmError(f"{image}: no kernel image")
    stop(name)
    place = HOME / name
    queue = place / "mnt"
    queue.mkdir(parents=True)
    init = place / "init"
    init.write_text(INIT)
    init.chmod(0o755)
    shares = {"rootfs": ("/", "auto"), "queue": (str(queue), "none")}
    devices = []
    for tag, (source, cache) in shares.items():
        socket = place / f"{tag}.sock"
        options = ["-o", f"source={source}", "-o", f"cache={cache}", "-o", "sandbox=chroot"]
        _spawn([virtiofsd, f"--socket-path={socket}", *options], place / f"{tag}.log")
        devices += ["-chardev", f"socket,id={tag},path={socket}"]
        devices += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
    _wait(lambda: all((place / f"{tag}.sock").exists() for tag in shares), "virtiofsd", place)
    command_line = f"console=ttyS0 rootfstype=virtiofs root=rootfs ro init={init} panic=-1"
    machine = ["-nodefaults", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", MEMORY]
    memory = f"memory-backend-memfd,id=mem,size={MEMORY},share=on"
    console = ["-serial", f"file:{place / 'console'}", "-display", "none", "-no-reboot"]
    kernel = ["-kernel", str(image), "-append", command_line]
    parts = [*machine, "-object", memory, "-numa", "node,memdev=mem", *devices, *kernel, *console]
    _spawn([qemu, *parts, "-pidfile", str(place / "pid")], place / "qemu.log")
    _wait((queue / "ready").exists, "the kernel", place)
    return queue


def run(name: str, command: str) -> int:
    """Run a shell command in the guest, pass its output on and return its exit code.

    Raises:
        VmError: no such guest, or it is gone.
    """
    queue = HOME / name / "mnt"
    job = queue / uuid.uuid4().hex
    if not (queue / "ready").exists():
        raise VmError(f"{name}: no such kernel is running: boot it")
    job.with_suffix(".new").write_text(command + "\n")
    job.with_suffix(".new").rename(job.with_suffix(".job"))
    done = job.with_suffix(".done")
    while not done.exists():
        if not _alive(name):
            raise VmError(f"{name}: the kernel is gone: see {HOME / name / 'console'}")
        time.sleep(_POLL_SECONDS)
    sys.stdout.write(job.with_suffix(".out").read_text(errors="replace"))
    sys.stderr.write(job.with_suffix(".err").read_text(errors="replace"))
    code = int(done.read_text())
    for path in queue.glob(f"{job.name}.*"):
        path.unlink()
    tainted = (queue / "tainted").read_text().strip()
    if tainted not in {"", "0"}:
        print(f"{name}: this kernel is tainted ({tainted}): boot it again", file=sys.stderr)
    return code


def stop(name: str) -> None:
    """End the guest *name*, if there is one, and forget its files."""
    place = HOME / name
    if _alive(name):
        os.kill(int((place / "pid").read_text()), 15)
        _wait(lambda: not _alive(name), "the end of QEMU", place)
    shutil.rmtree(place, ignore_errors=True)


def _alive(name: str) -> bool:
    try:
        pid = int((HOME / name / "pid").read_text())
        return b"qemu" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False


def _spawn(words: list[str], log: Path) -> None:
    with log.open("wb") as output:
        subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


def _wait(holds: Callable[[], bool], what: str, place: Path) -> None:
    end = time.monotonic() + BOOT_SECONDS
    while not holds():
        if time.monotonic() > end:
            raise VmError(f"waited {BOOT_SECONDS} s for {what}: see the logs in {place}")
        time.sleep(_POLL_SECONDS)


def main() -> int:
    layout = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, more in (("boot", "image"), ("run", "command"), ("stop", None)):
        sub = verbs.add_parser(verb)
        sub.add_argument("name")
        if more:
            sub.add_argument(more)
    args = parser.parse_args()
    try:
        if args.verb == "boot":
            print(boot(args.name, Path(args.image)))
        elif args.verb == "run":
            return run(args.name, args.command)
        else:
            stop(args.name)
    except VmError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
