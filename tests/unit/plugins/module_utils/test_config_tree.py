# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""config_tree on real directories: every change, every way to swap, every point to be cut short."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import multiprocessing
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import config_tree
from ansible_collections.ringmain.voip.plugins.module_utils.config_tree import (
    ConfigTreeError,
    Rendered,
    Tree,
    apply,
    compare,
    matches,
    pack,
    parse_mode,
    unpack,
)

ME: dict[str, Any] = {"owner": str(os.getuid()), "group": str(os.getgid())}


def make_tree(dest: Path, files: Mapping[str, str | bytes | Rendered], **more: Any) -> Tree:
    """A tree of plain texts owned by whoever runs the tests."""
    rendered = {
        path: content
        if isinstance(content, Rendered)
        else Rendered(content.encode() if isinstance(content, str) else content)
        for path, content in files.items()
    }
    return Tree(dest=str(dest), files=rendered, **{**ME, **more})


def contents(root: Path) -> dict[str, bytes | str]:
    """Everything below a directory: files by content, links by target, directories as ''."""
    found: dict[str, bytes | str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir():
            found[name] = ""
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def leftovers(parent: Path) -> set[str]:
    """Hidden names beside the trees, the previous ones apart."""
    return {
        path.name
        for path in parent.iterdir()
        if ".ringmain-" in path.name and not path.name.endswith("-previous")
    }


@pytest.fixture(params=["exchange", "rename", "in place"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to swap: by making the system calls fail as they do on other file systems."""
    if request.param != "exchange":
        number = errno.EINVAL if request.param == "rename" else errno.EXDEV

        def no_exchange(first: str, second: str) -> None:
            raise OSError(number, os.strerror(number), first, None, second)

        monkeypatch.setattr(config_tree, "_renameat2_exchange", no_exchange)
    if request.param == "in place":
        rename = os.rename

        def no_rename_away(source: str, target: str) -> None:
            if target.endswith(".ringmain-swap"):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source, None, target)
            rename(source, target)

        monkeypatch.setattr(os, "rename", no_rename_away)
    return str(request.param)


# --- first install, second run ------------------------------------------------


def test_first_install_makes_parents_modes_and_executables(tmp_path: Path) -> None:
    dest = tmp_path / "deep" / "etc" / "demo"
    tree = make_tree(dest, {"main.cfg": "a\n", "sub/run.sh": Rendered(b"#!/bin/sh\n", True)})
    outcome = apply([tree])
    assert outcome.changed
    assert outcome.changed_files == [
        str(dest),
        f"{dest}/main.cfg",
        f"{dest}/sub",
        f"{dest}/sub/run.sh",
    ]
    assert contents(dest) == {"main.cfg": b"a\n", "sub": "", "sub/run.sh": b"#!/bin/sh\n"}
    modes = {name: stat.S_IMODE((dest / name).stat().st_mode) for name in (".", *contents(dest))}
    assert modes == {".": 0o750, "main.cfg": 0o640, "sub": 0o750, "sub/run.sh": 0o750}
    assert os.listdir(dest.parent) == ["demo"]


def test_second_run_changes_nothing_and_touches_no_inode(tmp_path: Path) -> None:
    dest = tmp_path / "demo"
    tree = make_tree(dest, {"a": "1", "s/b": "2"})
    apply([tree])
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in dest.rglob("*")}
    outcome = apply([tree], with_diff=True)
    assert (outcome.changed, outcome.changed_files, outcome.diff) == (False, [], [])
    assert before == {
        path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in dest.rglob("*")
    }


def test_empty_tree_is_an_empty_directory(tmp_path: Path) -> None:
    assert apply([make_tree(tmp_path / "d", {})]).changed
    assert (tmp_path / "d").is_dir()
    assert not apply([make_tree(tmp_path / "d", {})]).changed


# --- drift --------------------------------------------------------------------


def test_content_surplus_missing_and_types_are_repaired(tmp_path: Path, way: str) -> None:
    dest = tmp_path / "demo"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b").write_text("not ours")
    tree = make_tree(dest, {"a": "one", "s/b": "two", "c": "three", "d": "four"})
    apply([tree])
    wanted = contents(dest)
    (dest / "a").write_text("eno")  # same size
    (dest / "surplus").mkdir()
    (dest / "surplus" / "x").write_text("x")
    (dest / "c").unlink()
    (dest / "d").unlink()
    (dest / "d").mkdir()
    (dest / "s" / "b").unlink()
    (dest / "s").rmdir()
    (dest / "s").symlink_to(outside)
    (dest / "link").symlink_to("/etc/passwd")
    drifted = contents(dest)
    outcome = apply([tree])
    assert sorted(outcome.changed_files) == [
        f"{dest}/{name}" for name in ("a", "c", "d", "link", "s", "s/b", "surplus", "surplus/x")
    ]
    assert contents(dest) == wanted
    assert contents(outside) == {"b": b"not ours"}
    assert contents(tmp_path / ".demo.ringmain-previous") == drifted
    assert leftovers(tmp_path) == set()
    assert not apply([tree]).changed


def test_same_content_behind_a_link_is_still_drift(tmp_path: Path) -> None:
    dest = tmp_path / "demo"
    tree = make_tree(dest, {"a": "one"})
    apply([tree])
    (tmp_path / "elsewhere").write_text("one")
    (dest / "a").unlink()
    (dest / "a").symlink_to(tmp_path / "elsewhere")
    assert apply([tree]).changed_files == [f"{dest}/a"]
    assert not (dest / "a").is_symlink()


def test_permission_drift_is_repaired_in_place_and_keeps_the_previous_tree(tmp_path: Path) -> None:
    dest = tmp_path / "demo"
    apply([make_tree(dest, {"a": "old"})])
    tree = make_tree(dest, {"a": "new", "s/b": "b"})
    apply([tree])
    inode = (dest / "a").stat().st_ino
    (dest / "a").chmod(0o666)
    (dest / "s").chmod(0o700)
    dest.chmod(0o777)
    outcome = apply([tree], with_diff=True)
    assert outcome.changed_files == [str(dest), f"{dest}/a", f"{dest}/s"]
    assert [stat.S_IMODE(p.stat().st_mode) for p in (dest, dest / "a", dest / "s")] == [
        0o750,
        0o640,
        0o750,
    ]
    assert (dest / "a").stat().st_ino == inode
    assert contents(tmp_path / ".demo.ringmain-previous") == {"a": b"old"}
    owner = f"owner: {os.getuid()}\ngroup: {os.getgid()}\n"
    assert outcome.diff[1] == {
        "before_header": f"{dest}/a",
        "after_header": f"{dest}/a",
        "before": f"{owner}mode: 0666\n",
        "after": f"{owner}mode: 0640\n",
    }


def test_wrong_owner_is_a_difference(tmp_path: Path) -> None:
    dest = tmp_path / "demo"
    apply([make_tree(dest, {"a": "x"})])
    other = make_tree(dest, {"a": "x"}, owner=str(os.getuid() + 1))
    assert apply([other], check_mode=True).changed_files == [str(dest), f"{dest}/a"]


def test_destination_behind_links_stays_behind_them(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "etc").symlink_to("real")
    (tmp_path / "real" / "store").mkdir()
    (tmp_path / "real" / "demo").symlink_to("store")
    apply([make_tree(tmp_path / "etc" / "demo", {"a": "1"})])
    assert (tmp_path / "etc").is_symlink()
    assert (tmp_path / "real" / "demo").is_symlink()
    assert contents(tmp_path / "real" / "store") == {"a": b"1"}


# --- what is kept -------------------------------------------------------------


def test_kept_entries_are_carried_over_as_they_are(tmp_path: Path, way: str) -> None:
    dest = tmp_path / "demo"
    keep = ("certs", "*.local", "state/[ab]*")
    apply([make_tree(dest, {"a": "1"}, keep=keep)])
    (dest / "certs" / "deep").mkdir(parents=True)
    (dest / "certs" / "deep" / "key").write_text("k")
    (dest / "certs" / "deep" / "key").chmod(0o600)
    (dest / "certs").chmod(0o711)
    (dest / "certs" / "current").symlink_to("deep/key")
    os.mkfifo(dest / "certs" / "pipe", 0o620)
    (dest / "sub").mkdir()
    (dest / "sub" / "my.local").write_text("mine")
    os.utime(dest / "sub" / "my.local", ns=(1_000_000_000, 2_000_000_000))
    (dest / "state").mkdir()
    (dest / "state" / "a1").write_text("kept")
    (dest / "state" / "c1").write_text("surplus")
    tree = make_tree(dest, {"a": "2"}, keep=keep)
    apply([tree])
    assert contents(dest) == {
        "a": b"2",
        "certs": "",
        "certs/current": "deep/key",
        "certs/deep": "",
        "certs/deep/key": b"k",
        "state": "",
        "state/a1": b"kept",
        "sub": "",
        "sub/my.local": b"mine",
    }
    assert stat.S_ISFIFO((dest / "certs" / "pipe").stat().st_mode)
    assert stat.S_IMODE((dest / "certs").stat().st_mode) == 0o711
    assert stat.S_IMODE((dest / "certs" / "deep" / "key").stat().st_mode) == 0o600
    assert (dest / "sub" / "my.local").stat().st_mtime_ns == 2_000_000_000
    assert not apply([tree]).changed


def test_what_is_rendered_and_kept_is_only_a_first_version(tmp_path: Path, way: str) -> None:
    dest = tmp_path / "demo"
    keep = ("list", "own")
    apply([make_tree(dest, {"list": "first", "own/x": "first", "a": "1"}, keep=keep)])
    assert contents(dest) == {"list": b"first", "own": "", "own/x": b"first", "a": b"1"}
    (dest / "list").write_text("second, by its owner")
    (dest / "own" / "x").unlink()
    tree = make_tree(dest, {"list": "first", "own/x": "first", "a": "2"}, keep=keep)
    apply([tree])
    assert contents(dest) == {"list": b"second, by its owner", "own": "", "a": b"2"}
    assert not apply([tree]).changed


def test_writes_into_kept_files_during_the_check_are_not_lost(tmp_path: Path, way: str) -> None:
    dest = tmp_path / "demo"
    keep = ("*.local", "data", "gone")
    apply([make_tree(dest, {"a": "1"}, keep=keep)])
    for name in ("x.local", "same.local", "gone"):
        (dest / name).write_text("early")
    (dest / "data").mkdir()
    (dest / "data" / "one").write_text("1")

    def write_meanwhile(argv: Any) -> tuple[int, str]:
        (dest / "x.local").write_text("late!")
        (dest / "new.local").write_text("newborn")
        (dest / "data" / "two").write_text("2")
        (dest / "gone").unlink()
        return 0, ""

    apply([make_tree(dest, {"a": "2"}, keep=keep, checks=("true",))], run=write_meanwhile)
    assert contents(dest) == {
        "a": b"2",
        "x.local": b"late!",
        "same.local": b"early",
        "new.local": b"newborn",
        "data": "",
        "data/one": b"1",
        "data/two": b"2",
    }


def test_a_kept_socket_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    dest = tmp_path / "demo"
    apply([make_tree(dest, {"a": "1"})])
    with socket.socket(socket.AF_UNIX) as listener:
        cwd = os.getcwd()
        os.chdir(dest)
        listener.bind("ctl.sock")
        os.chdir(cwd)
        with pytest.raises(ConfigTreeError) as error:
            apply([make_tree(dest, {"a": "2"}, keep=("*.sock",))])
    assert str(error.value) == (
        f"{dest}/ctl.sock is a socket or device and cannot be carried over; "
        "let its service keep it below /run instead"
    )
    assert (dest / "a").read_text() == "1"
    assert leftovers(tmp_path) == set()


# --- checks -------------------------------------------------------------------


def test_a_failed_check_touches_no_tree_and_says_so(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    apply([make_tree(one, {"a": "1"}), make_tree(two, {"b": "1", "odbc.ini": "x"})])
    trees = [
        make_tree(one, {"a": "2"}, checks=("test -d {tree}",)),
        make_tree(
            two,
            {"b": "2", "odbc.ini": "Password = swordfish-42\n"},
            secret=("odbc.ini",),
            checks=(
                "sh -c 'cat {tree}/odbc.ini; echo {tree}/b is wrong >&2; exit 3'",
                "/nonexistent/checker",
            ),
        ),
    ]
    for check_mode in (True, False):
        with pytest.raises(ConfigTreeError) as error:
            apply(trees, check_mode=check_mode, scratch=str(tmp_path))
        assert str(error.value) == (
            f"the check of {two} failed with exit code 3: "
            f"sh -c 'cat {two}/odbc.ini; echo {two}/b is wrong >&2; exit 3'\n"
            f"(hidden)\n{two}/b is wrong\n"
            f"the check of {two} failed with exit code 127: /nonexistent/checker\n"
            "it cannot be run: No such file or directory\n"
            "Nothing was replaced: the running configuration is untouched. "
            "Correct the template or the inputs behind it and run again."
        )
        assert (contents(one), (two / "b").read_text()) == ({"a": b"1"}, "1")
        assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_a_check_that_is_no_command_or_silent_is_reported(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "d", {"a": "1"}, checks=("unbalanced 'quote", "", "false"))
    with pytest.raises(ConfigTreeError) as error:
        apply([tree])
    assert "exit code 2: unbalanced 'quote\nit is no command: No closing quotation\n" in str(
        error.value
    )
    assert "exit code 2: \nit is no command: list index out of range\n" in str(error.value)
    assert "exit code 1: false\n(it wrote nothing)\n" in str(error.value)


def test_a_check_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_tree, "_CHECK_SECONDS", 0.2)
    with pytest.raises(ConfigTreeError, match=r"exit code 124: sleep 60\nno answer within 0\.2 s"):
        apply([make_tree(tmp_path / "d", {"a": "1"}, checks=("sleep 60",))])


def test_checks_see_the_staged_trees_before_any_swap(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    trees = [
        make_tree(one, {"a": "1"}, checks=("check one {tree}/a",)),
        make_tree(two, {"b": "1"}, checks=("check two {tree}/b",)),
    ]
    seen: list[tuple[list[str], bool, bool]] = []

    def run(argv: Any) -> tuple[int, str]:
        seen.append((list(argv), os.path.exists(argv[2]), one.exists() or two.exists()))
        return 0, ""

    apply(trees, run=run)
    assert seen == [
        (["check", "one", f"{tmp_path}/.one.ringmain-new/a"], True, False),
        (["check", "two", f"{tmp_path}/.two.ringmain-new/b"], True, False),
    ]


def test_checks_run_only_for_changes_and_only_when_installed(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "d", {"a": "1"}, checks=("false",))
    assert apply([tree], check_mode=True, installed=False, scratch=str(tmp_path)).changed
    assert apply([tree], installed=False).changed
    assert not apply([tree]).changed


def test_run_command_has_no_shell_no_input_and_both_outputs() -> None:
    assert config_tree.run_command(["sh", "-c", "cat; echo out; echo err >&2; exit 7"]) == (
        7,
        "out\nerr\n",
    )
    assert config_tree.run_command(["echo", "$HOME;"]) == (0, "$HOME;\n")


# --- check mode, diff ---------------------------------------------------------


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    dest = tmp_path / "no" / "demo"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    tree = make_tree(
        dest, {"a": "1"}, owner="nobody-there", group="nor-this-group", checks=("test -f {tree}/a",)
    )
    outcome = apply(
        [tree],
        check_mode=True,
        service="demo",
        scratch=str(scratch),
        digest_directory=str(tmp_path / "digests"),
    )
    assert outcome.changed_files == [str(dest), f"{dest}/a", f"{tmp_path}/digests/demo"]
    assert contents(tmp_path) == {"scratch": ""}


def test_unknown_owner_and_group_stop_a_real_run(tmp_path: Path) -> None:
    for option, what in (("owner", "user"), ("group", "group")):
        with pytest.raises(ConfigTreeError) as error:
            apply([make_tree(tmp_path / "d", {}, **{option: "nobody-there"})])
        assert str(error.value) == (
            f"the {what} nobody-there, who is to own {tmp_path}/d, does not exist on this host; "
            f"install the package or create the {what} before the configuration is written"
        )


def test_names_of_users_and_groups_are_looked_up(tmp_path: Path) -> None:
    comparison = compare(make_tree(tmp_path / "d", {}, owner="root", group="root"))
    assert (comparison.uid, comparison.gid) == (0, 0)


def test_diff_shows_texts_and_hides_secrets(tmp_path: Path) -> None:
    dest = tmp_path / "demo"
    first: dict[str, str | bytes] = {
        "a": "one\n",
        "odbc.ini": "pw=before-secret\n",
        "bin": b"\0\1",
        "huge": "x" * 100_001,
        "type": "t",
    }
    secret = ("odbc.ini", "new.ini")
    apply([make_tree(dest, first, secret=secret)])
    (dest / "surplus").write_text("perhaps a key")
    (dest / "type").unlink()
    (dest / "type").mkdir()
    second: dict[str, str | bytes] = {
        "a": "two\n",
        "odbc.ini": "pw=after-secret\n",
        "new.ini": "pw=new-secret\n",
        "bin": b"\0\2",
        "bin2": b"\xff",
        "huge": "y",
        "huge2": "x" * 100_001,
        "type/x": "x\n",
    }
    outcome = apply([make_tree(dest, second, secret=secret)], with_diff=True)
    shown = {item["after_header"].removeprefix(f"{dest}/"): item for item in outcome.diff}
    for name, item in shown.items():
        assert item.pop("before_header") == item.pop("after_header") == f"{dest}/{name}"
    assert shown == {
        "a": {"before": "one\n", "after": "two\n"},
        "odbc.ini": {
            "before": "content hidden: a secret file\n",
            "after": "content changed: a secret file\n",
        },
        "new.ini": {"before": "", "after": "content changed: a secret file\n"},
        "bin": {"dst_binary": 1},
        "bin2": {"src_binary": 1},
        "huge": {"dst_larger": 100_000},
        "huge2": {"src_larger": 100_000},
        "type/x": {"before": "", "after": "x\n"},
        "surplus": {"before": "a file that is not ours\n", "after": ""},
    } | {name: item for name, item in shown.items() if name == "type"}
    assert "secret\n" not in str([item for name, item in shown.items() if "ini" not in name])
    first_run = apply(
        [make_tree(tmp_path / "other", {"s/a": "x"})], with_diff=True, check_mode=True
    )
    assert first_run.diff[0] == {
        "before_header": f"{tmp_path}/other",
        "after_header": f"{tmp_path}/other",
        "before": "",
        "after": "a directory\n",
    }


# --- several trees, undone together -------------------------------------------


def test_when_the_second_swap_fails_the_first_is_undone(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    one, two, fresh = tmp_path / "one", tmp_path / "x" / "two", tmp_path / "fresh"
    keep = ("*.local",)
    apply([make_tree(one, {"a": "1", "old": "1"}, keep=keep), make_tree(two, {"b": "1"})])
    (one / "k.local").write_text("kept")
    real = config_tree.exchange

    def refuse(staged: str, dest: str) -> str:
        if dest == str(two):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), staged)
        return real(staged, dest)

    monkeypatch.setattr(config_tree, "exchange", refuse)
    with pytest.raises(PermissionError):
        apply(
            [
                make_tree(one, {"a": "2", "new": "2"}, keep=keep),
                make_tree(fresh, {"f": "1"}),
                make_tree(two, {"b": "2"}),
            ]
        )
    assert contents(one) == {"a": b"1", "old": b"1", "k.local": b"kept"}
    assert contents(two) == {"b": b"1"}
    assert not fresh.exists()
    assert leftovers(tmp_path) | leftovers(tmp_path / "x") == set()


def test_a_rename_that_fails_midway_puts_the_live_tree_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "demo"
    apply([make_tree(dest, {"a": "1"})])
    rename = os.rename

    def no_exchange(first: str, second: str) -> None:
        raise OSError(errno.ENOSYS, "no")

    def fail_second(source: str, target: str) -> None:
        if source.endswith("-new"):
            raise OSError(errno.EIO, "broken")
        rename(source, target)

    monkeypatch.setattr(config_tree, "_renameat2_exchange", no_exchange)
    monkeypatch.setattr(os, "rename", fail_second)
    with pytest.raises(OSError, match="broken"):
        apply([make_tree(dest, {"a": "2"})])
    assert contents(dest) == {"a": b"1"}
    assert leftovers(tmp_path) == set()


def test_moving_in_place_that_fails_midway_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "demo"
    keep = ("*.local",)
    apply([make_tree(dest, {"a": "1", "b": "1"})])
    (dest / "k.local").write_text("kept")
    replace, calls = os.replace, []

    def fail_once(source: str, target: str) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "broken")
        replace(source, target)

    monkeypatch.setattr(config_tree, "exchange", lambda staged, dest: "in place")
    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(OSError, match="broken"):
        apply([make_tree(dest, {"a": "2", "b": "2"}, keep=keep)])
    assert contents(dest) == {"a": b"1", "b": b"1", "k.local": b"kept"}


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_other_errors_of_the_exchange_are_not_worked_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    dest = tmp_path / "demo"
    apply([make_tree(dest, {"a": "1"})])

    def refuse(first: str, second: str) -> None:
        raise OSError(number, os.strerror(number), first)

    monkeypatch.setattr(config_tree, "_renameat2_exchange", refuse)
    with pytest.raises(PermissionError):
        apply([make_tree(dest, {"a": "2"})])
    assert contents(dest) == {"a": b"1"}


def test_other_errors_of_the_rename_are_not_worked_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "demo"
    apply([make_tree(dest, {"a": "1"})])

    def no_exchange(first: str, second: str) -> None:
        raise OSError(errno.ENOSYS, "no")

    def refuse(source: str, target: str) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(config_tree, "_renameat2_exchange", no_exchange)
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PermissionError):
        apply([make_tree(dest, {"a": "2"})])


def test_the_exchange_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    config_tree._renameat2_exchange(str(tmp_path / "a"), str(tmp_path / "b"))
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("b", "a")
    with pytest.raises(FileNotFoundError):
        config_tree._renameat2_exchange(str(tmp_path / "a"), str(tmp_path / "nothing"))
    monkeypatch.setattr(ctypes, "CDLL", lambda *args, **kwargs: object())
    with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)):
        config_tree._renameat2_exchange(str(tmp_path / "a"), str(tmp_path / "b"))


# --- cut short ----------------------------------------------------------------

STEPS = ("rename", "replace", "mkdir", "unlink", "rmdir", "fsync", "fchmod", "symlink")


def _run_and_die(trees: list[Tree], digests: str, die_at: int, after: bool) -> None:
    """Run, and end like a power cut before (or after) the n-th call that writes."""
    calls = 0

    def watched(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls >= die_at and not after:
                os._exit(9)
            try:
                return real(*args, **kwargs)
            finally:
                if calls >= die_at:
                    os._exit(9)

        return call

    for step in STEPS:
        setattr(os, step, watched(getattr(os, step)))
    config_tree._renameat2_exchange = watched(config_tree._renameat2_exchange)
    apply(trees, service="demo", digest_directory=digests)
    os._exit(0)


@pytest.mark.parametrize("after", [False, True])
def test_whatever_a_cut_leaves_a_second_run_completes(
    tmp_path: Path, way: str, after: bool
) -> None:
    context = multiprocessing.get_context("fork")
    point = 0
    while True:
        point += 1
        base = tmp_path / str(point)
        (base / "etc").mkdir(parents=True)
        one, two, digests = base / "etc" / "one", base / "etc" / "two", str(base / "digests")
        keep = ("*.local",)
        apply(
            [make_tree(one, {"a": "1", "gone": "1", "s/x": "1"}, keep=keep)],
            service="demo",
            digest_directory=digests,
        )
        (one / "k.local").write_text("kept")
        trees = [
            make_tree(one, {"a": "2", "s/x": "2", "n/y": "2"}, keep=keep, restart_for=("*",)),
            make_tree(two, {"b": "2"}, restart_for=("*",)),
        ]
        process = context.Process(target=_run_and_die, args=(trees, digests, point, after))
        process.start()
        process.join()
        assert process.exitcode in (0, 9)
        # Whatever is kept is there at every moment, under one of two names.
        here = one if one.exists() else base / "etc" / ".one.ringmain-swap"
        assert (here / "k.local").read_text() == "kept"
        assert apply(trees, service="demo", digest_directory=digests, check_mode=True).changed is (
            apply(trees, service="demo", digest_directory=digests).changed
        )
        assert contents(one) == {
            "a": b"2",
            "k.local": b"kept",
            "n": "",
            "n/y": b"2",
            "s": "",
            "s/x": b"2",
        }
        assert contents(two) == {"b": b"2"}
        assert Path(digests, "demo").read_text().strip() == config_tree.digest_of(trees)
        assert leftovers(base / "etc") | leftovers(Path(digests)) == set()
        if process.exitcode == 0:
            break
    assert point > 20


def test_check_mode_reads_the_live_tree_between_two_renames(tmp_path: Path) -> None:
    dest = tmp_path / "demo"
    tree = make_tree(dest, {"a": "1"})
    apply([tree])
    os.rename(dest, tmp_path / ".demo.ringmain-swap")
    (tmp_path / ".demo.ringmain-new").mkdir()
    assert not apply([tree], check_mode=True).changed
    assert not apply([tree]).changed
    assert contents(tmp_path) == {"demo": "", "demo/a": b"1"}


# --- digests ------------------------------------------------------------------


def test_digest_follows_only_files_that_need_a_restart(tmp_path: Path) -> None:
    digests, running = tmp_path / "digests", tmp_path / "run"
    running.mkdir()

    def run(files: dict[str, str]) -> config_tree.Outcome:
        tree = make_tree(tmp_path / "demo", files, restart_for=("*.cfg",), keep=("own.cfg",))
        return apply(
            [tree], service="demo", digest_directory=str(digests), running_directory=str(running)
        )

    first = run({"main.cfg": "1", "list": "1", "own.cfg": "1"})
    expected = hashlib.sha256(b"1").hexdigest() + f"  {tmp_path}/demo/main.cfg\n"
    assert first.digest == hashlib.sha256(expected.encode()).hexdigest()
    assert (digests / "demo").read_text() == f"{first.digest}\n"
    assert stat.S_IMODE((digests / "demo").stat().st_mode) == 0o644
    assert not first.restart_pending  # never started with a digest
    (running / "demo.digest").write_text((digests / "demo").read_text())
    assert not run({"main.cfg": "1", "list": "2", "own.cfg": "2"}).restart_pending
    changed = run({"main.cfg": "2", "list": "2"})
    assert changed.restart_pending
    again = run({"main.cfg": "2", "list": "2"})
    assert (again.changed, again.restart_pending) == (False, True)
    back = run({"main.cfg": "1", "list": "2"})
    assert (back.changed, back.restart_pending, back.digest) == (True, False, first.digest)
    (digests / "demo").unlink()
    assert run({"main.cfg": "1", "list": "2"}).changed_files == [f"{digests}/demo"]


# --- small things -------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "patterns", "expected"),
    [
        ("certs", ["certs"], True),
        ("certs/a/b", ["certs"], True),
        ("certs/a/b", ["certs/"], True),
        ("sub/certs/a", ["certs"], True),
        ("sub/certs", ["/certs"], False),
        ("certs", ["/certs"], True),
        ("x.local", ["*.local"], True),
        ("a/x.local", ["*.local"], True),
        ("a/x.local", ["/*.local"], False),
        ("a/b/c", ["a/*"], True),
        ("a", ["a/*"], False),
        ("a/b/c", ["a/c"], False),
        ("anything", ["*"], True),
        ("anything", [], False),
        ("Certs", ["certs"], False),
    ],
)
def test_patterns(path: str, patterns: list[str], expected: bool) -> None:
    assert matches(path, patterns) is expected


def test_pack_and_unpack_carry_any_bytes() -> None:
    trees = [{"a": Rendered(bytes(range(256)), True), "s/ü": Rendered(b"")}, {}]
    assert unpack(pack(trees)) == trees
    assert pack(trees).isascii()


@pytest.mark.parametrize("packed", ["", "%", "aGVsbG8=", pack([]) + "="])
def test_what_was_not_packed_is_refused(packed: str) -> None:
    with pytest.raises(ConfigTreeError, match="rendered is not what the action plugin hands over"):
        unpack(packed)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x"])
def test_names_outside_the_tree_are_refused(path: str) -> None:
    with pytest.raises(ConfigTreeError) as error:
        unpack(pack([{path: Rendered(b"")}]))
    assert str(error.value) == f"rendered names a file outside its tree: {path!r}"


def test_modes_are_octal_strings() -> None:
    assert (parse_mode("0640", "mode"), parse_mode("750", "mode")) == (0o640, 0o750)
    for value in ("u+x", "0888", "", "01777", "8"):
        with pytest.raises(ConfigTreeError) as error:
            parse_mode(value, "mode of /etc/x")
        assert str(error.value) == (
            f'mode of /etc/x must be octal permissions in quotes such as "0640", not {value!r}'
        )


def test_destinations_that_cannot_be_ours(tmp_path: Path) -> None:
    (tmp_path / "root").symlink_to("/")
    for dest in ("relative/deep/enough", "/", "//", "/nothing-here", f"{tmp_path}/root"):
        with pytest.raises(ConfigTreeError) as error:
            compare(Tree(dest=dest, files={}, **ME))
        assert str(error.value) == (
            f"dest must be an absolute path at least two levels deep, not {dest!r}"
        )
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigTreeError) as error:
        apply([make_tree(tmp_path / "file", {})])
    assert (
        str(error.value)
        == f"{tmp_path}/file exists and is not a directory; move it away and run again"
    )
    with pytest.raises(ConfigTreeError, match=f"two trees share {tmp_path}/a$"):
        apply([make_tree(tmp_path / "a", {}), make_tree(tmp_path / "a" / "b", {})])
    with pytest.raises(ConfigTreeError, match="x is to be a file and a directory at once"):
        apply([make_tree(tmp_path / "a", {"x": "1", "x/y": "2"})])


SECOND_RUN = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("config_tree", sys.argv[1])
config_tree = sys.modules["config_tree"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(config_tree)
me = {"owner": str(os.getuid()), "group": str(os.getgid())}
print("begun", flush=True)
config_tree.apply([config_tree.Tree(sys.argv[2], {"a": config_tree.Rendered(b"second")}, **me)])
"""


def test_two_runs_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """While one run checks, a second on the same destination does not begin."""
    dest = tmp_path / "demo"
    second: list[subprocess.Popen[bytes]] = []

    def start_second(argv: Any) -> tuple[int, str]:
        command = [sys.executable, "-c", SECOND_RUN, str(config_tree.__file__), str(dest)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        second.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        assert (tmp_path / ".demo.ringmain-new").exists()
        return 0, ""

    apply([make_tree(dest, {"a": "first"}, checks=("true",))], run=start_second)
    second[0].communicate(timeout=30)
    assert second[0].returncode == 0
    assert (dest / "a").read_text() == "second"
    assert contents(tmp_path / ".demo.ringmain-previous") == {"a": b"first"}
