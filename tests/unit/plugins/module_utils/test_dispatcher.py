# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dispatcher lists: reading, writing, merging, comparing."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils.dispatcher import (
    DISABLED,
    HEADER,
    Destination,
    DispatcherError,
    differences,
    drain,
    make_mark,
    make_set,
    marks,
    merge,
    parse,
    parse_attrs,
    parse_process,
    render,
    undrain,
    wish,
)

A, B, C = (f"sip:192.0.2.{number}:5080" for number in (1, 2, 3))
DRAINED = Destination(1, A, DISABLED, 0, (("duid", "a"), ("drain", "upgrade:run7")))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"1 {A}", Destination(1, A)),
        (f"1 {A} 8", Destination(1, A, 8)),
        (f"1 {A} 8 5", Destination(1, A, 8, 5)),
        (
            f"  1\t{A}  8 5   duid=a;rweight=50  ",
            Destination(1, A, 8, 5, parse_attrs("duid=a;rweight=50", "")),
        ),
        (f"1 {A} 4 0 duid=a;drain=upgrade:run7", DRAINED),
        (f"1 {A} 0 0 duid=a;", Destination(1, A, 0, 0, (("duid", "a"),))),
        (
            f"1 {A} 0 0 socket=udp:192.0.2.9:5060",
            Destination(1, A, 0, 0, (("socket", "udp:192.0.2.9:5060"),)),
        ),
        (
            f"1 {A} 0 0 obproxy=sip:p;lr=on",
            Destination(1, A, 0, 0, (("obproxy", "sip:p"), ("lr", "on"))),
        ),
        (f"1 {A} # a note", Destination(1, A)),
        (
            "1 sips:[2001:db8::1]:5061;transport=tcp 0",
            Destination(1, "sips:[2001:db8::1]:5061;transport=tcp"),
        ),
    ],
)
def test_parse_reads_a_line(line: str, expected: Destination) -> None:
    assert parse(line + "\n") == [expected]


@pytest.mark.parametrize("text", ["", "\n\n", "# 1 sip:a\n", "   # note\n\t\n"])
def test_parse_skips_what_says_nothing(text: str) -> None:
    assert parse(text) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n1\n", "line 2: '1' is not SET URI FLAGS PRIORITY ATTRS"),
        (f"1 {A} 0 0 a=b c", f"line 1: '1 {A} 0 0 a=b c' is not SET URI FLAGS PRIORITY ATTRS"),
        (f"one {A}", "line 1: set, flags and priority are numbers"),
        (f"1 {A} x", "line 1: set, flags and priority are numbers"),
        (f"1 {A} 0 -1", "line 1: set, flags and priority are numbers"),
        (f"1 {A} ²", "line 1: set, flags and priority are numbers"),
        ("1 192.0.2.1", "line 1: '192.0.2.1' is not a SIP URI"),
        (f"1 {A} 0 0 duid", "line 1: 'duid' is not NAME=VALUE"),
        (f"1 {A} 0 0 =a", "line 1: '=a' is not NAME=VALUE"),
    ],
)
def test_parse_refuses(text: str, message: str) -> None:
    with pytest.raises(DispatcherError) as error:
        parse(text)
    assert str(error.value) == message


def test_render_and_parse_are_a_round_trip() -> None:
    attrs: list[tuple[tuple[str, str], ...]] = [
        (),
        (("duid", "a"),),
        (("duid", "a"), ("rweight", "50"), ("drain", "x:1")),
        (("empty", ""),),
    ]
    everything = [
        Destination(set_id, uri, flags, priority, some)
        for set_id, uri, flags, priority, some in itertools.product(
            (0, 1, 42), (A, B), range(16), (0, 9), attrs
        )
    ]
    text = render(everything)
    assert parse(text) == everything
    assert render(parse(text)) == text
    assert text.startswith(HEADER)


def test_render_refuses_a_line_kamailio_would_cut() -> None:
    def line(length: int) -> Destination:
        return Destination(1, A, 0, 0, (("x", "y" * (length - len(f"1 {A} 0 0 x=\n"))),))

    assert render([line(1023)]).splitlines()[1].endswith("y")
    with pytest.raises(DispatcherError, match="its line is longer than 1023 bytes"):
        render([line(1024)])


@pytest.mark.parametrize(
    ("destination", "mark"),
    [
        (DRAINED, "upgrade:run7"),
        (Destination(1, A, DISABLED), ""),
        (Destination(1, A, DISABLED + 8), ""),
        (Destination(1, A, 0, 0, (("drain", "x:1"),)), "x:1"),
        (Destination(1, A, 1 + 2 + 8), None),
    ],
)
def test_drained(destination: Destination, mark: str | None) -> None:
    assert destination.drained == mark


