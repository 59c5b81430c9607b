# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decide how the members of a Galera cluster start. Pure functions on plain data.

Three moments ask for a decision, and each has its own function:

* a deployment (``deploy_action``): may this member create the cluster, or join it?
* a start of ``mariadbd`` (``boot_action``), at boot or at any other time: is there a cluster to
  join, and if not, who may bring it back?
* an operator's word (``recovery``), where the members alone wait for one that will not come back:
  who may bring the cluster back without it?

The file uses the standard library alone and imports nothing from the collection, because the role
``galera`` also puts it on the database hosts, where the start helper runs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

NO_UUID = "00000000-0000-0000-0000-000000000000"

#: Phases of a member as its agent reports them.
PRIMARY = "primary"  # mariadbd answers and belongs to the primary component
NON_PRIMARY = "non-primary"  # mariadbd answers but has no quorum
WAITING = "waiting"  # the start helper waits for a decision; the position cannot change
STARTING = "starting"  # the start helper has let mariadbd go, which does not answer yet
BOOTSTRAPPING = "bootstrapping"  # the same, as the first member of the returning cluster
STOPPED = "stopped"  # nobody tries to start mariadbd
SILENT = "silent"  # mariadbd runs but does not answer


@dataclass(frozen=True)
class View:
    """The last primary view a member belonged to (the file ``gvwstate.dat``)."""

    identity: str
    sequence: int
    my_uuid: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Member:
    """What is known of one member.

    ``uuid`` and ``seqno`` are the recovered position (``NO_UUID``: never part of a cluster);
    ``seqno`` -1 means unknown. ``view`` is None after an orderly stop. ``room`` says whether its
    disk has room for what comes.
    """

    phase: str = STOPPED
    uuid: str = NO_UUID
    seqno: int = -1
    safe_to_bootstrap: bool = False
    view: View | None = None
    synced: bool = False
    running: bool = False
    room: bool = True

    @property
    def virgin(self) -> bool:
        """Whether the member has never been part of a cluster."""
        return self.uuid == NO_UUID

    @property
    def frozen(self) -> bool:
        """Whether the position is final until a decision falls."""
        return self.phase == WAITING


@dataclass(frozen=True)
class Action:
    """A decision and the reason, in words for the operator."""

    action: str
    reason: str
    waiting_for: tuple[str, ...] = field(default=())


def parse_grastate(text: str) -> dict[str, Any]:
    """Read ``grastate.dat``; anything unreadable counts as "never part of a cluster".

    Returns ``{"uuid": str, "seqno": int, "safe_to_bootstrap": bool}``.
    """
    values = {
        key.strip(): value.strip()
        for key, separator, value in (line.partition(":") for line in text.splitlines())
        if separator and not key.startswith("#")
    }
    try:
        seqno = int(values.get("seqno", "-1"))
    except ValueError:
        seqno = -1
    return {
        "uuid": values.get("uuid") or NO_UUID,
        "seqno": seqno,
        "safe_to_bootstrap": values.get("safe_to_bootstrap") == "1",
    }


def allow_bootstrap(text: str) -> str:
    """Return the text of ``grastate.dat`` with ``safe_to_bootstrap: 1``."""
    lines = [line for line in text.splitlines() if not line.startswith("safe_to_bootstrap")]
    return "\n".join([*lines, "safe_to_bootstrap: 1"]) + "\n"


def parse_view(text: str) -> View | None:
    """Read ``gvwstate.dat``; None when it is empty, cut off or not a primary view.

    A power cut can leave the file empty: such a file proves nothing.
    """
    identity, my_uuid, sequence = "", "", -1
    members: list[str] = []
    complete = False
    for line in text.splitlines():
        words = line.split()
        if line.startswith("my_uuid:") and len(words) == 2:
            my_uuid = words[1]
        elif line.startswith("view_id:") and len(words) == 4 and words[1] == "3":
            identity = " ".join(words[1:])
            sequence = int(words[3]) if words[3].isdigit() else -1
        elif line.startswith("member:") and len(words) >= 2:
            members.append(words[1])
        elif line.startswith("#vwend"):
            complete = True
    if not (complete and identity and sequence >= 0 and my_uuid in members):
        return None
    return View(identity, sequence, my_uuid, tuple(sorted(members)))


def parse_position(text: str) -> tuple[str, int] | None:
    """Find ``uuid:seqno`` in what ``galera_recovery`` printed; None when there is none.

    With ``wsrep_gtid_mode`` the server's own number of the transaction follows, after a comma.
    """
    value = text.strip().rpartition("=")[2].strip("'\" \n").partition(",")[0]
    uuid, separator, seqno = value.rpartition(":")
    if not separator or len(uuid) != 36:
        return None
    try:
        return uuid, int(seqno)
    except ValueError:
        return None


