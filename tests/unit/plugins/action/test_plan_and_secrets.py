# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Role ringmain and the playbook secrets, run on inventories of which no host can be reached."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Play

PLAN = "Check all inputs and make the plan"
SECRETS = "Secrets | Make what is missing"
SHOW = {"name": "Show", "ansible.builtin.debug": {"msg": "{{ ringmain_plan }}"}}
SHOW_SECRETS = {"name": "Secrets", "ansible.builtin.debug": {"msg": "{{ ringmain_secrets }}"}}
SITE = {"hosts": "all", "connection": "ssh", "roles": ["ringmain.voip.ringmain"], "tasks": [SHOW]}


class Inventory:
    """A copy of the inventory for small clusters, whose servers do not exist."""

    def __init__(self, root: Path, path: Path) -> None:
        self.path = path
        self.hosts = yaml.safe_load((root / "inventories/small/hosts.yml").read_text())
        shipped = root / "inventories/small/group_vars/all/cluster.yml"
        self.cluster = yaml.safe_load(shipped.read_text())
        self.secrets = path / "group_vars" / "all" / "ringmain_secrets.yml"

    def write(self) -> str:
        """Write it; gives its path for -i."""
        directory = self.path / "group_vars" / "all"
        directory.mkdir(parents=True, exist_ok=True)
        (self.path / "hosts.yml").write_text(yaml.safe_dump(self.hosts))
        (directory / "cluster.yml").write_text(yaml.safe_dump(self.cluster))
        return str(self.path)

    def read_secrets(self) -> dict[str, Any]:
        """What the playbook wrote."""
        loaded: dict[str, Any] = yaml.safe_load(self.secrets.read_text())
        return dict(loaded["ringmain_secrets"])


@pytest.fixture
def inventory(root: Path, tmp_path: Path) -> Inventory:
    """One of the test's own."""
    return Inventory(root, tmp_path / "my-cluster")


def test_from_nothing_to_the_plan(play: Play, inventory: Inventory) -> None:
    """Missing secrets name the command; the command makes them; the plan is on every host."""
    path = inventory.write()
    failed = play(SITE, inventory=path)
    assert failed.code == 2
    assert failed.message(PLAN, "voice1") == (
        "One input needs correction; no server was touched.\n"
        "- ringmain_secrets is not there: make the passwords and keys with  "
        f"ansible-playbook -i {path} ringmain.voip.secrets"
    )
    made = play("secrets.yml", inventory=path)
    assert made.code == 0, made.text
    assert made.results[SECRETS]["voice1"]["changed"]
    assert made.results[SECRETS]["voice1"]["file"] == str(inventory.secrets)
    assert stat.S_IMODE(inventory.secrets.stat().st_mode) == 0o600
    secrets = inventory.read_secrets()
    assert secrets["ca_certificate"].startswith("-----BEGIN CERTIFICATE-----")
    for value in (*secrets["subscribers"].values(), secrets["edge_secret"], secrets["ca_key"]):
        assert value not in made.text
    done = play(SITE, inventory=path)
    assert done.code == 0, done.text
    plans = [done.results["Show"][host]["msg"] for host in ("voice1", "voice2", "voice3", "probe1")]
    assert all(plan == plans[0] for plan in plans)
    assert [member["name"] for member in plans[0]["members"]["pbx"]] == [
        "voice1",
        "voice2",
        "voice3",
    ]
    assert not any(value in done.text for value in secrets["subscribers"].values())
    limited = play(SITE, "--limit", "voice3", inventory=path)
    assert limited.results["Show"]["voice3"]["msg"] == plans[0]


def test_new_subscribers_get_passwords_and_old_ones_stay(play: Play, inventory: Inventory) -> None:
    path = inventory.write()
    assert play("secrets.yml", inventory=path).code == 0
    before = inventory.read_secrets()
    inventory.secrets.chmod(0o644)
    again = play("secrets.yml", inventory=path)
    assert (
        again.results[SECRETS]["voice1"]["changed"],
        again.results[SECRETS]["voice1"]["made"],
    ) == (
        True,
        [],
    )
    assert stat.S_IMODE(inventory.secrets.stat().st_mode) == 0o600
    assert not play("secrets.yml", inventory=path).results[SECRETS]["voice1"]["changed"]
    inventory.cluster["ringmain_subscribers"].append({"tenant": "acme", "extension": "1003"})
    inventory.write()
    would = play("secrets.yml", "--check", inventory=path)
    assert would.results[SECRETS]["voice1"]["made"] == ["subscribers.1003@acme"]
    assert inventory.read_secrets() == before
    assert play("secrets.yml", inventory=path).code == 0
    after = inventory.read_secrets()
    assert len(after["subscribers"].pop("1003@acme")) == 32
    assert after == before


