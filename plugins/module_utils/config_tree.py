# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replace whole configuration directories: compare, stage, check, swap.

A *tree* is a directory that belongs to one role as a whole. It is staged beside its destination,
the service's own check runs on the staged copy, and only then does it take the place of the live
directory. Nothing here knows Ansible: a failure is a C(ConfigTreeError), commands run through a
callable.

Names beside a destination ``/etc/kamailio``:

======================================  =====================================================
``/etc/.kamailio.ringmain-new``         being staged; a leftover is worth nothing
``/etc/.kamailio.ringmain-swap``        the live tree between two renames (see C(exchange))
``/etc/.kamailio.ringmain-copy``        the live tree being copied, where it cannot be renamed
``/etc/.kamailio.ringmain-previous``    what was live before the last change of content
======================================  =====================================================
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import ctypes
import errno
import fcntl
import fnmatch
import grp
import hashlib
import json
import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
import typing as t
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

DIGEST_DIRECTORY = "/etc/ringmain/digests"
RUNNING_DIRECTORY = "/run/ringmain"
DIFF_LIMIT = 100_000
"""Bytes of a file above which a diff only says that it is too large."""

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CHECK_SECONDS = 120

Runner = Callable[[Sequence[str]], "tuple[int, str]"]
"""Runs one command (argv), gives exit code and output; OSError when it cannot start."""


class ConfigTreeError(Exception):
    """What is wrong, and what to do next, in words for the operator."""


@dataclass(frozen=True)
class Rendered:
    """One file as the controller rendered it."""

    content: bytes
    executable: bool = False


@dataclass(frozen=True)
class Tree:
    """One directory as it should be. C(files) maps paths relative to C(dest) to their content."""

    dest: str
    files: Mapping[str, Rendered]
    owner: str = "root"
    group: str = "root"
    mode: int = 0o640
    directory_mode: int = 0o750
    keep: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()
    restart_for: tuple[str, ...] = ()

    def mode_of(self, rendered: Rendered) -> int:
        """Permissions of one file: an executable one may be run by whoever may read it."""
        return self.mode | (self.mode & 0o444) >> 2 if rendered.executable else self.mode


@dataclass(frozen=True)
class Entry:
    """What is found at one path; never through a symbolic link."""

    kind: str  # file, directory, link, other
    mode: int
    uid: int
    gid: int
    size: int


@dataclass(frozen=True)
class Change:
    """One difference between the live tree and the wanted one.

    C(what) is C(new), C(content), C(attributes) or C(removed); C(path) is relative, "" for the
    tree itself.
    """

    path: str
    what: str


@dataclass
class Outcome:
    """What happened, or would happen in check mode."""

    changed: bool = False
    changed_files: list[str] = field(default_factory=list)
    digest: str = ""
    restart_pending: bool = False
    diff: list[dict[str, t.Any]] = field(default_factory=list)


# --- the way from the controller to the host ----------------------------------


def pack(trees: Sequence[Mapping[str, Rendered]]) -> str:
    """Pack the files of each tree into one ASCII string (for one module argument)."""
    plain = [
        {
            path: [base64.b64encode(rendered.content).decode("ascii"), rendered.executable]
            for path, rendered in sorted(files.items())
        }
        for files in trees
    ]
    packed = zlib.compress(json.dumps(plain).encode("ascii"), 6)
    return base64.b64encode(packed).decode("ascii")


def unpack(packed: str) -> list[dict[str, Rendered]]:
    """Undo C(pack). Raises ConfigTreeError for anything that C(pack) did not make."""
    try:
        plain = json.loads(zlib.decompress(base64.b64decode(packed, validate=True)))
        trees = [
            {
                str(path): Rendered(base64.b64decode(content), bool(executable))
                for path, (content, executable) in files.items()
            }
            for files in plain
        ]
    except (ValueError, TypeError, AttributeError, zlib.error, binascii.Error) as exc:
        raise ConfigTreeError(
            f"rendered is not what the action plugin hands over ({exc}); "
            "call ringmain.voip.config_tree as a task and leave out this option"
        ) from exc
    for files in trees:
        for path in files:
            if not path or path.startswith("/") or ".." in path.split("/"):
                raise ConfigTreeError(f"rendered names a file outside its tree: {path!r}")
    return trees