def test_wish_makes_destinations_of_plain_data() -> None:
    items: list[dict[str, Any]] = [
        {"uri": A},
        {"uri": B, "flags": 8, "priority": 3, "attrs": {"duid": "b", "rweight": 50}},
        {"uri": C, "flags": None, "priority": None, "attrs": None},
    ]
    assert wish(2, items) == [
        Destination(2, A),
        Destination(2, B, 8, 3, (("duid", "b"), ("rweight", "50"))),
        Destination(2, C),
    ]


@pytest.mark.parametrize(
    ("set_id", "items", "message"),
    [
        (-1, [], "set -1: sets are numbered from 0"),
        (1, [{"uri": "192.0.2.1"}], "'192.0.2.1' is not a SIP URI"),
        (1, [{"uri": "sip:a b"}], "'sip:a b' is not a SIP URI"),
        (1, [{"uri": "sip:a#b"}], "'sip:a#b' is not a SIP URI"),
        (1, [{"uri": "sip:a\n"}], "'sip:a\n' is not a SIP URI"),
        (1, [{"uri": A}, {"uri": A}], f"{A} stands twice in set 1"),
        (1, [{"uri": A, "flags": 64}], f"{A}: flags are a sum of 1, 2, 8, 16 and 32, not 64"),
        (1, [{"uri": A, "flags": -1}], f"{A}: flags are a sum of 1, 2, 8, 16 and 32, not -1"),
        (1, [{"uri": A, "flags": 4}], f"{A}: a drain is set by draining, not by configuration"),
        (1, [{"uri": A, "flags": 12}], f"{A}: a drain is set by draining, not by configuration"),
        (
            1,
            [{"uri": A, "attrs": {"drain": "x:1"}}],
            f"{A}: a drain is set by draining, not by configuration",
        ),
        (1, [{"uri": A, "attrs": {"a b": "c"}}], f"{A}: 'a b=c' cannot stand in a list"),
        (1, [{"uri": A, "attrs": {"a": "b;c"}}], f"{A}: 'a=b;c' cannot stand in a list"),
        (1, [{"uri": A, "attrs": {"a": "b c"}}], f"{A}: 'a=b c' cannot stand in a list"),
        (1, [{"uri": A, "attrs": {"a": "b\n"}}], f"{A}: 'a=b\n' cannot stand in a list"),
    ],
)
def test_wish_refuses(set_id: int, items: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DispatcherError) as error:
        wish(set_id, items)
    assert str(error.value) == message


def test_merge_keeps_a_drain_and_takes_all_else_from_the_wish() -> None:
    merged = merge([DRAINED], 1, [Destination(1, A, 8, 2, (("duid", "new"),)), Destination(1, B)])
    assert merged == [
        Destination(1, A, 8 + DISABLED, 2, (("duid", "new"), ("drain", "upgrade:run7"))),
        Destination(1, B),
    ]


def test_merge_keeps_a_flag_without_a_reason_and_completes_a_reason_without_a_flag() -> None:
    current = [Destination(1, A, DISABLED), Destination(1, B, 0, 0, (("drain", "x:1"),))]
    assert merge(current, 1, [Destination(1, A), Destination(1, B)]) == [
        Destination(1, A, DISABLED),
        Destination(1, B, DISABLED, 0, (("drain", "x:1"),)),
    ]


def test_merge_leaves_other_sets_alone_and_in_their_place() -> None:
    before, after = Destination(7, A, DISABLED, 1, (("x", "y"),)), Destination(0, A)
    current = [before, Destination(1, A), after, Destination(1, B)]
    assert merge(current, 1, [Destination(1, C)]) == [before, Destination(1, C), after]
    assert merge([before], 1, [Destination(1, C)]) == [before, Destination(1, C)]


def test_merge_takes_no_drain_from_another_set() -> None:
    assert merge([DRAINED], 2, [Destination(2, A)]) == [DRAINED, Destination(2, A)]


def test_merge_forgets_who_left() -> None:
    assert merge([DRAINED, Destination(1, B)], 1, [Destination(1, B)]) == [Destination(1, B)]
    assert merge([DRAINED], 1, []) == []


def test_merge_twice_changes_nothing() -> None:
    wanted = [Destination(1, B), Destination(1, A, 0, 4, (("duid", "a"),))]
    once = merge([Destination(3, C), DRAINED], 1, wanted)
    assert merge(once, 1, wanted) == once
    assert parse(render(once)) == once