def test_an_encrypted_file_is_completed_by_a_second_one(
    play: Play, inventory: Inventory, tmp_path: Path
) -> None:
    path = inventory.write()
    assert play("secrets.yml", inventory=path).code == 0
    before = inventory.read_secrets()
    (tmp_path / "vault").write_text("pass\n")
    vault = Path(sys.executable).with_name("ansible-vault")
    unlock = ["--vault-password-file", str(tmp_path / "vault")]
    subprocess.run([vault, "encrypt", *unlock, inventory.secrets], check=True, capture_output=True)
    encrypted = inventory.secrets.read_bytes()
    inventory.cluster["ringmain_subscribers"].append({"tenant": "acme", "extension": "1003"})
    inventory.write()
    made = play("secrets.yml", *unlock, inventory=path)
    assert made.code == 0, made.text
    assert inventory.secrets.read_bytes() == encrypted
    second = yaml.safe_load((inventory.secrets.parent / "ringmain_secrets_2.yml").read_text())
    assert list(second) == ["ringmain_secrets_2"]
    assert list(second["ringmain_secrets_2"]["subscribers"]) == ["1003@acme"]
    done = play({**SITE, "tasks": [SHOW_SECRETS]}, *unlock, inventory=path)
    assert done.code == 0, done.text
    for host in ("voice1", "voice3"):
        merged = done.results["Secrets"][host]["msg"]
        assert merged.pop("subscribers") == {
            **before["subscribers"],
            **second["ringmain_secrets_2"]["subscribers"],
        }
        assert merged == {key: value for key, value in before.items() if key != "subscribers"}


def test_every_mistake_is_reported_at_once_also_with_a_limit(
    play: Play, inventory: Inventory
) -> None:
    inventory.cluster["ringmain_outside_ip"] = "203.0.113.11"
    inventory.cluster["ringmain_peak_calls"] = 0
    inventory.cluster["ringmain_database_engine"] = "oracle"
    inventory.hosts["all"]["hosts"]["voice3"]["ringmain_address"] = "10.20.0.12"
    path = inventory.write()
    assert play("secrets.yml", inventory=path).code == 0
    done = play(SITE, "--limit", "voice2", inventory=path)
    assert done.code == 2
    assert done.message(PLAN, "voice2") == (
        "4 inputs need correction; no server was touched.\n"
        "- ringmain_outside_ip 203.0.113.11 is the address of host voice1: "
        "choose a free address, it floats between the edges\n"
        "- hosts voice2 and voice3 have the same address 10.20.0.12: "
        "correct ringmain_address or ringmain_outside_address of all but one\n"
        "- ringmain_peak_calls is 0: say how many calls at once the cluster must carry at its "
        "busiest, as a positive whole number\n"
        "- ringmain_database_engine is 'oracle': choose one of galera, postgresql"
    )


def test_two_clusters_in_one_inventory(play: Play, inventory: Inventory) -> None:
    """Each has a group of all its hosts, its own variables and its own secrets."""
    base = inventory.hosts["all"]["hosts"]
    east = {name.replace("voice", "east"): {**base[name]} for name in base}
    for host in east.values():
        host["ringmain_address"] = host["ringmain_address"].replace("10.20.0", "10.30.0")
        host["ringmain_outside_address"] = host["ringmain_outside_address"].replace("203", "192", 1)
    everyone = dict.fromkeys((*base, *east))
    functions = ("edge", "media", "pbx", "database", "storage")
    inventory.hosts = {
        "all": {
            "hosts": {**base, **east},
            "children": {
                **{function: {"hosts": everyone} for function in functions},
                "probes": {"hosts": {"probe1": None}},
                "west": {"hosts": {**dict.fromkeys(base), "probe1": None}},
                "east": {"hosts": dict.fromkeys(east)},
            },
        }
    }
    path = inventory.write()
    variables = inventory.path / "group_vars" / "east" / "cluster.yml"
    variables.parent.mkdir()
    variables.write_text(
        yaml.safe_dump(
            {
                "ringmain_domain": "east.example.com",
                "ringmain_inside_network": "10.30.0.0/24",
                "ringmain_inside_ip": "10.30.0.10",
                "ringmain_outside_network": "192.0.113.0/24",
                "ringmain_outside_ip": "192.0.113.10",
            }
        )
    )
    choose = ("-e", "ringmain_cluster=east")
    failed = play({**SITE, "hosts": "east"}, *choose, inventory=path)
    assert failed.message(PLAN, "east1") == (
        "One input needs correction; no server was touched.\n"
        "- ringmain_secrets is not there: make the passwords and keys with  "
        f"ansible-playbook -i {path} ringmain.voip.secrets -e ringmain_cluster=east"
    )
    made = play("secrets.yml", *choose, inventory=path)
    assert made.code == 0, made.text
    expected = inventory.path / "group_vars" / "east" / "ringmain_secrets.yml"
    assert made.results[SECRETS]["east1"]["file"] == str(expected)
    done = play({**SITE, "hosts": "east"}, *choose, inventory=path)
    assert done.code == 0, done.text
    plan = done.results["Show"]["east2"]["msg"]
    assert list(plan["hosts"]) == ["east1", "east2", "east3"]
    assert plan["domain"] == "east.example.com"
    assert plan["members"]["probes"] == []
    wrong = play(SITE, "-e", "ringmain_cluster=north", inventory=path)
    assert wrong.message(PLAN, "east1") == (
        "ringmain_cluster is 'north', which is no group of this inventory: "
        "name the group that holds all hosts of the cluster"
    )