def parse_mode(value: str, option: str) -> int:
    """Octal permissions such as C(0640). Raises ConfigTreeError naming the option."""
    if not re.fullmatch(r"0?[0-7]{3}", value):
        raise ConfigTreeError(
            f'{option} must be octal permissions in quotes such as "0640", not {value!r}'
        )
    return int(value, 8)


# --- names and patterns -------------------------------------------------------


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern names C(path) or a directory above it.

    Without a slash a pattern names a file or directory at any depth; with one it is anchored at
    the top of the tree. C(*), C(?) and C([…]) do not cross a slash.
    """
    parts = path.split("/")
    for pattern in patterns:
        wanted = pattern.strip("/").split("/")
        if len(wanted) == 1 and "/" not in pattern.rstrip("/"):
            if any(fnmatch.fnmatchcase(part, wanted[0]) for part in parts):
                return True
        elif len(wanted) <= len(parts) and all(
            fnmatch.fnmatchcase(part, want) for part, want in zip(parts, wanted, strict=False)
        ):
            return True
    return False


def beside(dest: str, purpose: str) -> str:
    """The hidden name beside C(dest) for one purpose: C(new), C(swap), C(copy) or C(previous)."""
    parent, name = os.path.split(dest)
    return os.path.join(parent, f".{name}.ringmain-{purpose}")


def _parents(path: str) -> Iterator[str]:
    """The directories above a relative path, the tree itself ("") included."""
    while path:
        path = os.path.dirname(path)
        yield path


def _identify(name: str, what: str, dest: str, check_mode: bool) -> int | None:
    """A user or group id; None for one that check mode expects this run to create."""
    if name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid if what == "user" else grp.getgrnam(name).gr_gid
    except KeyError:
        if check_mode:
            return None
        raise ConfigTreeError(
            f"the {what} {name}, who is to own {dest}, does not exist on this host; "
            f"install the package or create the {what} before the configuration is written"
        ) from None


# --- reading ------------------------------------------------------------------


def _entry(status: os.stat_result) -> Entry:
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
    kind = kinds.get(stat.S_IFMT(status.st_mode), "other")
    return Entry(kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_size)


def scan(root: str) -> dict[str, Entry]:
    """Everything at and below C(root) by relative path; empty when nothing is there."""
    found: dict[str, Entry] = {}

    def descend(path: str, relative: str) -> None:
        with os.scandir(path) as listing:
            for item in sorted(listing, key=lambda found_item: found_item.name):
                below = f"{relative}/{item.name}" if relative else item.name
                entry = _entry(item.stat(follow_symlinks=False))
                found[below] = entry
                if entry.kind == "directory":
                    descend(item.path, below)

    with contextlib.suppress(FileNotFoundError):
        found[""] = _entry(os.lstat(root))
    if found and found[""].kind == "directory":
        descend(root, "")
    return found


def read_file(path: str) -> bytes:
    """The content of a regular file; a symbolic link at its place is an error."""
    with open(
        os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb"
    ) as stream:
        return stream.read()


# --- comparing ----------------------------------------------------------------


@dataclass
class Comparison:
    """A tree beside what is live."""

    tree: Tree
    dest: str  # the real path, when dest itself is a link
    live: str  # where the live tree is read from: dest, or the swap name after a crash
    found: dict[str, Entry]
    kept: set[str]
    directories: set[str]
    files: dict[str, Rendered]
    uid: int | None
    gid: int | None
    changes: list[Change]

    @property
    def needs_swap(self) -> bool:
        """Whether more than permissions and owners differ."""
        return any(change.what != "attributes" for change in self.changes)

    def is_kept(self, path: str) -> bool:
        """Whether a path, be it new since the comparison, is someone else's."""
        return (
            matches(path, self.tree.keep)
            and path not in self.files
            and path not in self.directories
        )

    def attributes_of(self, path: str) -> tuple[int, int | None, int | None]:
        """Wanted mode, user id and group id of one of our paths."""
        rendered = self.files.get(path)
        mode = self.tree.directory_mode if rendered is None else self.tree.mode_of(rendered)
        return mode, self.uid, self.gid


