# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As much of SIP as many plain phones need: messages, digest, SDP. Without I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

METHODS = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE"
"""What a phone says that it understands."""

_COMPACT = {
    "v": "via",
    "f": "from",
    "t": "to",
    "i": "call-id",
    "m": "contact",
    "l": "content-length",
}
_URI = re.compile(r"<([^>]+)>")
_TAG = re.compile(r";\s*tag=([^;\s]+)")
_PARAMETER = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]+))')
_PORT = re.compile(r"^m=audio (\d+) ", re.MULTILINE)
_ADDRESS = re.compile(r"^c=IN IP4 (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Message:
    """A request or an answer."""

    start: str
    headers: tuple[tuple[str, str], ...]
    body: str = ""

    @property
    def status(self) -> int:
        """The status of an answer; 0 for a request."""
        return int(self.start.split(" ", 2)[1]) if self.start.startswith("SIP/") else 0

    @property
    def method(self) -> str:
        """The method of a request, or of what is answered."""
        return self.get("cseq").split()[1]

    @property
    def number(self) -> int:
        """The number in CSeq."""
        return int(self.get("cseq").split()[0])

    def get(self, name: str) -> str:
        """The first header of a name, written in small letters; empty when there is none."""
        return next((value for key, value in self.headers if key == name), "")

    def all(self, name: str) -> list[str]:
        """All values of a header, also of those written in one line."""
        found = []
        for key, value in self.headers:
            if key == name:
                found += [part.strip() for part in re.split(r",(?![^<]*>)", value)]
        return found


def parse(data: bytes) -> Message:
    """A message of a datagram. Raises ValueError when it is none."""
    head, _gap, body = data.decode(errors="replace").partition("\r\n\r\n")
    start, *lines = head.split("\r\n")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"no header: {line!r}")
        name = name.strip().lower()
        headers.append((_COMPACT.get(name, name), value.strip()))
    return Message(start, tuple(headers), body)


def build(start: str, headers: Iterable[tuple[str, str]], body: str = "") -> bytes:
    """A datagram."""
    lines = [start, *(f"{name}: {value}" for name, value in headers)]
    if body:
        lines.append("Content-Type: application/sdp")
    lines += [f"Content-Length: {len(body.encode())}", "", body]
    return "\r\n".join(lines).encode()


def tag(value: str) -> str:
    """The tag of a From or To; empty when there is none yet."""
    found = _TAG.search(value)
    return found[1] if found else ""


def uri(value: str) -> str:
    """The address in a Contact."""
    found = _URI.search(value)
    return found[1] if found else value.partition(";")[0].strip()


def challenge(value: str) -> dict[str, str]:
    """The parameters of a WWW-Authenticate or Proxy-Authenticate."""
    return {name: quoted or plain for name, quoted, plain in _PARAMETER.findall(value)}


def credentials(
    asked: dict[str, str], user: str, password: str, method: str, address: str, cnonce: str
) -> str:
    """The answer to a challenge, with quality of protection `auth`."""

    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    realm, nonce = asked["realm"], asked["nonce"]
    one, two = md5(f"{user}:{realm}:{password}"), md5(f"{method}:{address}")
    response = md5(f"{one}:{nonce}:00000001:{cnonce}:auth:{two}")
    return (
        f'Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{address}", '
        f'response="{response}", algorithm=MD5, qop=auth, nc=00000001, cnonce="{cnonce}"'
    )


def description(address: str, port: int, version: int) -> str:
    """An SDP body for G.711 A-law."""
    return (
        f"v=0\r\no=- 1 {version} IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=ptime:20\r\n"
    )


def endpoint(body: str) -> tuple[str, int]:
    """Where an SDP body wants its audio."""
    port, address = _PORT.search(body), _ADDRESS.search(body)
    if not port or not address:
        raise ValueError(f"no audio in {body!r}")
    return address[1], int(port[1])