def test_secrets_need_one_place_and_a_domain(play: Play, inventory: Inventory) -> None:
    play_secrets = {
        "hosts": "all",
        "tasks": [
            {
                "name": "Make",
                "ringmain.voip.secrets": {
                    "inputs": {"ringmain_domain": "{{ domain | default('') }}"}
                },
            }
        ],
    }
    nowhere = play(play_secrets, "-e", "domain=voice.example.com", inventory="a,")
    assert nowhere.message("Make", "a").endswith(
        "the hosts of the cluster are in no file, so there is no one place for its secrets: "
        "describe all of them in one inventory directory and give it with -i"
    )
    unset = play(play_secrets, inventory=inventory.write())
    assert "ringmain_domain is not set: describe the cluster in its inventory first" in (
        unset.message("Make", "voice1")
    )


ROTATED = "Rotate | Write the new state of the secrets"


def rotate(names: str, *show: str, state: str = "new") -> dict[str, Any]:
    """A play that rotates and then shows what the rest of the run would use."""
    variables = {"ringmain_rotate": names.split(","), "ringmain_rotate_state": state}
    role = {"name": "ringmain.voip.ringmain", "tasks_from": "rotate", "rolespec_validate": False}
    tasks: list[dict[str, Any]] = [{"ansible.builtin.import_role": role, "vars": variables}]
    if show:
        # As in site.yml, which follows.
        tasks += [{"ansible.builtin.import_role": {"name": "ringmain.voip.ringmain"}}, SHOW_SECRETS]
    return {"hosts": "all", "connection": "ssh", "tasks": tasks}


def test_a_database_password_is_changed_in_two_steps(play: Play, inventory: Inventory) -> None:
    """The value before stays known until it is forgotten, and a second start makes no third one."""
    path = inventory.write()
    assert play("secrets.yml", inventory=path).code == 0
    before = inventory.read_secrets()
    would = play(rotate("all"), "--check", inventory=path)
    assert would.code == 0, would.text
    assert inventory.read_secrets() == before
    done = play(rotate("database_edge_password", "show"), inventory=path)
    assert done.code == 0, done.text
    after = inventory.read_secrets()
    new, old = after["database_edge_password"], before["database_edge_password"]
    assert len(new) == 32
    assert new != old
    assert after == {
        **before,
        "database_edge_password": new,
        "previous": {"database_edge_password": old},
    }
    assert stat.S_IMODE(inventory.secrets.stat().st_mode) == 0o600
    assert done.results["Secrets"]["voice2"]["msg"] == after
    assert done.results[ROTATED]["voice1"]["names"] == ["database_edge_password"]
    again = play(rotate("all"), inventory=path)
    assert again.results[ROTATED]["voice1"]["changed"] is False
    assert again.results[ROTATED]["voice1"]["unfinished"] == ["database_edge_password"]
    assert new not in again.text
    assert old not in again.text
    assert inventory.read_secrets() == after
    ended = play(rotate("", state="forgotten"), inventory=path)
    assert ended.code == 0, ended.text
    last = inventory.read_secrets()
    assert last.pop("previous") == {"database_edge_password": ""}
    assert last == {**before, "database_edge_password": new}


def test_an_encrypted_file_is_overruled_by_a_second_one(
    play: Play, inventory: Inventory, tmp_path: Path
) -> None:
    path = inventory.write()
    assert play("secrets.yml", inventory=path).code == 0
    before = inventory.read_secrets()
    (tmp_path / "vault").write_text("pass\n")
    vault = Path(sys.executable).with_name("ansible-vault")
    unlock = ["--vault-password-file", str(tmp_path / "vault")]
    subprocess.run([vault, "encrypt", *unlock, inventory.secrets], check=True, capture_output=True)
    encrypted = inventory.secrets.read_bytes()
    done = play(rotate("subscribers.901@verify", "show"), *unlock, inventory=path)
    assert done.code == 0, done.text
    assert inventory.secrets.read_bytes() == encrypted
    second = yaml.safe_load((inventory.secrets.parent / "ringmain_secrets_2.yml").read_text())
    made = second["ringmain_secrets_2"]["subscribers"]
    assert list(made) == ["901@verify"]
    shown = done.results["Secrets"]["voice3"]["msg"]
    assert shown["subscribers"] == {**before["subscribers"], **made}
    assert shown["ca_key"] == before["ca_key"]


def test_what_cannot_be_changed_is_refused(play: Play, inventory: Inventory) -> None:
    path = inventory.write()
    early = play(rotate("all"), inventory=path)
    assert early.code == 2
    assert play("secrets.yml", inventory=path).code == 0
    before = inventory.read_secrets()
    refused = play(rotate("edge_secret"), inventory=path)
    assert refused.code == 2
    assert "edge_secret stays as it is: phones could not end their calls" in refused.text
    assert inventory.read_secrets() == before
