"""Speed and memory of `hd2s predict` on this machine, as a table.

    python benchmarks/predict.py [VIDEO]

Each line is a fresh process. Speed is a multiple of real time (the video's own frame rate), memory
the peak resident size. The time to the first map counts from the start of the process, imports included.

The last lines compare an overlay in full HD, start included, with what PyAV alone needs to decode the same
video, resize each frame once to the network's size, and encode it with the same settings: the fastest of
three rounds. Where the processor computes in bfloat16, overlays are also made with --precision auto. Then
one process and two make overlays of a batch, the faster of two rounds.
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

from hd2s.inference.graphs import choose_precision

HD2S = [sys.executable, "-c", "from hd2s.cli.main import main; main()"]
FIRST_MAP = "import sys, hd2s; next(iter(hd2s.predict(sys.argv[1], engine=sys.argv[2])))"
# A process's own peak, and that of its children: measured inside, so that each child is measured alone.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""

PYAV_ALONE = """
import sys, av
from hd2s.inference.mp4 import _ENCODER_THREADS
from hd2s.inference.video_writers import _PICTURE_QUALITY
with av.open(sys.argv[1]) as source, av.open(sys.argv[2], "w", format="mp4") as out:
    pictures = source.streams.video[0]
    pictures.thread_type = "AUTO"
    stream = out.add_stream("libx264", rate=pictures.average_rate, options=_PICTURE_QUALITY)
    stream.width, stream.height, stream.pix_fmt = pictures.width, pictures.height, "yuv420p"
    stream.codec_context.thread_count = _ENCODER_THREADS
    for picture in source.decode(pictures):
        picture.reformat(320, 192, "rgb24", threads=1)
        out.mux(stream.encode(picture))
    out.mux(stream.encode(None))
"""


def enlarge(video: Path, path: Path) -> None:
    """Write the video in 1920 x 1080, with the usual settings of libx264."""
    with av.open(str(video)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=source.streams.video[0].average_rate)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for picture in source.decode(video=0):
            out.mux(stream.encode(picture.reformat(1920, 1080)))
        out.mux(stream.encode(None))


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
    """Predict with an overlay; return the report with the peak memory in megabytes."""
    command = [*HD2S, "predict", video, "-o", out, "--overwrite", "--json", *options]
    _, output = run(sys.executable, "-c", PEAK, *command)
    report, end = json.JSONDecoder().raw_decode(output)
    return {**report[0], "peak_mb": int(output[end:]) / 1024}


def fastest(tasks: dict[str, list[str | Path]], rounds: int) -> dict[str, float]:
    """Run commands in turns; return the seconds of the fastest round of each."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, command in tasks.items():
            seconds[name].append(run(*command)[0])
    return {name: min(values) for name, values in seconds.items()}


def compare(large: Path, folder: Path, precisions: list[str], table: Table) -> None:
    """Compare overlays in full HD with what PyAV alone needs."""
    longer = folder / "large10.mp4"
    repeat(large, 10, longer)
    tasks: dict[str, list[str | Path]] = {
        "PyAV alone": [sys.executable, "-c", PYAV_ALONE, longer, folder / "alone.mp4"]
    }
    for precision in precisions:
        options = ("--overwrite", "--precision", precision)
        tasks[f"overlay, {precision}"] = [*HD2S, "predict", longer, "-o", folder / "out", *options]
    found = fastest(tasks, 3)
    for name, seconds in found.items():
        ratio = f" = {seconds / found['PyAV alone']:.2f} x as long" if name != "PyAV alone" else ""
        table.add_row(f"full HD, 10 times as long, {name}", f"{seconds:.1f} s{ratio}")


def share(large: Path, folder: Path, table: Table) -> None:
    """Compare one process with two for a batch of four videos."""
    videos = [folder / f"batch{number}.mp4" for number in range(4)]
    for video in videos:
        repeat(large, 4, video)
    tasks: dict[str, list[str | Path]] = {
        f"--jobs {jobs}": [*HD2S, "predict", *videos, "-o", folder / "out", "--overwrite", "--jobs", jobs]
        for jobs in ("1", "2")
    }
    for name, seconds in fastest(tasks, 2).items():
        table.add_row(f"full HD, four videos 4 times as long, {name}", f"{seconds:.1f} s")


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
        longer = Path(folder) / "longer.mp4"
        repeat(video, 10, longer)
        precisions = ["float32"] if choose_precision("auto") == "float32" else ["float32", "auto"]
        lines = [(video, "overlay", "torch", "float32")]
        for file, name in ((video, "overlay"), (longer, "overlay, 10 times as long")):
            lines += [(file, name, "openvino", precision) for precision in precisions]
        for file, name, engine, precision in lines:
            options = ("--engine", engine, "--precision", precision)
            # The first time graphs are built, which is another line.
            report = min((predicted(file, out, *options) for _ in range(2)), key=lambda r: r["seconds"])
            rate = report["frames"] / report["seconds"]
            speed = f"{rate:.0f} frames/s = {rate / fps:.1f} x real time, {report['peak_mb']:.0f} MB"
            table.add_row(f"{name}, {engine}, {precision}", speed)
        large = Path(folder) / "large.mp4"
        enlarge(video, large)
        compare(large, Path(folder), precisions, table)
        share(large, Path(folder), table)
    Console().print(table)


if __name__ == "__main__":
    main()
