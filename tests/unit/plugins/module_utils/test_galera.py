# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who creates a cluster, who joins, who brings it back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import galera
from ansible_collections.ringmain.voip.plugins.module_utils.galera import Member, View

ORDER = ["a", "b", "c"]
CLUSTER = "573d421e-e57b-11f1-84ac-7218251964fd"
OTHER = "99999999-e57b-11f1-84ac-7218251964fd"
NODES = {name: f"{name * 8}-0000-11f1-8000-000000000000" for name in ORDER}

NEW = Member(phase=galera.WAITING)
WAITS = Member(phase=galera.WAITING, uuid=CLUSTER, seqno=100)
UP = Member(phase=galera.PRIMARY, uuid=CLUSTER, synced=True, running=True)
LAST = replace(WAITS, safe_to_bootstrap=True)
STOPPED = Member()


def cut(name: str, members: str, sequence: int = 5, seqno: int = 100) -> Member:
    """A member that lost power in the view of these members."""
    view = View(f"3 x {sequence}", sequence, NODES[name], tuple(NODES[m] for m in members))
    return Member(phase=galera.WAITING, uuid=CLUSTER, seqno=seqno, view=view)


def boot(me: str, a: Member | None, b: Member | None, c: Member | None) -> galera.Action:
    return galera.boot_action(me, ORDER, {"a": a, "b": b, "c": c})


def everyone(a: Member, b: Member, c: Member) -> list[str]:
    return [boot(name, a, b, c).action for name in ORDER]


def test_a_member_joins_a_cluster_that_is_up() -> None:
    assert boot("a", WAITS, UP, None).action == "join"
    assert boot("a", NEW, UP, UP).action == "join"
    assert boot("a", cut("a", "abc"), UP, UP).action == "join"
    # Even the one that stopped last: somebody brought the cluster back without it.
    assert boot("a", LAST, UP, None).action == "join"


def test_members_join_one_at_a_time_in_order() -> None:
    assert everyone(UP, WAITS, WAITS)[1:] == ["join", "wait"]
    starting = replace(WAITS, phase=galera.STARTING)
    assert boot("c", UP, starting, WAITS).reason == "b is joining the cluster"
    # Both said so at the same moment: both step back, and the order decides.
    assert boot("b", UP, starting, starting).action == "wait"
    assert boot("c", UP, starting, starting).action == "wait"
    # A member that answers but is not synced gives nothing.
    assert boot("c", replace(UP, synced=False), None, WAITS).action == "wait"


def test_a_member_without_room_does_not_join() -> None:
    full = replace(WAITS, room=False)
    action = boot("b", UP, full, WAITS)
    assert action.action == "wait"
    assert "too little room" in action.reason
    # It holds up nobody.
    assert boot("c", UP, full, WAITS).action == "join"
    # Without a cluster that goes on meanwhile, a little room is better than no database.
    assert boot("a", replace(LAST, room=False), WAITS, WAITS).action == "bootstrap"


FULL = replace(UP, room=False)


@pytest.mark.parametrize(
    ("b", "c", "goes"),
    [
        (UP, UP, True),
        (UP, None, False),
        (UP, Member(phase=galera.NON_PRIMARY, running=True), False),
        # Nobody can go on without it, or all would go.
        (UP, FULL, False),
        (FULL, FULL, False),
    ],
)
def test_a_member_without_room_goes_where_the_others_can_go_on(
    b: Member | None, c: Member | None, goes: bool
) -> None:
    assert galera.makes_way("a", ORDER, {"a": FULL, "b": b, "c": c}) is goes
    assert not galera.makes_way("a", ORDER, {"a": UP, "b": b, "c": c})
    # It may hang, and its own state be unknown to the others: what counts is that it has no room.
    hangs = Member(running=True, room=False)
    assert galera.makes_way("a", ORDER, {"a": hangs, "b": b, "c": c}) is goes


def test_a_new_member_never_creates_a_cluster_by_itself() -> None:
    assert everyone(NEW, NEW, NEW) == ["wait"] * 3
    assert boot("a", NEW, WAITS, WAITS).action == "wait"
    assert boot("a", NEW, None, None).waiting_for == ("b", "c")


