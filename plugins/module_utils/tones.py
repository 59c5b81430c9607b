# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is heard in a recording: which tone, from when to when, and where it drops out.

A test phone plays one steady tone and records what it receives. The recording is cut into frames
of 10 ms; one Goertzel filter for the expected frequency says how much of a frame's energy is that
tone. Frequencies are multiples of 100 Hz: they fit a whole number of times into a frame, so two of
them never leak into each other.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# 8 kHz is what G.711 carries; 10 ms of it is the shortest time that tells 100 Hz apart.
SAMPLE_RATE = 8000
FRAME_MS = 10

# Root mean square, in 16-bit steps, below which a frame is silence: far above the comfort noise of
# a decoder, far below the tones the phones play.
SILENCE_RMS = 150.0

# Share of a frame's energy the tone needs. A clean tone through A-law keeps more than 0.99, white
# noise leaves 0.03 in one filter, two equally loud tones 0.5 each.
TONE_SHARE = 0.7

_WAVE_PCM = 1


class RecordingError(ValueError):
    """The bytes are not a recording this module can read."""


@dataclass(frozen=True)
class Span:
    """A stretch of a recording, in milliseconds from its start, end excluded."""

    start_ms: int
    end_ms: int

    @property
    def length_ms(self) -> int:
        """Length in milliseconds."""
        return self.end_ms - self.start_ms


@dataclass(frozen=True)
class Heard:
    """What one tone did in a recording.

    `spans` are the stretches in which the tone is heard, in order; `gaps` the stretches between
    them. `other_ms` counts loud frames that are not this tone (noise, another tone, a cut edge).
    """

    frequency: int
    total_ms: int
    spans: tuple[Span, ...]
    other_ms: int

    @property
    def heard_ms(self) -> int:
        """Milliseconds in which the tone is heard."""
        return sum(span.length_ms for span in self.spans)

    @property
    def gaps(self) -> tuple[Span, ...]:
        """Where the tone is missing between its first and its last frame."""
        return tuple(Span(before.end_ms, after.start_ms) for before, after in pairwise(self.spans))

    @property
    def longest_gap_ms(self) -> int:
        """Length of the longest gap; 0 when there is none."""
        return max((gap.length_ms for gap in self.gaps), default=0)

    def as_dict(self) -> dict[str, object]:
        """Plain data for results and JSON."""
        return {
            "frequency_hz": self.frequency,
            "recorded_ms": self.total_ms,
            "heard_ms": self.heard_ms,
            "first_ms": self.spans[0].start_ms if self.spans else None,
            "last_ms": self.spans[-1].end_ms if self.spans else None,
            "gaps_ms": [gap.length_ms for gap in self.gaps],
            "longest_gap_ms": self.longest_gap_ms,
            "other_ms": self.other_ms,
        }


def sine(frequency: int, milliseconds: int, amplitude: int = 8000) -> array[int]:
    """A sine tone as 16-bit samples at SAMPLE_RATE."""
    step = 2 * math.pi * frequency / SAMPLE_RATE
    count = SAMPLE_RATE * milliseconds // 1000
    return array("h", (round(amplitude * math.sin(step * index)) for index in range(count)))


def wave_file(samples: Sequence[int]) -> bytes:
    """A mono 16-bit WAV file at SAMPLE_RATE."""
    data = struct.pack(f"<{len(samples)}h", *samples)
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + len(data),
        b"WAVE",
        b"fmt ",
        16,
        _WAVE_PCM,
        1,
        SAMPLE_RATE,
        SAMPLE_RATE * 2,
        2,
        16,
        b"data",
        len(data),
    )
    return header + data


def read_wave(content: bytes) -> array[int]:
    """The samples of a mono 16-bit WAV file at SAMPLE_RATE.

    A recorder that was killed leaves the length in the header at 0 or at its maximum: everything
    up to the end of the file is taken then. Raises RecordingError for any other format.
    """
    if len(content) < 12 or content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise RecordingError("this is not a WAV file")
    position = 12
    described = False
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        position += 8
        if name == b"fmt ":
            _check_format(content[position : position + size])
            described = True
        elif name == b"data":
            if not described:
                raise RecordingError("the WAV file has samples before their format")
            rest = len(content) - position
            length = size if 0 < size <= rest else rest
            length -= length % 2
            return array("h", struct.unpack_from(f"<{length // 2}h", content, position))
        position += size + size % 2
    raise RecordingError("the WAV file has no samples")


def _check_format(chunk: bytes) -> None:
    if len(chunk) < 16:
        raise RecordingError("the WAV file's format is cut off")
    kind, channels, rate, _bytes, _block, bits = struct.unpack_from("<HHIIHH", chunk)
    if (kind, channels, rate, bits) != (_WAVE_PCM, 1, SAMPLE_RATE, 16):
        raise RecordingError(
            f"expected PCM, 1 channel, {SAMPLE_RATE} Hz, 16 bits; "
            f"got format {kind}, {channels} channels, {rate} Hz, {bits} bits"
        )


def tone_share(frame: Sequence[int], frequency: int) -> float:
    """The share of a frame's energy, 0.0 to 1.0, that lies in one frequency (Goertzel)."""
    energy = float(sum(sample * sample for sample in frame))
    if not energy:
        return 0.0
    coefficient = 2 * math.cos(2 * math.pi * frequency / SAMPLE_RATE)
    before = last = 0.0
    for sample in frame:
        before, last = last, sample + coefficient * last - before
    power = last * last + before * before - coefficient * last * before
    return 2 * power / (len(frame) * energy)


def listen(samples: Sequence[int], frequency: int) -> Heard:
    """Find one tone in a recording.

    `frequency` is a multiple of 100 Hz (ValueError otherwise). A last frame of less than 10 ms is
    left out.
    """
    if frequency <= 0 or frequency % (1000 // FRAME_MS):
        raise ValueError(f"{frequency} Hz is not a multiple of {1000 // FRAME_MS} Hz")
    length = SAMPLE_RATE * FRAME_MS // 1000
    floor = SILENCE_RMS * SILENCE_RMS * length
    spans: list[Span] = []
    start: int | None = None
    other = 0
    frames = len(samples) // length
    for index in range(frames):
        frame = samples[index * length : (index + 1) * length]
        loud = sum(sample * sample for sample in frame) >= floor
        hit = loud and tone_share(frame, frequency) >= TONE_SHARE
        if loud and not hit:
            other += FRAME_MS
        if hit and start is None:
            start = index * FRAME_MS
        elif not hit and start is not None:
            spans.append(Span(start, index * FRAME_MS))
            start = None
    if start is not None:
        spans.append(Span(start, frames * FRAME_MS))
    return Heard(frequency, frames * FRAME_MS, tuple(spans), other)
