"""``bridle scaling``: forecasts against arithmetic by hand, invalid options."""

import pytest

from bridle_fairseq.cli.main import main
from bridle_fairseq.training.scaling import ScalingConstants, forecast

# A GPU takes 16 clips in 20 ms; a gigabyte of gradients; cores, files and networks that are never the limit.
BASE = {"gpu_clips_per_second": 800, "cpu_ms": 1.0, "clip_kb": 100, "parameters": 250}
BASE |= {"link_gbs": 1e6, "network_gbs": 1e6, "storage_gbs": 1e6, "cores_per_gpu": 1e6}


def test_compute_scales_linearly():
    one, many = forecast(1, ScalingConstants(**BASE)), forecast(64, ScalingConstants(**BASE))
    assert (one.micro_batches, many.micro_batches) == (64, 1) and one.update_clips == many.update_clips == 1024
    assert one.clips_per_second == pytest.approx(800) and many.clips_per_second == pytest.approx(64 * 800, rel=1e-3)
    assert one.limit == many.limit == "GPUs" and one.waiting == 0
    assert forecast(3, ScalingConstants(**BASE)).update_clips == 3 * 22 * 16


def test_gradients_are_reduced_in_two_rings():
    slow = ScalingConstants(**{**BASE, "link_gbs": 100, "network_gbs": 10})
    inside, between = 2 * 7 / 8 / 100, 2 * 7 / 8 / 10
    eight, all_nodes = forecast(8, slow), forecast(64, slow)
    assert eight.clips_per_second == pytest.approx(1024 / (8 * 0.02 + inside))
    assert all_nodes.clips_per_second == pytest.approx(1024 / (0.02 + inside + between))
    assert all_nodes.waiting == pytest.approx((inside + between) / (0.02 + inside + between))
    assert eight.limit == "GPUs" and all_nodes.limit == "network"


def test_overlap_hides_communication_behind_backward_pass():
    slow = {**BASE, "link_gbs": 200, "overlap": True}
    assert forecast(8, ScalingConstants(**slow)).waiting == 0  # 8.75 ms of 13.3
    slow["link_gbs"] = 100
    assert forecast(8, ScalingConstants(**slow)).clips_per_second == pytest.approx(1024 / (0.16 + 0.0175 - 0.04 / 3))


def test_limit_is_the_slowest_component():
    loader = forecast(16, ScalingConstants(**{**BASE, "cores_per_gpu": 0.5}))
    assert loader.limit == "loader" and loader.clips_per_second == pytest.approx(16 * 500)
    assert loader.gpu_share == pytest.approx(500 / 800)
    for shared, rate in ((False, 2 * 2000), (True, 2000)):  # two nodes of 0.2 GB/s, 100 kB a clip
        storage = forecast(16, ScalingConstants(**{**BASE, "storage_gbs": 0.2, "shared_storage": shared}))
        assert storage.limit == "storage" and storage.clips_per_second == pytest.approx(rate)


def arguments(**changes: float) -> list[str]:
    return [word for name, value in {**BASE, **changes}.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def test_command_prints_a_line_per_number_of_gpus(capsys):
    more = ["--gpus", "1", "8", "--corpus-clips", "2880000", "--gpus-per-node", "4"]
    assert main(["scaling", *arguments(), *more]) == 0
    first, head, *lines = capsys.readouterr().out.splitlines()
    assert first == "2880000 clips: 0.288 TB of files" and head.endswith("limit  hours/epoch of 2880000")
    assert [line.split() for line in lines] == [
        ["1", "64", "1024", "800", "100%", "0%", "0%", "0%", "GPUs", "1"],
        ["8", "8", "1024", "6400", "100%", "0%", "0%", "0%", "GPUs", "0.125"],
    ]
    assert all(len(line) == len(head) for line in lines)


@pytest.mark.parametrize(("name", "value"), [("link_gbs", 0), ("cpu_ms", -1)])
def test_values_must_be_positive(capsys, name, value):
    assert main(["scaling", *arguments(**{name: value})]) == 2
    assert f"--{name.replace('_', '-')} is {float(value)}; expected more than 0" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "value"), [("link_gbs", 1e-308), ("cpu_ms", "inf"), ("gradient_bytes", "9" * 400)])
def test_values_have_bounds(capsys, name, value):
    assert main(["scaling", *arguments(**{name: value})]) == 2
    error = capsys.readouterr().err
    assert f"--{name.replace('_', '-')} is" in error and "expected at least 1e-12 and at most 1e+18" in error