def test_the_last_to_stop_brings_the_cluster_back() -> None:
    assert everyone(WAITS, LAST, WAITS) == ["wait", "bootstrap", "wait"]
    # A majority is enough, also when the others have not started yet.
    assert boot("b", None, LAST, WAITS).action == "bootstrap"
    assert boot("b", STOPPED, LAST, None).action == "bootstrap"


def test_the_last_to_stop_alone_waits() -> None:
    action = boot("b", None, LAST, None)
    assert (action.action, action.waiting_for) == ("wait", ("a", "c"))


def test_a_mark_that_others_contradict_counts_for_nothing() -> None:
    # An older copy of the disk, for example.
    ahead = replace(WAITS, seqno=101)
    assert boot("b", None, LAST, ahead).action == "wait"
    assert everyone(WAITS, LAST, ahead) == ["wait", "wait", "bootstrap"]
    # Two marks: only the positions count, and only with everyone there.
    assert boot("b", None, LAST, LAST).action == "wait"
    assert everyone(WAITS, LAST, LAST) == ["bootstrap", "wait", "wait"]


def test_after_a_power_cut_the_last_view_recovers_when_it_is_whole() -> None:
    whole = [cut(name, "abc") for name in ORDER]
    assert everyone(*whole) == ["recover"] * 3
    assert boot("a", whole[0], whole[1], None).action == "wait"
    # Who has been let go already still counts.
    going = replace(whole[2], phase=galera.STARTING)
    assert boot("a", whole[0], whole[1], going).action == "recover"


def test_only_the_newest_view_recovers() -> None:
    # a lost power first, b and c went on and lost it later.
    states = (cut("a", "abc", 5), cut("b", "bc", 6, 120), cut("c", "bc", 6, 120))
    assert everyone(*states) == ["wait", "recover", "recover"]
    assert boot("b", states[0], states[1], None).action == "wait"
    # a may not take the lead with b while c, who knows more, is away.
    assert boot("a", states[0], states[1], None).action == "wait"


def test_a_view_of_one_needs_a_majority_too() -> None:
    alone = cut("a", "a", 9)
    assert boot("a", alone, None, None).action == "wait"
    assert boot("a", alone, WAITS, None).action == "recover"
    assert boot("b", alone, WAITS, None).action == "wait"


def test_a_member_that_stopped_in_order_waits_for_the_view() -> None:
    states = (replace(WAITS, seqno=50), cut("b", "bc"), cut("c", "bc"))
    assert everyone(*states) == ["wait", "recover", "recover"]


def test_without_mark_and_view_the_most_advanced_of_all_leads() -> None:
    assert everyone(WAITS, replace(WAITS, seqno=102), replace(WAITS, seqno=101)) == [
        "wait",
        "bootstrap",
        "wait",
    ]
    assert everyone(WAITS, WAITS, WAITS) == ["bootstrap", "wait", "wait"]
    # A view with a hole (an empty state file after the power cut) is no view.
    hole = (cut("a", "abc"), replace(WAITS, seqno=101), cut("c", "abc"))
    assert everyone(*hole) == ["wait", "bootstrap", "wait"]


@pytest.mark.parametrize("third", [None, STOPPED, Member(phase=galera.SILENT, running=True)])
def test_without_mark_and_view_nobody_leads_while_one_is_away(third: Member | None) -> None:
    assert boot("a", WAITS, WAITS, third).action == "wait"
    assert boot("b", WAITS, WAITS, third).action == "wait"


def test_a_member_without_quorum_gets_it_back() -> None:
    alone = replace(cut("a", "abc"), phase=galera.NON_PRIMARY, running=True)
    assert boot("b", alone, cut("b", "abc"), None).action == "recover"
    assert boot("b", alone, WAITS, None).action == "wait"


def test_another_clusters_data_stops_everything() -> None:
    action = boot("a", WAITS, replace(LAST, uuid=OTHER), WAITS)
    assert action.action == "wait"
    assert action.reason.startswith("b holds another cluster's data")


def test_somebody_else_is_bootstrapping() -> None:
    assert boot("a", LAST, replace(WAITS, phase=galera.BOOTSTRAPPING), None).action == "wait"