def compare(tree: Tree, check_mode: bool = False) -> Comparison:
    """Find every difference between the live directory and the wanted one.

    Raises ConfigTreeError when the destination is no directory or its owner does not exist.
    """
    dest = os.path.realpath(tree.dest)
    # What is not rendered is removed: never from / or /etc by a slip.
    if not os.path.isabs(tree.dest) or os.path.dirname(dest) == "/":
        raise ConfigTreeError(
            f"dest must be an absolute path at least two levels deep, not {tree.dest!r}"
        )
    swap = beside(dest, "swap")
    # Between two renames nothing is at dest: the live tree has the other name (see exchange).
    live = swap if not os.path.lexists(dest) and os.path.isdir(swap) else dest
    found = scan(live)
    if found and found[""].kind != "directory":
        raise ConfigTreeError(
            f"{tree.dest} exists and is not a directory; move it away and run again"
        )
    kept = {path for path in found if path and matches(path, tree.keep)}
    # What is kept belongs to someone else; a rendering of it only serves as its first version.
    files = {
        path: rendered
        for path, rendered in tree.files.items()
        if kept.isdisjoint((path, *_parents(path)))
    }
    directories = {parent for path in (*files, *kept) for parent in _parents(path)} - kept | {""}
    clash = sorted(directories & set(files))
    if clash:
        raise ConfigTreeError(f"{tree.dest}/{clash[0]} is to be a file and a directory at once")
    comparison = Comparison(
        tree=tree,
        dest=dest,
        live=live,
        found=found,
        kept=kept,
        directories=directories,
        files=files,
        uid=_identify(tree.owner, "user", tree.dest, check_mode),
        gid=_identify(tree.group, "group", tree.dest, check_mode),
        changes=[],
    )
    comparison.changes = sorted(_changes(comparison), key=lambda change: change.path)
    return comparison


def _changes(comparison: Comparison) -> Iterator[Change]:
    found = comparison.found
    for path in (*comparison.directories, *comparison.files):
        entry = found.get(path)
        rendered = comparison.files.get(path)
        if entry is None:
            yield Change(path, "new")
        elif entry.kind != ("directory" if rendered is None else "file") or (
            rendered is not None
            and (
                entry.size != len(rendered.content)
                or read_file(os.path.join(comparison.live, path)) != rendered.content
            )
        ):
            yield Change(path, "content")
        else:
            mode, uid, gid = comparison.attributes_of(path)
            if entry.mode != mode or uid not in (None, entry.uid) or gid not in (None, entry.gid):
                yield Change(path, "attributes")
    for path in found:
        if path not in comparison.directories | comparison.files.keys() | comparison.kept:
            yield Change(path, "removed")


# --- what the operator sees ---------------------------------------------------


def describe(comparison: Comparison) -> list[dict[str, t.Any]]:
    """The changes of one tree in Ansible's diff format; content of secret files never shows."""
    tree = comparison.tree
    described: list[dict[str, t.Any]] = []
    for change in comparison.changes:
        name = os.path.join(tree.dest, change.path) if change.path else tree.dest
        item: dict[str, t.Any] = {"before_header": name, "after_header": name}
        rendered = comparison.files.get(change.path)
        entry = comparison.found.get(change.path)
        if change.what == "removed":
            # Its origin is unknown, and so is whether it holds a secret.
            item |= {
                "before": f"a {entry.kind if entry else 'file'} that is not ours\n",
                "after": "",
            }
        elif change.what == "attributes":
            item |= {
                "before": _attribute_text(comparison, change.path, live=True),
                "after": _attribute_text(comparison, change.path, live=False),
            }
        elif rendered is None:
            before = "" if entry is None else f"a {entry.kind}\n"
            item |= {"before": before, "after": "a directory\n"}
        elif matches(change.path, tree.secret):
            before = "" if entry is None else "content hidden: a secret file\n"
            item |= {"before": before, "after": "content changed: a secret file\n"}
        else:
            item |= _content_diff(comparison, change.path, rendered)
        described.append(item)
    return described


def _attribute_text(comparison: Comparison, path: str, live: bool) -> str:
    entry = comparison.found[path]
    mode, uid, gid = (entry.mode, entry.uid, entry.gid) if live else comparison.attributes_of(path)
    owner = entry.uid if uid is None else uid
    group = entry.gid if gid is None else gid
    return f"owner: {owner}\ngroup: {group}\nmode: {mode:04o}\n"


