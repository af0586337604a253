"""Processes that do the work: their threads, and what happens when one is killed."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import cv2
import pytest
import torch

import hd2s
from fake_predictions import DyingWorker, make_scene, write_all
from hd2s.errors import HD2SError
from hd2s.evaluation import crew, run


@pytest.mark.slow
def test_a_process_that_is_killed_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(tmp_path / "data")
    write_all(tmp_path / "mine", scene)
    monkeypatch.setattr(run, "Worker", DyingWorker)
    ours = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,), daemon=True)
    ours.start()
    try:
        with pytest.raises(
            HD2SError, match="A worker process was killed, most likely because memory ran out"
        ):
            hd2s.evaluate(scene.root, predictions=tmp_path / "mine", metrics=["cc"], jobs=2)
        assert multiprocessing.active_children() == [ours]  # processes of the caller's are left alone
    finally:
        ours.kill()
        ours.join()


def test_one_thread_does_the_work_and_the_others_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(tmp_path / "data")
    write_all(tmp_path / "mine", scene)
    seen: set[tuple[int, int]] = set()
    original = crew.Worker.score

    def noted(self: crew.Worker, video: crew.AnnotatedVideo) -> None:
        seen.add((torch.get_num_threads(), cv2.getNumThreads()))
        original(self, video)

    monkeypatch.setattr(crew.Worker, "score", noted)
    cores = min(2, os.cpu_count() or 1)
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(2)
    cv2.setNumThreads(cores)
    try:
        hd2s.evaluate(scene.root, predictions=tmp_path / "mine", metrics=["cc"])
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, cores)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
    assert seen == {(1, 1)}