def test_the_own_state_has_to_be_known() -> None:
    with pytest.raises(ValueError, match="the state of a itself is unknown"):
        boot("a", None, UP, UP)


PAST_STATES = [None, STOPPED, NEW, WAITS, replace(WAITS, seqno=101), LAST]


@pytest.mark.parametrize("a", [*PAST_STATES, cut("a", "abc"), cut("a", "a", 9)])
@pytest.mark.parametrize("b", [*PAST_STATES, cut("b", "abc"), cut("b", "bc", 6)])
@pytest.mark.parametrize("c", [*PAST_STATES, cut("c", "abc"), cut("c", "bc", 6)])
def test_two_never_lead(a: Member | None, b: Member | None, c: Member | None) -> None:
    """Whoever starts without a cluster to join is one member, or members of one view."""
    states = {"a": a, "b": b, "c": c}
    leads = [
        (name, galera.boot_action(name, ORDER, states).action)
        for name in ORDER
        if (state := states[name]) is not None and state.frozen
    ]
    bootstraps = [name for name, action in leads if action == "bootstrap"]
    recovers = [name for name, action in leads if action == "recover"]
    assert len(bootstraps) <= 1
    assert not (bootstraps and recovers)
    views = {state.view.identity for name in recovers if (state := states[name]) and state.view}
    assert len(views) <= 1
    # Nobody leads from a minority.
    if sum(state is not None for state in states.values()) < 2:
        assert bootstraps == []
        assert recovers == []


def deploy(me: str, a: Member | None, b: Member | None, c: Member | None) -> str:
    return galera.deploy_action(me, ORDER, {"a": a, "b": b, "c": c}).action


def test_the_first_member_creates_the_cluster() -> None:
    assert [deploy(name, STOPPED, STOPPED, STOPPED) for name in ORDER] == [
        "bootstrap",
        "join",
        "join",
    ]


def test_a_cluster_is_never_created_twice() -> None:
    was = Member(uuid=CLUSTER)
    # The first member was rebuilt: its disk is empty, the others are up or down.
    assert deploy("a", STOPPED, UP, UP) == "join"
    assert deploy("a", STOPPED, was, was) == "start"
    assert deploy("a", STOPPED, STOPPED, was) == "start"
    action = galera.deploy_action("a", ORDER, {"a": STOPPED, "b": STOPPED, "c": None})
    assert action.action == "refuse"
    assert action.reason == (
        "no cluster is known here, but c could not be asked and may hold one: run this play with "
        "all members reachable"
    )


def test_a_running_member_is_left_alone() -> None:
    assert deploy("a", UP, UP, UP) == "nothing"
    assert deploy("a", UP, None, None) == "nothing"
    assert deploy("b", UP, Member(uuid=CLUSTER), UP) == "start"


def test_a_server_outside_of_any_cluster_is_refused() -> None:
    single = Member(phase=galera.NON_PRIMARY, running=True)
    action = galera.deploy_action("a", ORDER, {"a": single, "b": STOPPED, "c": STOPPED})
    assert action.action == "refuse"
    assert action.reason == (
        "mariadbd runs on a outside of any cluster: save what it holds, stop it (systemctl stop "
        "mariadb) and run this play again"
    )
    assert deploy("b", single, STOPPED, STOPPED) == "refuse"


def test_a_member_with_another_clusters_data_is_refused() -> None:
    """Joining would overwrite what it holds."""
    stranger = replace(STOPPED, uuid=OTHER, seqno=7)
    told = galera.deploy_action("c", ORDER, {"a": UP, "b": UP, "c": stranger})
    assert told.action == "refuse"
    assert OTHER in told.reason
    assert CLUSTER in told.reason
    # A member of the running cluster does not care about a third one that is wrong.
    assert deploy("b", UP, replace(WAITS, phase=galera.STOPPED), stranger) == "start"
    # Also at boot, without any playbook.
    assert boot("c", UP, UP, replace(WAITS, uuid=OTHER)).action == "wait"
    assert boot("b", UP, WAITS, replace(WAITS, uuid=OTHER)).action == "join"


def test_unknown_self_is_refused() -> None:
    assert deploy("a", None, UP, UP) == "refuse"


GRASTATE = f"""# GALERA saved state
version: 2.1
uuid:    {CLUSTER}
seqno:   3264
safe_to_bootstrap: 0
"""