def _content_diff(comparison: Comparison, path: str, rendered: Rendered) -> dict[str, t.Any]:
    entry = comparison.found.get(path)
    before: bytes | None = b""
    if entry is not None and entry.kind == "file":
        if entry.size > DIFF_LIMIT:
            return {"dst_larger": DIFF_LIMIT}
        before = read_file(os.path.join(comparison.live, path))
    if len(rendered.content) > DIFF_LIMIT:
        return {"src_larger": DIFF_LIMIT}
    texts: dict[str, t.Any] = {}
    for side, binary, content in (
        ("before", "dst_binary", before),
        ("after", "src_binary", rendered.content),
    ):
        try:
            texts[side] = (content or b"").decode("utf-8")
        except UnicodeDecodeError:
            return {binary: 1}
        if "\0" in texts[side]:
            return {binary: 1}
    return texts


def hide_secrets(output: str, trees: Iterable[Tree]) -> str:
    """Take lines of secret files, and the values in them, out of what a check wrote."""
    hidden: set[str] = set()
    for tree in trees:
        for path, rendered in tree.files.items():
            if not matches(path, tree.secret):
                continue
            for line in rendered.content.decode("utf-8", "replace").splitlines():
                value = re.split(r"[=:\s]", line.strip(), maxsplit=1)[-1]
                hidden.update(
                    text for text in (line.strip(), value.strip(" \t=:\"';,")) if len(text) >= 8
                )
    for text in sorted(hidden, key=len, reverse=True):
        output = output.replace(text, "(hidden)")
    return output


# --- writing ------------------------------------------------------------------


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _set_attributes(descriptor: int, mode: int, uid: int | None, gid: int | None) -> None:
    os.fchown(descriptor, -1 if uid is None else uid, -1 if gid is None else gid)
    # After the owner: chown takes away set-id bits.
    os.fchmod(descriptor, mode)


def _write_file(path: str, content: bytes, mode: int, uid: int | None, gid: int | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as stream:
        stream.write(content)
        stream.flush()
        _set_attributes(stream.fileno(), mode, uid, gid)
        os.fsync(stream.fileno())


def remove(path: str) -> None:
    """Remove whatever is at C(path); links are not followed, and nothing there is no error."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def copy_entry(source: str, target: str) -> None:
    """Copy a file, link, fifo or directory with owner, permissions and times, durably."""
    status = os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    elif stat.S_ISDIR(status.st_mode):
        os.mkdir(target, 0o700)
        for name in sorted(os.listdir(source)):
            copy_entry(os.path.join(source, name), os.path.join(target, name))
        _finish_directory(target, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    elif stat.S_ISREG(status.st_mode):
        _write_file(
            target, read_file(source), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        )
    elif stat.S_ISFIFO(status.st_mode):
        os.mkfifo(target, stat.S_IMODE(status.st_mode))
        os.chown(target, status.st_uid, status.st_gid)
    else:
        raise ConfigTreeError(
            f"{source} is a socket or device and cannot be carried over; "
            "let its service keep it below /run instead"
        )
    if not stat.S_ISLNK(status.st_mode):
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _finish_directory(path: str, mode: int, uid: int | None, gid: int | None) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _set_attributes(descriptor, mode, uid, gid)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stage(comparison: Comparison, target: str) -> dict[str, tuple[int, ...]]:
    """Write the whole wanted tree to C(target), kept entries included.

    Gives the identity of each kept file at the time of its copy, for C(carry_late_writes).
    """
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    os.mkdir(target, 0o700)
    for directory in sorted(comparison.directories - {""}):
        os.mkdir(os.path.join(target, directory), 0o700)
    for path, rendered in comparison.files.items():
        _write_file(os.path.join(target, path), rendered.content, *comparison.attributes_of(path))
    copied: dict[str, tuple[int, ...]] = {}
    for path in sorted(comparison.kept):
        source = os.path.join(comparison.live, path)
        if os.path.dirname(path) not in comparison.kept:
            copied |= _identities(source, path)
            copy_entry(source, os.path.join(target, path))
    for directory in sorted(comparison.directories, reverse=True):
        _finish_directory(os.path.join(target, directory), *comparison.attributes_of(directory))
    return copied


def _identities(source: str, relative: str) -> dict[str, tuple[int, ...]]:
    """What tells a changed file from an unchanged one, for C(source) and all below it."""
    identities: dict[str, tuple[int, ...]] = {}
    for path, entry in scan(source).items():
        status = os.lstat(os.path.join(source, path) if path else source)
        identity: tuple[int, ...] = (status.st_ino, status.st_size, status.st_mtime_ns)
        # A directory's own times change with its entries, which are compared themselves.
        identities[f"{relative}/{path}" if path else relative] = (
            (0,) if entry.kind == "directory" else identity
        )
    return identities


def carry_late_writes(
    previous: str, dest: str, keep: Sequence[str], copied: Mapping[str, tuple[int, ...]]
) -> None:
    """Bring over what its owner changed in the kept part of the old tree between copy and swap."""
    kept = {path for path in scan(previous) if path and matches(path, keep)}
    tops = {
        path for path in kept | copied.keys() if os.path.dirname(path) not in kept | copied.keys()
    }
    for path in sorted(tops):
        source, target = os.path.join(previous, path), os.path.join(dest, path)
        then = {name: copied[name] for name in copied if f"{name}/".startswith(f"{path}/")}
        if _identities(source, path) == then:
            continue
        late = beside(target, "new")
        remove(late)
        if os.path.lexists(source):
            os.makedirs(os.path.dirname(target), 0o750, exist_ok=True)
            copy_entry(source, late)
        # Files are replaced in one step; a directory cannot be.
        if not os.path.isfile(late) or os.path.isdir(target):
            remove(target)
        if os.path.lexists(late):
            os.replace(late, target)
        _sync_directory(os.path.dirname(target))


def _renameat2_exchange(first: str, second: str) -> None:
    """Exchange two paths in one step. OSError ENOSYS where C library or kernel cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    function = getattr(libc, "renameat2", None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), first)
    ctypes.set_errno(0)
    code = function(
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(first)),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(second)),
        ctypes.c_uint(_RENAME_EXCHANGE),
    )
    if code:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), first, None, second)


