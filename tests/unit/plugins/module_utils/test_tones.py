# SPDX-FileCopyrightText: Ringmain contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tones are found, wrong ones are not, and missing audio is measured to the frame."""

from __future__ import annotations

import random
import struct
from array import array

import pytest
from ansible_collections.ringmain.voip.plugins.module_utils import tones


def silence(milliseconds: int) -> array[int]:
    return array("h", [0] * (tones.SAMPLE_RATE * milliseconds // 1000))


def noise(milliseconds: int, amplitude: int) -> array[int]:
    source = random.Random(4711)
    count = tones.SAMPLE_RATE * milliseconds // 1000
    return array("h", (source.randint(-amplitude, amplitude) for _index in range(count)))


def mixed(first: array[int], second: array[int]) -> array[int]:
    return array("h", (left + right for left, right in zip(first, second, strict=True)))


def test_steady_tone_is_heard_from_end_to_end() -> None:
    heard = tones.listen(tones.sine(800, 2000), 800)
    assert heard.spans == (tones.Span(0, 2000),)
    assert heard.heard_ms == 2000
    assert heard.gaps == ()
    assert heard.longest_gap_ms == 0
    assert heard.other_ms == 0


@pytest.mark.parametrize("frequency", [700, 900, 1200, 1600])
def test_another_tone_is_not_taken_for_it(frequency: int) -> None:
    heard = tones.listen(tones.sine(frequency, 1000), 800)
    assert heard.heard_ms == 0
    assert heard.other_ms == 1000


def test_silence_is_neither_the_tone_nor_anything_else() -> None:
    heard = tones.listen(silence(500), 800)
    assert (heard.heard_ms, heard.other_ms, heard.total_ms) == (0, 0, 500)
    assert heard.as_dict()["first_ms"] is None
    assert heard.as_dict()["last_ms"] is None


def test_noise_is_not_a_tone() -> None:
    heard = tones.listen(noise(3000, 8000), 800)
    assert heard.heard_ms == 0
    assert heard.other_ms == 3000


def test_faint_noise_is_silence() -> None:
    assert tones.listen(noise(500, 100), 800).other_ms == 0


def test_tone_is_heard_through_noise() -> None:
    recording = mixed(tones.sine(800, 1000), noise(1000, 1500))
    assert tones.listen(recording, 800).heard_ms == 1000


def test_two_tones_at_once_are_neither() -> None:
    recording = mixed(tones.sine(800, 1000), tones.sine(1200, 1000))
    assert tones.listen(recording, 800).heard_ms == 0
    assert tones.listen(recording, 1200).heard_ms == 0


def test_gaps_are_measured_to_the_frame() -> None:
    recording = (
        silence(200)
        + tones.sine(800, 1000)
        + silence(140)
        + tones.sine(800, 500)
        + silence(20)
        + tones.sine(800, 300)
        + silence(400)
    )
    heard = tones.listen(recording, 800)
    assert heard.spans == (
        tones.Span(200, 1200),
        tones.Span(1340, 1840),
        tones.Span(1860, 2160),
    )
    assert heard.as_dict() == {
        "frequency_hz": 800,
        "recorded_ms": 2560,
        "heard_ms": 1800,
        "first_ms": 200,
        "last_ms": 2160,
        "gaps_ms": [140, 20],
        "longest_gap_ms": 140,
        "other_ms": 0,
    }


def test_gap_that_fits_no_frame_is_found_with_its_edges() -> None:
    quiet = array("h", [0] * 100)
    recording = tones.sine(800, 505) + quiet + tones.sine(800, 500)
    heard = tones.listen(recording, 800)
    assert heard.gaps == (tones.Span(500, 520),)


def test_another_tone_in_between_is_a_gap() -> None:
    recording = tones.sine(800, 300) + tones.sine(1200, 100) + tones.sine(800, 300)
    heard = tones.listen(recording, 800)
    assert heard.longest_gap_ms == 100
    assert heard.other_ms == 100


def test_wrong_frequency_is_refused() -> None:
    with pytest.raises(ValueError, match="850 Hz is not a multiple of 100 Hz"):
        tones.listen(array("h"), 850)
    with pytest.raises(ValueError, match="0 Hz"):
        tones.listen(array("h"), 0)


def test_empty_frame_has_no_share() -> None:
    assert tones.tone_share(silence(10), 800) == 0.0


def test_wave_file_reads_back() -> None:
    samples = tones.sine(1200, 50)
    assert tones.read_wave(tones.wave_file(samples)) == samples


def test_unfinished_recording_is_read_to_its_end() -> None:
    samples = tones.sine(1200, 50)
    content = bytearray(tones.wave_file(samples))
    for length in (0, 0xFFFFFFFF):
        content[40:44] = struct.pack("<I", length)
        assert tones.read_wave(bytes(content) + b"\x00") == samples


def test_other_chunks_are_stepped_over() -> None:
    content = tones.wave_file(tones.sine(800, 10))
    extra = b"LIST" + struct.pack("<I", 3) + b"abc\x00"
    assert tones.read_wave(content[:36] + extra + content[36:]) == tones.sine(800, 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "this is not a WAV file"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "this is not a WAV file"),
        (b"RIFF\x00\x00\x00\x00WAVE", "the WAV file has no samples"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00", "format is cut off"),
        (
            b"RIFF\x00\x00\x00\x00WAVEdata\x02\x00\x00\x00ab",
            "the WAV file has samples before their format",
        ),
        (
            tones.wave_file([0]).replace(struct.pack("<I", 8000), struct.pack("<I", 48000), 1),
            "expected PCM, 1 channel, 8000 Hz, 16 bits; got format 1, 1 channels, 48000 Hz, 16 b",
        ),
    ],
)
def test_unreadable_recordings_say_why(content: bytes, message: str) -> None:
    with pytest.raises(tones.RecordingError, match=message):
        tones.read_wave(content)
