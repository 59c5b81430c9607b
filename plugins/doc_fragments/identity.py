# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""By what a host shows the cluster's daemons who it is."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of modules that speak TLS with certificates on both sides."""

    DOCUMENTATION = r"""
options:
  ca:
    description: Certificate of the cluster's authority.
    type: path
    required: true
  certificate:
    description: This host's certificate.
    type: path
    required: true
  key:
    description: Key of this host's certificate.
    type: path
    required: true
"""