def answer(*records: tuple[int, list[tuple[str, str, int, str | None]]]) -> dict[str, Any]:
    """What Kamailio 6.0 answers to dispatcher.list."""
    return {
        "NRSETS": len(records),
        "RECORDS": [
            {
                "SET": {
                    "ID": set_id,
                    "TARGETS": [
                        {
                            "DEST": {
                                "URI": uri,
                                "FLAGS": flags,
                                "PRIORITY": priority,
                                **(
                                    {}
                                    if body is None
                                    else {"ATTRS": {"BODY": body, "DUID": "x", "SOCKET": None}}
                                ),
                            }
                        }
                        for uri, flags, priority, body in targets
                    ],
                }
            }
            for set_id, targets in records
        ],
    }


@pytest.mark.parametrize(
    ("flags", "disabled"),
    [("AP", 0), ("AX", 0), ("IP", 0), ("TP", 0), ("DP", DISABLED), ("DX", DISABLED)],
)
def test_parse_process_takes_of_the_flags_the_drain(flags: str, disabled: int) -> None:
    assert parse_process(answer((1, [(A, flags, 3, "duid=a")]))) == [
        Destination(1, A, disabled, 3, (("duid", "a"),))
    ]


def test_parse_process_reads_sets_with_and_without_attributes() -> None:
    assert parse_process(answer((1, [(A, "AP", 0, None)]), (2, [(A, "AP", 0, "")]))) == [
        Destination(1, A),
        Destination(2, A),
    ]
    assert parse_process({"NRSETS": 0, "RECORDS": []}) == []
    assert parse_process({}) == []


@pytest.mark.parametrize(
    "odd",
    [
        {"RECORDS": [{}]},
        {"RECORDS": [{"SET": {"ID": "x", "TARGETS": [{"DEST": {}}]}}]},
        {"RECORDS": [{"SET": {"ID": 1, "TARGETS": 5}}]},
        {"RECORDS": ["x"]},
    ],
)
def test_parse_process_refuses_another_shape(odd: dict[str, Any]) -> None:
    with pytest.raises(DispatcherError, match=r"the answer to dispatcher\.list is not understood"):
        parse_process(odd)


def test_differences_is_empty_when_they_agree() -> None:
    listed = [DRAINED, Destination(1, B, 8, 1, (("duid", "b"), ("rweight", "5")))]
    running = [
        Destination(1, B, 0, 1, (("rweight", "5"), ("duid", "b"))),
        Destination(1, A, DISABLED, 0, DRAINED.attrs),
    ]
    assert differences(listed, running) == []


@pytest.mark.parametrize(
    ("listed", "running", "said"),
    [
        ([Destination(1, A)], [], [f"set 1: {A} is listed and not in the process"]),
        ([], [Destination(1, A)], [f"set 1: {A} is in the process and not listed"]),
        (
            [Destination(1, A)],
            [Destination(2, A)],
            [
                f"set 1: {A} is listed and not in the process",
                f"set 2: {A} is in the process and not listed",
            ],
        ),
        (
            [Destination(1, A, 0, 0, (("duid", "a"),))],
            [Destination(1, A)],
            [f"set 1: {A} has attributes '' instead of 'duid=a'"],
        ),
        (
            [Destination(1, A, 0, 2)],
            [Destination(1, A, 0, 1)],
            [f"set 1: {A} has priority 1 instead of 2"],
        ),
        (
            [Destination(1, A, DISABLED)],
            [Destination(1, A)],
            [f"set 1: {A} is not disabled in the process"],
        ),
        (
            [Destination(1, A, 8)],
            [Destination(1, A, DISABLED)],
            [f"set 1: {A} is disabled in the process"],
        ),
    ],
)
def test_differences_says_what_is_otherwise(
    listed: list[Destination], running: list[Destination], said: list[str]
) -> None:
    assert differences(listed, running) == said


def of(name: str, weight: str, number: str) -> dict[str, str]:
    return {"duid": name, "rweight": weight, "number": number}


def test_make_set_scales_weights_to_what_kamailio_takes() -> None:
    members: list[dict[str, Any]] = [
        {"name": "pbx1", "address": "192.0.2.1", "weight": 8},
        {"name": "pbx2", "address": "192.0.2.2", "weight": 2},
        {"name": "pbx3", "address": "192.0.2.3", "weight": 0.01},
    ]
    assert make_set(members, 5080) == [
        {"uri": A, "flags": 0, "priority": 0, "attrs": of("pbx1", "100", "2001")},
        {"uri": B, "flags": 0, "priority": 0, "attrs": of("pbx2", "25", "2002")},
        {"uri": C, "flags": 0, "priority": 0, "attrs": of("pbx3", "1", "2003")},
    ]