def exchange(staged: str, dest: str) -> str:
    """Put the staged tree at C(dest); what was there is at C(staged) afterwards.

    Gives the way it was done: C(first) (nothing was there), C(exchange) (one step), C(rename) (two
    renames, where the file system cannot exchange) or C(in place) (file by file, where the
    directory itself cannot be renamed: part of a lower overlay layer, or a mount point). After
    C(in place) nothing is at C(staged).
    """
    parent = os.path.dirname(dest)
    if not os.path.lexists(dest):
        os.rename(staged, dest)
        _sync_directory(parent)
        return "first"
    try:
        _renameat2_exchange(staged, dest)
        _sync_directory(parent)
        return "exchange"
    except OSError as exc:
        if exc.errno not in (errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EBUSY):
            raise
    swap = beside(dest, "swap")
    try:
        os.rename(dest, swap)
    except OSError as exc:
        if exc.errno not in (errno.EXDEV, errno.EBUSY):
            raise
    else:
        # A crash from here to the second rename leaves nothing at dest: recover() brings it back.
        try:
            os.rename(staged, dest)
        except OSError:
            os.rename(swap, dest)
            raise
        os.rename(swap, staged)
        _sync_directory(parent)
        return "rename"
    return "in place"


def move_in_place(source: str, dest: str, untouched: Callable[[str], bool]) -> None:
    """Make C(dest) what C(source) is by moving one file after the other; C(source) is used up."""
    wanted = {path: entry for path, entry in scan(source).items() if not untouched(path)}
    for path, entry in sorted(wanted.items()):
        target = os.path.join(dest, path) if path else dest
        is_directory = os.path.isdir(target) and not os.path.islink(target)
        if entry.kind == "directory":
            if not is_directory:
                remove(target)
                os.mkdir(target, 0o700)
            _finish_directory(target, entry.mode, entry.uid, entry.gid)
            continue
        if is_directory:
            remove(target)
        os.replace(os.path.join(source, path), target)
    for path in sorted(scan(dest), reverse=True):
        if path not in wanted and not untouched(path):
            remove(os.path.join(dest, path))
    for path, entry in wanted.items():
        if entry.kind == "directory":
            _sync_directory(os.path.join(dest, path))
    remove(source)


def recover(dest: str) -> None:
    """Finish or undo what a run that was cut short left beside C(dest)."""
    swap = beside(dest, "swap")
    if os.path.lexists(swap):
        if os.path.lexists(dest):
            _keep_previous(swap, dest)
        else:
            os.rename(swap, dest)
        _sync_directory(os.path.dirname(dest))
    for purpose in ("new", "copy"):
        remove(beside(dest, purpose))


