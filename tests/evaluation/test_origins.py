"""Where and when a trial was measured whose trainings ran in several places."""

from __future__ import annotations

from sqzexplore.evaluation.rows import origin_of_trainings


def test_a_trial_names_every_device_that_had_a_part() -> None:
    trainings = [
        {"started_at": "2026-11-27T20:10", "duration_s": 3.0, "device_name": "GPU + CPU"},
        {"started_at": "2026-11-27T19:58", "duration_s": 1.5, "device_name": "GPU"},
        {"started_at": "2026-11-28T09:00", "duration_s": 4.0, "device_name": "board"},
    ]
    origin = origin_of_trainings(trainings)
    assert origin["device_name"] == "GPU + CPU + board"
    assert origin["started_at"] == "2026-11-27T19:58"
    assert origin["duration_s"] == 8.5
