"""Speed and memory of `hd2s predict` on this machine, as a table.

    python benchmarks/predict.py [VIDEO]

Each line is a fresh process. Speed is a multiple of real time (the video's own frame rate), memory
the peak resident size. The time to the first map counts from the start of the process, imports included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
from rich.console import Console
from rich.table import Table

HD2S = [sys.executable, "-c", "from hd2s.cli.main import main; main()"]
FIRST_MAP = "import sys, hd2s; next(iter(hd2s.predict(sys.argv[1], engine=sys.argv[2])))"
# A process's own peak, and that of its children: measured inside, so that each child is measured alone.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def repeat(video: Path, times: int, path: Path) -> None:
    """Write the video's pictures `times` times in a row, without coding them anew."""
    with av.open(str(path), "w") as out:
        end = 0
        for _ in range(times):
            with av.open(str(video)) as source:
                template = source.streams.video[0]
                stream = out.streams.video[0] if out.streams.video else out.add_stream_from_template(template)
                last = end
                for packet in source.demux(template):
                    if packet.dts is None:
                        continue
                    packet.stream, packet.pts, packet.dts = stream, packet.pts + end, packet.dts + end
                    last = max(last, packet.pts + (packet.duration or 0))
                    out.mux(packet)
                end = last


def run(*command: str | Path) -> tuple[float, str]:
    """Run a command; return seconds and standard output."""
    started = time.perf_counter()
    done = subprocess.run(
        list(map(str, command)), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - started, done.stdout.decode()


def predicted(video: Path, out: Path, *options: str) -> dict[str, float]:
    """Predict once with an overlay; return the report with the peak memory in megabytes."""
    command = [*HD2S, "predict", video, "-o", out, "--overwrite", "--json", *options]
    _, output = run(sys.executable, "-c", PEAK, *command)
    report, end = json.JSONDecoder().raw_decode(output)
    return {**report[0], "peak_mb": int(output[end:]) / 1024}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    example = Path(__file__).parents[1] / "examples/bigbuckbunny.mp4"
    parser.add_argument("video", type=Path, nargs="?", default=example)
    video = parser.parse_args().video
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        fps = Fraction(stream.average_rate or 25)
        title = (
            f"{video.name}, {stream.width} x {stream.height}, {os.cpu_count()} cores, {platform.machine()}"
        )
    table = Table("what", "result", title=title)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HD2S_CACHE"] = folder
        table.add_row("hd2s --help", f"{min(run(*HD2S, '--help')[0] for _ in range(5)):.2f} s")
        for engine in ("torch", "openvino"):
            cold = run(sys.executable, "-c", FIRST_MAP, video, engine)[0]
            warm = run(sys.executable, "-c", FIRST_MAP, video, engine)[0]
            table.add_row(f"start to first map, {engine}", f"{warm:.1f} s (the first time ever {cold:.1f} s)")
        out = Path(folder) / "out"
        for engine in ("torch", "openvino"):
            report = predicted(video, out, "--engine", engine)
            rate = report["frames"] / report["seconds"]
            table.add_row(f"overlay, {engine}", f"{rate:.0f} frames/s = {rate / fps:.1f} x real time")
            table.add_row(f"  peak memory, {engine}", f"{report['peak_mb']:.0f} MB")
        longer = Path(folder) / "longer.mp4"
        repeat(video, 10, longer)
        report = predicted(longer, out)
        rate = report["frames"] / report["seconds"]
        table.add_row("overlay, 10 times as long", f"{rate:.0f} frames/s = {rate / fps:.1f} x real time")
        table.add_row("  peak memory, 10 times as long", f"{report['peak_mb']:.0f} MB")
    Console().print(table)


if __name__ == "__main__":
    main()
