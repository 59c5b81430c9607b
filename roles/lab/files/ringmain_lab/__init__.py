# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A lab: systemd-nspawn servers on an outside and an inside network of their own.

Everything that runs lives in processes: the networks are a network namespace that the lab's own
processes keep alive, the overlay mounts exist only in the servers' mount namespaces. So when the
processes are gone, nothing but files is left, whatever ended them.
"""