def _keep_previous(old: str, dest: str) -> None:
    previous = beside(dest, "previous")
    remove(previous)
    os.rename(old, previous)
    _sync_directory(os.path.dirname(dest))


@dataclass
class _Swapped:
    comparison: Comparison
    staged: str
    way: str
    copied: dict[str, tuple[int, ...]]


def _swap(comparison: Comparison, staged: str, copied: dict[str, tuple[int, ...]]) -> _Swapped:
    dest = comparison.dest
    swapped = _Swapped(comparison, staged, exchange(staged, dest), copied)
    if swapped.way == "in place":
        backup = beside(dest, "copy")
        copy_entry(dest, backup)
        _keep_previous(backup, dest)
        try:
            move_in_place(staged, dest, comparison.is_kept)
        except BaseException:
            _undo(swapped)
            raise
    return swapped


def _undo(swapped: _Swapped) -> None:
    dest = swapped.comparison.dest
    if swapped.way == "first":
        os.rename(dest, swapped.staged)
    elif swapped.way == "in place":
        move_in_place(beside(dest, "previous"), dest, swapped.comparison.is_kept)
    else:
        exchange(swapped.staged, dest)


def _finish(swapped: _Swapped) -> None:
    if swapped.way in ("exchange", "rename"):
        dest = swapped.comparison.dest
        carry_late_writes(swapped.staged, dest, swapped.comparison.tree.keep, swapped.copied)
        _keep_previous(swapped.staged, dest)


def _repair_attributes(comparison: Comparison) -> None:
    for change in comparison.changes:
        path = os.path.join(comparison.dest, change.path) if change.path else comparison.dest
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _set_attributes(descriptor, *comparison.attributes_of(change.path))
        finally:
            os.close(descriptor)


# --- checking -----------------------------------------------------------------


def run_command(argv: Sequence[str]) -> tuple[int, str]:
    """Run a check without a shell, in the C locale; standard output and error come as one text."""
    # AnsibleModule.run_command has neither a time limit nor one stream for both outputs.
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        timeout=_CHECK_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace")


def check_staged(staged: Sequence[tuple[Tree, str]], run: Runner) -> None:
    """Run the checks of all staged trees. Raises one ConfigTreeError for all failures."""
    failures: list[str] = []
    for tree, path in staged:
        for check in tree.checks:
            try:
                argv = [word.replace("{tree}", path) for word in shlex.split(check)]
                code, output = run(argv)
            except OSError as exc:
                code, output = 127, f"it cannot be run: {exc.strerror or exc}"
            except (ValueError, IndexError) as exc:
                code, output = 2, f"it is no command: {exc}"
            except subprocess.TimeoutExpired:
                code, output = 124, f"no answer within {_CHECK_SECONDS} s"
            if code == 0:
                continue
            for other, where in staged:
                output = output.replace(where, other.dest)
            output = hide_secrets(output, (other for other, _where in staged)).strip()
            failures.append(
                f"the check of {tree.dest} failed with exit code {code}: "
                f"{check.replace('{tree}', tree.dest)}\n{output or '(it wrote nothing)'}"
            )
    if failures:
        failures.append(
            "Nothing was replaced: the running configuration is untouched. "
            "Correct the template or the inputs behind it and run again."
        )
        raise ConfigTreeError("\n".join(failures))


# --- digests ------------------------------------------------------------------


def digest_of(trees: Iterable[Tree]) -> str:
    """SHA-256 over names and content of the files whose change needs a restart."""
    total = hashlib.sha256()
    for tree in trees:
        for path, rendered in sorted(tree.files.items()):
            if matches(path, tree.restart_for) and not matches(path, tree.keep):
                content = hashlib.sha256(rendered.content).hexdigest()
                total.update(f"{content}  {tree.dest}/{path}\n".encode())
    return total.hexdigest()


def _read_digest(path: str) -> str | None:
    try:
        return read_file(path).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None


def replace_file(path: str, content: bytes, mode: int, uid: int | None, gid: int | None) -> None:
    """Put a single file in place in one step, durably; C(None) leaves owner or group as created."""
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    staged = beside(path, "new")
    remove(staged)
    _write_file(staged, content, mode, uid, gid)
    os.replace(staged, path)
    _sync_directory(os.path.dirname(path))