def test_make_set_treats_equals_alike_and_its_result_is_a_wish() -> None:
    members = [{"name": "a", "address": "192.0.2.1"}, {"name": "b", "address": "192.0.2.2"}]
    made = make_set(members, 5080, "tcp")
    assert [item["attrs"]["rweight"] for item in made] == ["100", "100"]
    assert [item.uri for item in wish(1, made)] == [f"{A};transport=tcp", f"{B};transport=tcp"]
    assert make_set([], 5080) == []


@pytest.mark.parametrize(
    ("member", "transport", "message"),
    [
        ({"name": "a"}, "udp", "a member needs a name and an address, not {'name': 'a'}"),
        (
            {"address": "192.0.2.1"},
            "udp",
            "a member needs a name and an address, not {'address': '192.0.2.1'}",
        ),
        (
            {"name": "a", "address": "192.0.2.1", "weight": 0},
            "udp",
            "a: the weight 0 is not positive",
        ),
        ({"name": "a", "address": "b"}, "tls", "transport 'tls' is neither udp nor tcp"),
    ],
)
def test_make_set_refuses(member: dict[str, Any], transport: str, message: str) -> None:
    with pytest.raises(DispatcherError) as error:
        make_set([member], 5080, transport)
    assert str(error.value) == message


def test_numbers_are_of_the_address_and_fit_in_31_bits() -> None:
    members = [{"name": "a", "address": "10.255.255.255"}, {"name": "b", "address": "10.0.0.7"}]
    numbers = [item["attrs"]["number"] for item in make_set(members, 2223, pinged=False)]
    assert numbers == ["255255255", "7"]
    assert int(numbers[0]) < 2**31


LISTED = parse(f"1 {A} 0 0 duid=a\n1 {B} 8 0 duid=b\n2 {C} 32 0 duid=a\n")


def test_a_drain_and_its_end_are_a_round_trip() -> None:
    drained = drain(LISTED, ["a"], "upgrade:run7")
    assert [item.flags for item in drained] == [4, 8, 36]
    assert marks(drained) == {"a": {1: "upgrade:run7", 2: "upgrade:run7"}}
    assert drain(drained, ["a"], "upgrade:run7") == drained
    assert undrain(drained, ["a"], "upgrade:run7") == LISTED
    assert undrain(LISTED, ["a", "b"]) == LISTED


def test_a_drain_of_some_sets_leaves_the_others() -> None:
    assert marks(drain(LISTED, ["a", "b"], "m:1", [1])) == {"a": {1: "m:1"}, "b": {1: "m:1"}}
    assert marks(undrain(drain(LISTED, ["a"], "m:1"), ["a"], None, [2])) == {"a": {1: "m:1"}}


def test_marks_of_others_are_respected() -> None:
    drained = drain(LISTED, ["a"], "upgrade:run7")
    with pytest.raises(DispatcherError, match="a is drained already, by 'upgrade:run7'"):
        drain(drained, ["a"], "upgrade:run8")
    with pytest.raises(DispatcherError, match="by 'upgrade:run7', not by 'upgrade:run8'"):
        undrain(drained, ["a"], "upgrade:run8")
    nobody = parse(f"1 {A} 4 0 duid=a\n")
    assert marks(nobody) == {"a": {1: ""}}
    with pytest.raises(DispatcherError, match="by 'somebody unknown'"):
        drain(nobody, ["a"], "upgrade:run8")


def test_a_mark_is_made_of_words() -> None:
    assert make_mark("disk", "anna-2026.1") == "disk:anna-2026.1"
    for reason, run in (("", "a"), ("a", ""), ("a b", "c"), ("a", "b:c"), ("a;b", "c")):
        with pytest.raises(DispatcherError, match="of a drain is letters"):
            make_mark(reason, run)


def test_who_joins_a_set_is_drained_until_it_is_proved() -> None:
    before = parse(f"1 {A} 0 0 duid=a\n")
    wanted = wish(1, [{"uri": A, "attrs": {"duid": "a"}}, {"uri": B, "attrs": {"duid": "b"}}])
    assert marks(merge(before, 1, wanted, "join:run1")) == {"b": {1: "join:run1"}}
    assert marks(merge([], 1, wanted, "join:run1")) == {}
    assert marks(merge(before, 1, wanted)) == {}