def member_to_dict(member: Member) -> dict[str, Any]:
    """Return plain data for JSON."""
    return asdict(member)


def member_from_dict(data: Mapping[str, Any]) -> Member:
    """Read what ``member_to_dict`` wrote; raises ValueError for anything else."""
    try:
        raw = data.get("view")
        view = None
        if raw is not None:
            view = View(
                identity=str(raw["identity"]),
                sequence=int(raw["sequence"]),
                my_uuid=str(raw["my_uuid"]),
                members=tuple(str(uuid) for uuid in raw["members"]),
            )
        return Member(
            phase=str(data["phase"]),
            uuid=str(data["uuid"]),
            seqno=int(data["seqno"]),
            safe_to_bootstrap=bool(data["safe_to_bootstrap"]),
            view=view,
            synced=bool(data.get("synced", False)),
            running=bool(data.get("running", False)),
            room=bool(data.get("room", True)),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a member's state: {error!r}") from error


def usable(status: Mapping[str, str]) -> tuple[bool, str]:
    """Decide from a server's wsrep status whether it may take work, and say why (not).

    ``status`` holds lower-case names of status variables.
    """
    if status.get("wsrep_cluster_status") != "Primary":
        return False, f"cluster status is {status.get('wsrep_cluster_status', 'unknown')}"
    if status.get("wsrep_ready") != "ON":
        return False, "wsrep is not ready"
    comment = status.get("wsrep_local_state_comment", "unknown")
    if comment == "Synced":
        return True, "Synced"
    # The donor of a cluster of two serves the only other member, which is not usable yet.
    # mariadb-backup does not block it, and without it there would be no database at all.
    if comment == "Donor/Desynced" and status.get("wsrep_cluster_size") in ("1", "2"):
        return True, "donor, and the only member that can work"
    return False, f"local state is {comment}"


def makes_way(me: str, order: Sequence[str], states: Mapping[str, Member | None]) -> bool:
    """Decide whether a running member that has no room left must go.

    MariaDB waits for room in the middle of a commit, and Galera's flow control has all members wait
    with it: nobody writes any more. Without this member the others go on. It stays where they would
    have no majority, or no more room themselves.
    """
    mine = states.get(me)
    if mine is None or mine.room:
        return False
    able = [
        name
        for name in order
        if name != me
        and (state := states.get(name)) is not None
        and state.phase == PRIMARY
        and state.synced
        and state.room
    ]
    return 2 * len(able) > len(order)


def _foreign(mine: Member, known: Mapping[str, Member]) -> list[str]:
    """Name the members that hold another cluster's data; a new member holds nobody's.

    Galera would let a member join any cluster, and overwrite what it holds.
    """
    return sorted(
        name
        for name, state in known.items()
        if not mine.virgin and not state.virgin and state.uuid and state.uuid != mine.uuid
    )


def _complete_view(known: Mapping[str, Member]) -> View | None:
    """Return the newest view all of whose members are here and remember just this view."""
    present: dict[str, set[str]] = {}
    views: dict[str, View] = {}
    for member in known.values():
        if member.view is not None and member.phase in (WAITING, STARTING, NON_PRIMARY):
            present.setdefault(member.view.identity, set()).add(member.view.my_uuid)
            views[member.view.identity] = member.view
    complete = [view for identity, view in views.items() if set(view.members) <= present[identity]]
    return max(complete, key=lambda view: view.sequence, default=None)


def _most_advanced(known: Mapping[str, Member], order: Sequence[str]) -> str:
    """Name the member with the highest position; the first in ``order`` among equals."""
    return max(order, key=lambda name: (known[name].seqno, -order.index(name)))


def _join(
    me: str, order: Sequence[str], known: Mapping[str, Member], primaries: Sequence[str]
) -> Action:
    """Decide whether it is this member's turn to join the cluster that is there.

    One at a time: a member that joins while another one is still receiving its state can be given
    that one as donor, miss the last write-sets, and stay outside until somebody restarts it.
    """
    joining = [
        name
        for name, state in known.items()
        if name != me and state.phase in (STARTING, BOOTSTRAPPING)
    ]
    if joining:
        return Action("wait", f"{joining[0]} is joining the cluster")
    synced = [name for name in primaries if known[name].synced]
    if not synced:
        return Action("wait", f"{primaries[0]} is in the primary component, but not synced")
    before = [
        name
        for name in order[: order.index(me)]
        if name in known and known[name].phase == WAITING and known[name].room
    ]
    if before:
        return Action("wait", f"{before[0]} joins the cluster first")
    return Action("join", f"{synced[0]} is in the primary component")


def boot_action(me: str, order: Sequence[str], states: Mapping[str, Member | None]) -> Action:
    """Decide what ``mariadbd`` of member ``me`` does now.

    ``order`` lists all members of the cluster, ``states`` what each says of itself (None: no
    answer). Every member computes this from the same data, so two never choose differently, and
    a chosen position cannot be overtaken: whoever waits writes nothing.

    Actions: ``join`` (a primary component answers), ``recover`` (start; Galera restores the last
    view), ``bootstrap`` (start as the first member), ``wait``.
    """
    mine = states.get(me)
    if mine is None:
        raise ValueError(f"the state of {me} itself is unknown")
    known = {name: state for name in order if (state := states.get(name)) is not None}
    missing = tuple(name for name in order if name not in known)

    primaries = [name for name, state in known.items() if state.phase == PRIMARY and name != me]
    foreign = _foreign(mine, {name: known[name] for name in primaries} or known)
    if primaries and not foreign and not mine.room:
        return Action("wait", "its disk has too little room to join: make some in /var/lib/mysql")
    if primaries and not foreign:
        return _join(me, order, known, primaries)
    if mine.virgin:
        return Action(
            "wait",
            "this member has never been part of the cluster: it joins when "
            "another one is in the primary component",
            missing,
        )
    if foreign:
        return Action(
            "wait",
            f"{', '.join(foreign)} holds another cluster's data than this "
            "member: an operator has to decide which is right",
        )
    bootstrapping = [name for name, state in known.items() if state.phase == BOOTSTRAPPING]
    if bootstrapping:
        return Action("wait", f"{bootstrapping[0]} is bringing the cluster back")

    # Half of the members may be anywhere; with more than half here, no second cluster can form.
    if 2 * len(known) <= len(order):
        return Action("wait", "less than a majority of the members answers", missing)

    # Orderly stop of all: Galera marked the last one. It stands above all or is not trusted.
    marked = [
        name for name, state in known.items() if state.safe_to_bootstrap and state.phase == WAITING
    ]
    ahead = [
        name
        for name, state in known.items()
        if len(marked) == 1 and state.seqno > known[marked[0]].seqno
    ]
    if len(marked) == 1 and not ahead:
        if marked[0] == me:
            return Action("bootstrap", "this member was the last to stop (safe_to_bootstrap)")
        return Action("wait", f"{marked[0]} was the last to stop and will bring the cluster back")

    # Power cut: Galera restores the last primary view once all of its members are back.
    view = _complete_view(known)
    if view is not None:
        if mine.view is not None and mine.view.identity == view.identity:
            return Action("recover", "all members of the last primary view are back")
        return Action("wait", "the members of the last primary view are bringing the cluster back")
    alive = [name for name, state in known.items() if state.phase == NON_PRIMARY and name != me]
    if alive:
        if mine.view is not None:
            return Action("recover", f"{alive[0]} still runs without quorum: Galera counts again")
        return Action(
            "wait", f"{alive[0]} runs without quorum and waits for the members it lost", missing
        )

    # No mark, no whole view (all stopped in one moment, or a state file lost): with every member
    # here, none running, the most advanced holds all that was ever acknowledged.
    if missing:
        return Action(
            "wait", "not all members answer, and one of them may hold newer data", missing
        )
    moving = tuple(name for name in order if not known[name].frozen)
    if moving:
        return Action("wait", "not all members are waiting to start", moving)
    chosen = _most_advanced(known, order)
    if chosen == me:
        return Action("bootstrap", "all members are here and none is ahead of this one")
    return Action(
        "wait", f"{chosen} has the most advanced position and will bring the cluster back"
    )


def deploy_action(me: str, order: Sequence[str], states: Mapping[str, Member | None]) -> Action:
    """Decide what a deployment does with member ``me``.

    A cluster is created exactly once: by the first member, when every member answers, none has
    ever been part of a cluster, and none is running. Whatever was part of a cluster is only ever
    *started*; who may bring a stopped cluster back is then decided by ``boot_action``.

    Actions: ``bootstrap``, ``join``, ``start``, ``nothing``, ``refuse``.
    """
    mine = states.get(me)
    if mine is None:
        return Action("refuse", f"the state of {me} could not be read")
    others = {
        name: state for name in order if name != me and (state := states.get(name)) is not None
    }
    missing = tuple(name for name in order if name != me and name not in others)

    if mine.running and mine.virgin:
        return Action(
            "refuse",
            f"mariadbd runs on {me} outside of any cluster: save what it "
            "holds, stop it (systemctl stop mariadb) and run this play again",
        )
    if mine.running:
        return Action("nothing", "mariadbd is running")
    primaries = {name: state for name, state in others.items() if state.phase == PRIMARY}
    foreign = _foreign(mine, primaries or others)
    if foreign:
        return Action(
            "refuse",
            f"it holds the data of cluster {mine.uuid}, but {', '.join(foreign)} that of "
            f"{others[foreign[0]].uuid}: if this member's are not wanted, stop mariadb on it, move "
            "/var/lib/mysql away and run this play again",
        )
    if primaries:
        return Action("join" if mine.virgin else "start", "the cluster is up")
    veterans = [name for name, state in others.items() if not state.virgin]
    if not mine.virgin or veterans:
        return Action(
            "start",
            "the cluster exists and is down: its members decide among "
            "themselves who brings it back",
        )
    if missing:
        return Action(
            "refuse",
            f"no cluster is known here, but {', '.join(missing)} could not be "
            "asked and may hold one: run this play with all members reachable",
        )
    strangers = [name for name, state in others.items() if state.running]
    if strangers:
        return Action("refuse", f"mariadbd runs on {', '.join(strangers)} outside of any cluster")
    if me == order[0]:
        return Action("bootstrap", "no member has ever been part of a cluster")
    return Action("join", f"{order[0]} creates the cluster")


def recovery(
    order: Sequence[str],
    states: Mapping[str, Member | None],
    without: Sequence[str] = (),
    chosen: str = "",
) -> Action:
    """Decide which member brings a stopped cluster back on an operator's word.

    ``states`` holds what each member in ``order`` says of itself once it waits to start (None: no
    answer), ``without`` the members that the operator gives up for this, ``chosen`` the one whose
    data the operator prefers where the members disagree.

    Returns action ``bootstrap`` with the member in ``waiting_for``, or ``refuse`` with what has to
    be done first. The most advanced member leads; among equals the one that Galera marked as the
    last to stop, then the first in ``order``.
    """

    def refuse(reason: str) -> Action:
        return Action("refuse", reason)

    strangers = [name for name in (*without, *filter(None, [chosen])) if name not in order]
    if strangers:
        return refuse(
            f"{', '.join(strangers)} is no member of this cluster: {', '.join(order)} are"
        )
    known = {
        name: state
        for name in order
        if name not in without and (state := states.get(name)) is not None
    }
    busy = running(known)
    if busy:
        return refuse(busy)
    missing = [name for name in order if name not in known and name not in without]
    if missing:
        return refuse(
            f"{', '.join(missing)} does not answer and may hold newer data: bring it back, or give "
            f"up what only it knows with recover_without={','.join([*without, *missing])}"
        )
    moving = [name for name, state in known.items() if not state.frozen]
    if moving:
        return refuse(
            f"{', '.join(moving)} does not wait to start: journalctl -u mariadb there says why"
        )
    veterans = {name: state for name, state in known.items() if not state.virgin}
    if chosen:
        veterans = {name: state for name, state in veterans.items() if name == chosen}
    if not veterans:
        return refuse(
            f"{chosen} holds no data of a cluster: choose another one"
            if chosen
            else "no member that is left holds data of a cluster: site.yml creates one"
        )
    if len({state.uuid for state in veterans.values()}) > 1:
        held = ", ".join(f"{name} that of {state.uuid}" for name, state in veterans.items())
        return refuse(
            f"the members hold data of different clusters ({held}): look which is right, and say "
            "so with recover_from=NAME"
        )
    unknown = [name for name, state in veterans.items() if state.seqno < 0]
    if unknown:
        return refuse(
            f"the position of {', '.join(unknown)} cannot be recovered (journalctl -u mariadb "
            "there says why): name the member to trust with recover_from=NAME, or leave it out "
            f"with recover_without={','.join([*without, *unknown])}"
        )
    highest = max(state.seqno for state in veterans.values())
    equals = [name for name, state in veterans.items() if state.seqno == highest]
    marked = [name for name in equals if veterans[name].safe_to_bootstrap]
    leader = (marked or equals)[0]
    if chosen:
        reason = f"an operator chose it; its position is {highest}"
    elif len(equals) < len(veterans):
        reason = f"its position {highest} is the most advanced"
    elif len(marked) == 1:
        reason = f"all positions are {highest}, and it was the last to stop"
    else:
        reason = f"all positions are {highest}, and it is the first of them"
    return Action("bootstrap", reason, (leader,))


def running(known: Mapping[str, Member]) -> str:
    """Say why there is nothing to recover, if a member runs."""
    for name, state in known.items():
        if state.phase == PRIMARY:
            return (
                f"the cluster is up: {name} is in its primary component. A member outside of it "
                "joins when it is started (systemctl restart mariadb)"
            )
    parts = [name for name, state in known.items() if state.running]
    parts += [
        name for name, state in known.items() if state.phase in (STARTING, BOOTSTRAPPING, SILENT)
    ]
    if parts:
        return (
            f"mariadbd runs on {', '.join(dict.fromkeys(parts))} without being part of a cluster: "
            "its position can still change. Stop it (systemctl stop mariadb) and start again"
        )
    return ""


def order_text(member: Member) -> str:
    """An order to bootstrap, which counts for this position of the member and no other."""
    return f"{member.uuid}:{member.seqno}\n"