# --- the whole ----------------------------------------------------------------


@contextlib.contextmanager
def _locked(paths: Iterable[str]) -> Iterator[None]:
    """Hold the nearest existing directory above each path, in one order, against a second run."""
    parents: set[str] = set()
    for path in paths:
        parent = os.path.dirname(path)
        while not os.path.isdir(parent):
            parent = os.path.dirname(parent)
        parents.add(parent)
    with contextlib.ExitStack() as stack:
        for parent in sorted(parents):
            descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def apply(
    trees: Sequence[Tree],
    *,
    service: str | None = None,
    installed: bool = True,
    check_mode: bool = False,
    with_diff: bool = False,
    scratch: str | None = None,
    run: Runner = run_command,
    digest_directory: str = DIGEST_DIRECTORY,
    running_directory: str = RUNNING_DIRECTORY,
) -> Outcome:
    """Make all trees what they should be, or none of them.

    C(installed) false leaves out the checks. In check mode nothing beside C(scratch) (a private
    directory for the checks; without one they are left out) is written. Raises ConfigTreeError,
    and OSError where the system refuses.
    """
    dests = [os.path.realpath(tree.dest) for tree in trees]
    for index, dest in enumerate(dests):
        for other in dests[:index]:
            if os.path.commonpath([dest, other]) in (dest, other):
                raise ConfigTreeError(f"two trees share {min(dest, other)}")
    with contextlib.ExitStack() as stack:
        if not check_mode:
            stack.enter_context(_locked(dests))
            for dest in dests:
                if os.path.isdir(os.path.dirname(dest)):
                    recover(dest)
        comparisons = [compare(tree, check_mode) for tree in trees]
        outcome = Outcome(digest=digest_of(trees))
        for comparison in comparisons:
            outcome.changed_files += [
                os.path.join(comparison.tree.dest, change.path)
                if change.path
                else comparison.tree.dest
                for change in comparison.changes
            ]
            if with_diff:
                outcome.diff += describe(comparison)
        replaced = [comparison for comparison in comparisons if comparison.needs_swap]
        if replaced and check_mode and installed and scratch is not None:
            _try_checks(replaced, scratch, run)
        elif replaced and not check_mode:
            _replace(replaced, installed, run)
        for comparison in comparisons:
            if not check_mode and comparison.changes and not comparison.needs_swap:
                _repair_attributes(comparison)
        if service is not None:
            digest_file = os.path.join(digest_directory, service)
            if _read_digest(digest_file) != outcome.digest:
                outcome.changed_files.append(digest_file)
                if not check_mode:
                    # After the swap: a daemon that starts in between is then taken for older than
                    # it is, which costs a restart; the other order would hide that it runs old
                    # configuration.
                    content = f"{outcome.digest}\n".encode("ascii")
                    replace_file(digest_file, content, 0o644, None, None)
            running = _read_digest(os.path.join(running_directory, f"{service}.digest"))
            outcome.restart_pending = running not in (None, outcome.digest)
        outcome.changed = bool(outcome.changed_files)
    return outcome


def _try_checks(comparisons: Sequence[Comparison], scratch: str, run: Runner) -> None:
    staged: list[tuple[Tree, str]] = []
    for number, comparison in enumerate(comparisons):
        if comparison.tree.checks:
            target = os.path.join(scratch, f"tree-{number}")
            stage(comparison, target)
            staged.append((comparison.tree, target))
    try:
        check_staged(staged, run)
    finally:
        for _tree, target in staged:
            remove(target)


def _replace(comparisons: Sequence[Comparison], installed: bool, run: Runner) -> None:
    staged: list[tuple[Comparison, str, dict[str, tuple[int, ...]]]] = []
    swapped: list[_Swapped] = []
    try:
        for comparison in comparisons:
            target = beside(comparison.dest, "new")
            staged.append((comparison, target, {}))
            staged[-1][2].update(stage(comparison, target))
        if installed:
            check_staged([(item[0].tree, item[1]) for item in staged], run)
        for comparison, target, copied in staged:
            swapped.append(_swap(comparison, target, copied))
    except BaseException:
        for done in reversed(swapped):
            _undo(done)
        for _comparison, target, _copied in staged:
            remove(target)
        raise
    for done in swapped:
        _finish(done)
