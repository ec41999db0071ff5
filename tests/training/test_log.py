"""Reading fairseq's JSON log lines."""

from __future__ import annotations

from bridle_fairseq.training import log


def line(number: int, tag: str, text: str) -> str:
    return f"[2025-01-01 10:00:{number:02},000][{tag}][INFO] - {text}"


LINES = [
    line(0, "fairseq_cli.train", "{'not': 'json'}"),
    line(
        1,
        "train_inner",
        '{"epoch": 1, "loss": "5.1", "acc_1": "0.1", "acc_2": "0.05", "num_updates": "20", "gb": null}',
    ),
    line(2, "train_inner", '{"epoch": 1, "loss": "4.2", "acc_1": "0.2", "acc_2": "0.06", "num_updates": "40"}'),
    line(3, "valid", '{"epoch": 1, "valid_loss": "4.5", "valid_acc_1": "0.15", "valid_num_updates": "40"}'),
    line(4, "train", '{"epoch": 1, "train_loss": "4.7", "train_num_updates": "40"}'),
    line(5, "train_inner", '{"epoch": 2, "loss": "4.1", "num_updates": "40"}'),
    "Traceback (most recent call last):",
]


def test_records_are_running_and_validation_values() -> None:
    records = log.parse(LINES)
    assert log.series(records, "loss") == [(20, 5.1), (40, 4.1)]  # the resumed run's value stands
    assert log.series(records, "loss", "valid") == [(40, 4.5)]
    assert log.series(records, "acc_1", "valid") == [(40, 0.15)]
    assert log.series(records, "nothing") == []
    assert "gb" not in records[0].values


def test_counts_levels() -> None:
    assert log.count_levels(log.parse(LINES)) == 2
    assert log.count_levels([]) == 0


def test_last_error_is_the_message_of_the_last_exception() -> None:
    failed = [
        *LINES,
        '  File "x.py", line 1',
        "bridle_fairseq.utils.errors.InputError: no rows in train.tsv",
        "",
        "Set HYDRA_FULL_ERROR=1",
    ]
    assert log.last_error(failed) == "no rows in train.tsv"
    assert log.last_error(["a", "bridle_fairseq: error: mask is 1", ""]) == "mask is 1"
    assert log.last_error(["Killed"]) == "Killed"
    assert log.last_error([]) == "it printed nothing"


def test_records_have_the_time_at_which_they_were_logged() -> None:
    first, second = (record.logged_at for record in log.parse(LINES) if record.update == 20 or record.split == "valid")
    assert second - first == 2
    assert log.parse_line('[valid][INFO] - {"valid_num_updates": "3"}').logged_at is None


def test_parses_files(tmp_path) -> None:
    (tmp_path / "log").write_bytes("\n".join(LINES).encode() + b"\xff\n")
    assert log.read_log(tmp_path / "log") == log.parse(LINES)
