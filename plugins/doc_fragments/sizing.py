# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the filters that size one server are told of it."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of every filter that sizes one server."""

    DOCUMENTATION = r"""
options:
  _input:
    description: Calls at once that the server must carry.
    type: int
    required: true
  cps:
    description: >-
      New calls per second at the busiest. Without it, as many as it takes to have that many calls
      at once.
    type: float
  registrations:
    description: Registered phones.
    type: int
    default: 0
  functions:
    description: >-
      What the server does, C(edge) (SIP proxy), C(media) (relay), C(pbx), C(database),
      C(storage).
    type: list
    elements: str
    default: [edge, media, pbx, database]
  addresses:
    description: >-
      2 where the relay has an address outside and another inside, 1 where both sides share one.
    type: int
    default: 2
  hold_seconds:
    description: Seconds that a call lasts on average.
    type: int
    default: 180
"""