# --- an operator's word -------------------------------------------------------------------------


def at(seqno: int, **more: object) -> Member:
    """A member that waits at a position."""
    return replace(WAITS, seqno=seqno, **more)  # type: ignore[arg-type]


def recovery(
    a: Member | None, b: Member | None, c: Member | None, without: str = "", chosen: str = ""
) -> galera.Action:
    return galera.recovery(ORDER, {"a": a, "b": b, "c": c}, list(without), chosen)


@pytest.mark.parametrize(
    ("states", "without", "chosen", "leader", "reason"),
    [
        # The most advanced, wherever it stands.
        ((at(5), at(7), at(6)), "", "", "b", "its position 7 is the most advanced"),
        ((at(5), at(6), at(7)), "", "", "c", "its position 7 is the most advanced"),
        # Equal: the mark decides, then the order.
        ((at(7), at(7), at(7)), "", "", "a", "all positions are 7, and it is the first of them"),
        (
            (at(7), at(7), at(7, safe_to_bootstrap=True)),
            "",
            "",
            "c",
            "all positions are 7, and it was the last to stop",
        ),
        # Two marks are no mark; one that stands behind is an old copy.
        (
            (at(7), at(7, safe_to_bootstrap=True), at(7, safe_to_bootstrap=True)),
            "",
            "",
            "b",
            "all positions are 7, and it is the first of them",
        ),
        (
            (at(6, safe_to_bootstrap=True), at(7), at(7)),
            "",
            "",
            "b",
            "its position 7 is the most advanced",
        ),
        # A member that is given up, also when it answers after all.
        ((at(5), at(6), None), "c", "", "b", "its position 6 is the most advanced"),
        ((at(5), at(6), at(9)), "c", "", "b", "its position 6 is the most advanced"),
        ((at(5), None, None), "bc", "", "a", "all positions are 5, and it is the first of them"),
        # A new member has nothing to say, whatever its number.
        ((NEW, at(6), at(5)), "", "", "b", "its position 6 is the most advanced"),
        # An operator chooses between two histories, and over an unknown position.
        (
            (at(5), at(9, uuid=OTHER), at(6)),
            "",
            "a",
            "a",
            "an operator chose it; its position is 5",
        ),
        ((at(5), at(-1), at(6)), "", "c", "c", "an operator chose it; its position is 6"),
    ],
)
def test_who_leads_a_recovery(
    states: tuple[Member | None, Member | None, Member | None],
    without: str,
    chosen: str,
    leader: str,
    reason: str,
) -> None:
    action = recovery(*states, without=without, chosen=chosen)
    assert action == galera.Action("bootstrap", reason, (leader,))


@pytest.mark.parametrize(
    ("states", "without", "chosen", "words"),
    [
        ((UP, at(5), at(5)), "", "", "the cluster is up: a is in its primary component"),
        (
            (at(5), Member(phase=galera.NON_PRIMARY, uuid=CLUSTER, running=True), at(5)),
            "",
            "",
            "mariadbd runs on b without being part of a cluster",
        ),
        ((at(5), at(5), replace(WAITS, phase=galera.SILENT)), "", "", "mariadbd runs on c"),
        ((at(5), at(5), replace(WAITS, phase=galera.STARTING)), "", "", "mariadbd runs on c"),
        ((at(5), at(5), None), "", "", "c does not answer and may hold newer data"),
        ((at(5), None, None), "c", "", "recover_without=c,b"),
        ((at(5), at(5), STOPPED), "", "", "c does not wait to start: journalctl"),
        ((NEW, NEW, NEW), "", "", "no member that is left holds data of a cluster"),
        ((NEW, at(5), at(5)), "", "a", "a holds no data of a cluster: choose another one"),
        ((at(5), at(9, uuid=OTHER), at(5)), "", "", f"b that of {OTHER}"),
        ((at(5), at(-1), at(5)), "", "", "the position of b cannot be recovered"),
        ((at(5), at(5), at(5)), "x", "", "x is no member of this cluster: a, b, c are"),
        ((at(5), at(5), at(5)), "", "y", "y is no member of this cluster"),
    ],
)
def test_what_a_recovery_refuses(
    states: tuple[Member | None, Member | None, Member | None],
    without: str,
    chosen: str,
    words: str,
) -> None:
    action = recovery(*states, without=without, chosen=chosen)
    assert (action.action, action.waiting_for) == ("refuse", ())
    assert words in action.reason


