# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The disk image that all virtual machines begin with: a Debian with its own kernel, built once."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from . import base
from .archives import SUITE, Archive
from .machine import CACHE, run

# The kernel of Debian's cloud images, and what a module needs to be built for it. That of the last
# point release: a machine with the newest one could not show how it gets a newer one.
KERNEL_PACKAGES = (
    *(f"linux-image-cloud-amd64/{SUITE}", f"linux-headers-cloud-amd64/{SUITE}"),
    *("dkms", "udev", "kexec-tools"),
)
# The relay's module, built for this kernel already, what every server has, and the libraries of the
# relay: compiling costs an emulated machine minutes, each package seconds, and this one a tenth.
# The relay itself is not there, and no server has a configuration of the collection's.
PARTS = (
    *("rtpengine-kernel-dkms", "chrony", "ethtool"),
    *("libavcodec61", "libavformat61", "libswresample5", "libspandsp2t64", "libbcg729-0"),
    *("libcurl4t64", "libwebsockets19t64", "libmosquitto1", "libmariadb3", "libhiredis1.1.0"),
    *("libevent-2.1-7t64", "libevent-pthreads-2.1-7t64", "libjson-glib-1.0-0", "libip6tc2"),
    *("libpcap0.8t64", "liburing2", "libip4tc2", "netcat-openbsd", "libbencode-perl"),
    *("libconfig-tiny-perl", "libcrypt-rijndael-perl", "libdigest-hmac-perl"),
    *("libio-socket-inet6-perl", "libjson-perl", "libsocket6-perl"),
)
PACKAGES = KERNEL_PACKAGES + PARTS
# What the first steps of a boot need to find the root file system, and no more: no udev, which an
# emulated machine would start twice, the first time out of ten megabytes to be unpacked.
EARLY_MODULES = "virtio_pci\nvirtio_blk\next4\n"
LEFT_OUT = (
    "/usr/share/initramfs-tools/hooks/udev",
    "/usr/share/initramfs-tools/scripts/init-top/udev",
    "/usr/share/initramfs-tools/scripts/init-bottom/udev",
)
# A machine's own files come on its second disk as a tar archive, unpacked before its first boot.
# Without udev nobody has brought the kernel's devices here. QEMU starts the image's kernel; where
# the disk has come to another one, that one starts it, as a boot loader would.
FIRST_PROGRAM = """#!/bin/sh
mount -t devtmpfs udev /dev
[ -e /etc/hostname ] || tar -x -f /dev/vdb -C /
release=$(readlink /vmlinuz)
release=${release#boot/vmlinuz-}
if [ "$release" != "$(uname -r)" ]; then
    kexec --load --reuse-cmdline --initrd="/boot/initrd.img-$release" "/boot/vmlinuz-$release"
    sync
    kexec --exec
fi
exec /sbin/init "$@"
"""
FILES = {
    "etc/initramfs-tools/conf.d/lab": "MODULES=list\n",
    "usr/share/initramfs-tools/modules.d/lab": EARLY_MODULES,
    "usr/local/sbin/lab-init": FIRST_PROGRAM,
}
MASKED = ("getty@tty1.service", "serial-getty@ttyS0.service", "systemd-networkd.service")
DISK_SIZE = "10G"
ROOM = 4 << 30


def recipe(entries: list[Archive], settings: dict[str, str]) -> str:
    """Everything that decides what the image holds, as text."""
    parts = {
        "base": base.recipe(entries, settings),
        "packages": PACKAGES,
        "files": FILES,
        "left out": LEFT_OUT,
        "masked": MASKED,
        "size": DISK_SIZE,
    }
    return json.dumps(parts, indent=1, sort_keys=True)


def ensured(entries: list[Archive]) -> AbstractContextManager[tuple[str, bool]]:
    """Give the key of the image for these archives, and whether it had to be built.

    Nobody deletes the image inside the block.
    """
    settings = base.inherited_settings()
    key = base.key_of(f"{SUITE}-machine", recipe(entries, settings))
    what = "the image of virtual machines (some two minutes)"
    return base.kept("machine", key, ROOM, what, lambda: build(key, entries, settings))


def directory(key: str) -> Path:
    """Where `disk`, `kernel` and `initrd` of a key lie."""
    return CACHE / "machine" / key


def build(key: str, entries: list[Archive], settings: dict[str, str]) -> None:
    """Build the image beside its place and put it there when it is whole."""
    new = CACHE / "machine" / f".{key}.{os.getpid()}.new"
    root = new / "tree"
    new.mkdir(parents=True)
    files = new / "files"
    for name, content in FILES.items():
        path = files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (files / "usr/local/sbin/lab-init").chmod(0o755)
    # Before the kernel's own scripts make its first file system from them.
    options = [f"--essential-hook=cp -a {files}/. $1"]
    options += [f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT]
    base.make_tree(root, CACHE / "machine.log", entries, settings, PACKAGES, options)
    # apt reads the lists of its archives into this once; here that takes a second.
    run(["chroot", str(root), "apt-cache", "gencaches"])
    for unit in MASKED:
        with contextlib.suppress(FileExistsError):
            (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    for name, pattern in (("kernel", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        (only,) = (root / "boot").glob(pattern)
        shutil.copyfile(only, new / name)
    disk = new / "disk"
    quiet = ["-q", "-L", "root", "-E", "assume_storage_prezeroed=1"]
    run(["mkfs.ext4", *quiet, "-d", str(root), str(disk), DISK_SIZE])
    shutil.rmtree(root)
    shutil.rmtree(files)
    new.rename(directory(key))
