# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What commands and files of a server say, read from texts as they print them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import node_state
from ansible_collections.ringmain.voip.plugins.module_utils.dispatcher import parse

UNITS = """\
MainPID=9729
NRestarts=2
Id=kamailio.service
LoadState=loaded
ActiveState=active
ActiveEnterTimestamp=Sat 2026-11-21 21:12:20 UTC

MainPID=0
NRestarts=0
Id=keepalived.service
LoadState=not-found
ActiveState=inactive
ActiveEnterTimestamp=
"""


def test_each_daemon_once() -> None:
    found = [each.unit for each in node_state.services(["edge", "pbx", "database"], "mariadb")]
    assert found.count("haproxy") == 1
    assert {"kamailio", "asterisk", "mariadb"} <= set(found)
    assert "patroni" in [each.unit for each in node_state.services(["database"], "postgresql")]
    assert node_state.services(["storage"], "mariadb") == []


def test_daemons_are_described() -> None:
    units = node_state.parse_units(UNITS)
    versions = node_state.parse_versions("ii  kamailio 6.0.1-1\nrc  keepalived 2.3\n\nii  odd\n")
    wanted = [
        node_state.Service("kamailio", "kamailio", "kamailio"),
        node_state.Service("keepalived", "keepalived", "keepalived"),
        node_state.Service("absent"),
    ]
    found = node_state.describe_services(wanted, units, versions, ["kamailio"], ["keepalived"])
    assert found[0] == {
        "name": "kamailio",
        "state": "active",
        "since": "Sat 2026-11-21 21:12:20 UTC",
        "restarts": 2,
        "version": "6.0.1-1",
        "waits_for_package": True,
        "waits_for_configuration": False,
    }
    assert [(each["state"], each["version"]) for each in found[1:]] == [("not installed", "")] * 2
    assert [each["waits_for_configuration"] for each in found] == [False, True, False]


def test_a_program_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    program = tmp_path / "sleep"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "60"]) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        try:
            # The child is this very program once its own code is mapped.
            while str(program) not in maps.read_text():
                assert process.poll() is None
            assert node_state.runs_replaced_code(maps.read_text()) is False
            program.rename(tmp_path / "old")
            (tmp_path / "old").unlink()
            assert node_state.runs_replaced_code(maps.read_text()) is True
        finally:
            process.kill()


@pytest.mark.parametrize(
    "line",
    [
        "7fc82c965000-7fc82f965000 rw-s 00000000 00:01 18595   /dev/zero (deleted)",
        "7fc82c965000-7fc82f965000 r-xp 00000000 00:01 18595   /memfd:pcre (deleted)",
        "7fc82c965000-7fc82f965000 rw-p 00000000 00:01 18595   /usr/lib/x.so (deleted)",
        "7fc82c965000-7fc82f965000 r-xp 00000000 00:01 18595   /usr/lib/x.so",
        "7fc82c965000-7fc82f965000 r-xp 00000000 00:00 0",
    ],
)
def test_other_memory_is_not_taken_for_it(line: str) -> None:
    assert node_state.runs_replaced_code(line + "\n") is False


def test_a_list_is_described_with_what_the_process_makes_of_it() -> None:
    listed = parse(
        "1 sip:192.0.2.1:5080 4 0 duid=a;drain=upgrade:run7\n1 sip:192.0.2.2:5080\n"
        "2 sip:192.0.2.1:2223 36 0 duid=a\n"
    )
    dest = {"URI": "sip:192.0.2.1:5080", "FLAGS": "DX"}
    answer = {"RECORDS": [{"SET": {"ID": 1, "TARGETS": [{"DEST": dest}]}}]}
    found = node_state.describe_destinations(listed, node_state.process_flags(answer))
    assert [(each["set"], each["name"], each["state"], each["drain"]) for each in found] == [
        (1, "a", "DX", "upgrade:run7"),
        (1, "sip:192.0.2.2:5080", "", None),
        (2, "a", "", ""),
    ]
    assert node_state.process_flags(None) == {}


def test_a_relay_that_an_edge_hears_nothing_of_is_away() -> None:
    listed = parse("1 sip:192.0.2.1:5080 0 0 number=2001\n2 sip:192.0.2.1:2223 32 0 number=2001\n")
    dump = [{"entry": 1, "size": 1, "slot": [{"name": "2001", "value": 1, "type": "int"}]}]
    silent = node_state.silent_relays(dump)
    assert silent == {"2001"}
    found = node_state.describe_destinations(listed, {}, silent)
    assert [each["state"] for each in found] == ["", node_state.AWAY]
    assert node_state.silent_relays(None) == set()