def test_an_order_counts_for_one_position() -> None:
    assert galera.order_text(at(5)) == f"{CLUSTER}:5\n"
    assert galera.order_text(NEW) == f"{galera.NO_UUID}:-1\n"


def test_grastate_is_read() -> None:
    assert galera.parse_grastate(GRASTATE) == {
        "uuid": CLUSTER,
        "seqno": 3264,
        "safe_to_bootstrap": False,
    }
    assert galera.parse_grastate("") == {
        "uuid": galera.NO_UUID,
        "seqno": -1,
        "safe_to_bootstrap": False,
    }
    assert galera.parse_grastate("seqno: x\n")["seqno"] == -1


def test_grastate_is_marked() -> None:
    text = galera.allow_bootstrap(GRASTATE)
    assert text == GRASTATE.replace("bootstrap: 0", "bootstrap: 1")
    assert galera.parse_grastate(text)["safe_to_bootstrap"] is True


VIEW = f"""my_uuid: {NODES["a"]}
#vwbeg
view_id: 3 {NODES["a"]} 7
bootstrap: 0
member: {NODES["b"]} 0
member: {NODES["a"]} 0
#vwend
"""


def test_the_last_view_is_read() -> None:
    assert galera.parse_view(VIEW) == View(
        f"3 {NODES['a']} 7", 7, NODES["a"], (NODES["a"], NODES["b"])
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        VIEW[:-10],  # cut off
        VIEW.replace("view_id: 3", "view_id: 2"),  # not a primary one
        VIEW.replace(f"member: {NODES['a']} 0\n", ""),  # without this member
        VIEW.replace(" 7", " x"),
    ],
)
def test_a_broken_view_is_none(text: str) -> None:
    assert galera.parse_view(text) is None


def test_the_recovered_position_is_read() -> None:
    line = f"_WSREP_START_POSITION=--wsrep_start_position={CLUSTER}:3264\n"
    assert galera.parse_position(line) == (CLUSTER, 3264)
    assert galera.parse_position(f"_WSREP_START_POSITION=--wsrep_start_position={CLUSTER}:-1") == (
        CLUSTER,
        -1,
    )
    assert galera.parse_position(f"{line.strip()},0-1-273\n") == (CLUSTER, 3264)
    for text in ("", "_WSREP_START_POSITION=\n", f"x={CLUSTER}:y", f"x={CLUSTER}"):
        assert galera.parse_position(text) is None


def test_states_travel_as_plain_data() -> None:
    for member in (NEW, LAST, UP, cut("a", "abc")):
        assert galera.member_from_dict(galera.member_to_dict(member)) == member


@pytest.mark.parametrize("data", [{}, {"phase": "x"}, {"view": 3}, []])
def test_foreign_data_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="not a member's state"):
        galera.member_from_dict(data)  # type: ignore[arg-type]


GOOD = {
    "wsrep_cluster_status": "Primary",
    "wsrep_ready": "ON",
    "wsrep_local_state_comment": "Synced",
    "wsrep_cluster_size": "3",
}
DONOR = "Donor/Desynced"


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, (True, "Synced")),
        ({"wsrep_cluster_status": "non-Primary"}, (False, "cluster status is non-Primary")),
        ({"wsrep_ready": "OFF"}, (False, "wsrep is not ready")),
        ({"wsrep_local_state_comment": "Joined"}, (False, "local state is Joined")),
        ({"wsrep_local_state_comment": DONOR}, (False, f"local state is {DONOR}")),
        (
            {"wsrep_local_state_comment": DONOR, "wsrep_cluster_size": "2"},
            (True, "donor, and the only member that can work"),
        ),
    ],
)
def test_only_a_synced_member_is_usable(change: dict[str, str], verdict: tuple[bool, str]) -> None:
    assert galera.usable({**GOOD, **change}) == verdict


def test_a_server_without_galera_is_not_usable() -> None:
    assert galera.usable({}) == (False, "cluster status is unknown")
