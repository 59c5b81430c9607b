# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Would Patroni and PostgreSQL start with this configuration? Says what they complain about.

Patroni's own check also wants to reach etcd and to find its ports free. Neither says anything
about the configuration, so here every port is as Patroni wants it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from patroni import validator  # type: ignore[import-not-found]
from patroni.config import Config  # type: ignore[import-not-found]
from patroni.exceptions import ConfigParseError  # type: ignore[import-not-found]


class AnySocket:
    """A socket that every other one accepts."""

    def __init__(self, *arguments: Any) -> None:
        """Take what a socket takes."""

    def connect_ex(self, address: Any) -> int:
        """Reach everyone."""
        return 0

    def close(self) -> None:
        """Be gone."""


def ask_patroni(path: str) -> dict[str, Any]:
    """Let Patroni check its file; what it makes of it. Ends this program with its complaints."""
    validator.populate_validate_params(ignore_listen_port=True)
    validator.socket.socket = AnySocket
    try:
        config: dict[str, Any] = Config(path, validator=validator.schema).copy()
    except ConfigParseError as error:
        sys.exit(f"Patroni refuses this configuration: {error.value}")
    return config


def ask_postgresql(binary: str, parameters: dict[str, Any]) -> None:
    """Let PostgreSQL read its parameters. Ends this program with its complaints."""
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"{name} = '{value}'" for name, value in parameters.items()]
        file = Path(folder, "postgresql.conf")
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        # There is no secret among them, and PostgreSQL does not run as root.
        file.chmod(0o644)
        Path(folder).chmod(0o755)
        done = subprocess.run(
            ["runuser", "-u", "postgres", "--", binary, "-D", folder, "-C", "max_connections"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(f"PostgreSQL refuses these parameters:\n{done.stdout}")


def main() -> None:
    """Check the file that is named on the command line."""
    config = ask_patroni(sys.argv[1])
    postgresql = config["postgresql"]
    shared = config["bootstrap"]["dcs"]["postgresql"]["parameters"]
    parameters = {**postgresql["parameters"], **shared}
    ask_postgresql(f"{postgresql['bin_dir']}/postgres", parameters)


if __name__ == "__main__":
    main()
