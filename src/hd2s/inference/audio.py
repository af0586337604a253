"""The sound of a source, carried along into an MP4 file in step with its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from hd2s.data.aside import Aside
from hd2s.data.container import without_password

# What MP4 holds and common players play from it. All else (PCM, Vorbis, WMA, ...) is encoded anew as AAC.
_COPIED = {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}
_FALLBACK_RATE = 48_000
_URL_TIMEOUT = 30.0  # seconds


class SoundTrack:
    """Reads the sound of a file beside its pictures and hands it on as far as the pictures have come.

    Packets are copied as they are where MP4 can hold their codec, else encoded as AAC in mono or stereo.
    No more than a packet's worth of sound is held back here.

    Args:
        location: File or URL with the sound; it is opened a second time.
        container: Where the sound goes; nothing may have been written to it yet.
        start_seconds: Time in the file that is 0 in the result.

    Attributes:
        problem: Why there is no (more) sound, or None.
    """

    def __init__(self, location: str, container: OutputContainer, start_seconds: float) -> None:
        self.problem: str | None = None
        self._container = container
        self._start_seconds = start_seconds
        self._reached_seconds = 0.0
        self._input: av.container.InputContainer | None = None
        self._packets: Iterator[Packet[AudioStream]] = iter(())
        remote = "://" in location
        self._aside = Aside(needed=remote)
        try:
            # A server that no longer answers must not hold the pictures up.
            timeout = _URL_TIMEOUT if remote else None
            self._input = self._aside(lambda: av.open(location, timeout=timeout))
            stream = self._input.streams.audio[0]
            packets = self._input.demux(stream)
            if stream.codec_context.codec.canonical_name in _COPIED:
                self._packets = self._copied(packets, container.add_stream_from_template(stream))
            else:
                self._packets = self._encoded(packets, _add_aac(container, stream))
        except (av.FFmpegError, OSError, IndexError, ValueError) as error:
            self.problem = f"The sound of '{without_password(location)}' is left out: {_reason(error)}."
        self._waiting: Packet[AudioStream] | None = None

    def write_until(self, seconds: float) -> None:
        """Write all packets that start before a time of the result, in seconds."""
        while self._reached_seconds < seconds:
            if self._waiting is not None:
                self._container.mux(self._waiting)
            self._waiting = self._read()
            self._reached_seconds = float("inf") if self._waiting is None else _time_seconds(self._waiting)

    def close(self) -> None:
        """Close the source; the container stays open."""
        if self._input is not None and not self._aside.busy:
            self._input.close()

    def _read(self) -> Packet[AudioStream] | None:
        """Return the next packet, or None at the end of the sound or of what can be read of it."""
        try:
            return self._aside(lambda: next(self._packets, None))
        except (av.FFmpegError, OSError, ValueError) as error:
            self.problem = f"The sound ends after {self._reached_seconds:.1f} s: {_reason(error)}."
            return None

    def _copied(
        self, packets: Iterator[Packet[AudioStream]], output: AudioStream
    ) -> Iterator[Packet[AudioStream]]:
        last_dts = None
        for packet in packets:
            if packet.pts is None or packet.dts is None or packet.time_base is None:
                continue  # the empty packet that marks the end
            if last_dts is not None and packet.dts <= last_dts:
                continue  # a clock that was set back; MP4 takes increasing times only
            last_dts = packet.dts
            shift = round(self._start_seconds / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = output
            yield packet

    def _encoded(
        self, packets: Iterator[Packet[AudioStream]], output: AudioStream
    ) -> Iterator[Packet[AudioStream]]:
        for packet in packets:
            frames = []
            with suppress(av.error.InvalidDataError):  # a damaged packet is a gap in the sound, not its end
                frames = packet.decode()
            for frame in frames:
                if frame.pts is not None and frame.time_base is not None:
                    frame.pts -= round(self._start_seconds / frame.time_base)
                yield from output.encode(frame)
        yield from output.encode(None)


def _add_aac(container: OutputContainer, stream: AudioStream) -> AudioStream:
    """Add an AAC stream for the sound of another stream: mono or stereo, at its rate where AAC has that."""
    rates = av.Codec("aac", "w").audio_rates or []
    rate = stream.codec_context.sample_rate
    output = container.add_stream("aac", rate=rate if rate in rates else _FALLBACK_RATE)
    output.codec_context.layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    return output


def _time_seconds(packet: Packet[AudioStream]) -> float:
    return float(packet.pts * packet.time_base) if packet.pts is not None and packet.time_base else 0.0


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
