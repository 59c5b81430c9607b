# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the line of a template that cannot be rendered.

Ansible reports what is undefined, but not where: its engine carries an undefined value to the end
of the rendering before it raises. So a template that failed is rendered once more with every
expression watched.
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable

import jinja2

ENTER = "__config_tree_enter"
DONE = "__config_tree_done"


def instrument(source: str) -> str:
    """Watch every expression and block of a template through calls that name its line."""
    pieces: list[str] = []
    last = 1
    for last, token, value in jinja2.Environment(keep_trailing_newline=True).lex(source):
        if token == "variable_begin":
            pieces.append(f"{{{{ {ENTER}({last}) }}}}{value} {DONE}({last}, (")
        elif token == "variable_end":
            pieces.append(f")) {value}")
        elif token == "block_begin":
            pieces.append(f"{{{{ {ENTER}({last}) }}}}{value}")
        else:
            pieces.append(value)
    pieces.append(f"{{{{ {ENTER}(0) }}}}")
    return "".join(pieces)


def failing_line(
    source: str, error: BaseException, render: Callable[[str, dict[str, t.Any]], object]
) -> int | None:
    """The line at which a template fails; None when it fails elsewhere, as in an included one.

    C(error) is what the first attempt raised; C(render) renders a source with additional variables.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, jinja2.TemplateSyntaxError):
            return cause.lineno if cause.name is None else None
        cause = cause.__cause__
    # Ansible does not call a function with an undefined argument: what is entered and not done has
    # failed.
    entered: list[int] = []
    unfinished: list[int] = []

    def enter(line: int) -> str:
        entered.append(int(line))
        unfinished.append(int(line))
        return ""

    def done(line: int, value: object) -> object:
        unfinished.remove(int(line))
        return value

    try:
        render(instrument(source), {ENTER: enter, DONE: done})
    except Exception:  # the same failure again, which the caller reports
        pass
    else:
        return None
    expressions = {
        line
        for line, token, _value in jinja2.Environment().lex(source)
        if token == "variable_begin"
    }
    for line in unfinished:
        if line in expressions:
            return line
    # Blocks have no end of their own: the last one entered is where the rendering stopped.
    return entered[-1] if entered and entered[-1] else None
