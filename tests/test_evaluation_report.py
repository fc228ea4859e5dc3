from __future__ import annotations

import csv
import io
import json
import math
from typing import get_args

import numpy as np
import pytest

from vidgen.errors import ConfigError, InputError, PartialFailure, QualityGateError
from vidgen.evaluation import report
from vidgen.evaluation.compare import compare_reports, rank
from vidgen.evaluation.networks import WEIGHTS
from vidgen.evaluation.report import Gate, MetricValue, Provenance, Report, Verdict
from vidgen.metrics.score import METRICS, Need, Score

PROVENANCE = Provenance(
    output="out.mp4",
    flow=None,
    flow_from=None,
    size=None,
    strides=[],
    num_frames=20,
    frame_rate=None,
    fps=None,
    versions={},
    weights={},
    segmenter=None,
    content_sha256={},
)


def report_of(values: dict[str, Score], reasons: tuple[str, ...] = (), **changes) -> Report:
    metrics = {key: MetricValue.of(key, score) for key, score in values.items()}
    verdict = Verdict(rankable=not reasons, reasons=list(reasons), remarks=changes.pop("remarks", []))
    return Report(metrics=metrics, verdict=verdict, provenance=PROVENANCE, **changes)


def scores_of(values: dict[str, Score], **columns: np.ndarray) -> Report:
    length = len(next(iter(columns.values()), np.zeros(20)))
    return report_of(values, per_frame={"sharpness": np.zeros(length), **columns})


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("warp_error@1>0.02", True),
        ("warp_error > 0.02", True),
        ("warp_error@1>0.03", False),
        ("warp_error@1>=0.025", True),
        ("warp_error@1<=2.5e-2", True),
        ("warp_error@1<0.025", False),
        ("psnr<30", True),
        ("ssim<0.5", True),
        ("niqe_ref>-inf", True),
    ],
)
def test_a_gate_fails_where_its_condition_holds_or_the_value_is_missing(text, fails):
    scores = {
        "warp_error@1": Score(0.025, 5),
        "psnr": Score(20.0, 5),
        "ssim": Score.missing("too small"),
        "niqe_ref": Score(0.0, 5),
    }
    metrics = {key: MetricValue.of(key, score) for key, score in scores.items()}
    assert (Gate.parse(text).fault(metrics) is not None) == fails


@pytest.mark.parametrize(
    "text", ["warp_error", "warp_error@1>", "warp_error>>2", "warp_error>fast", "psnr<nan", "warp_eror>0.02", ""]
)
def test_a_gate_that_is_not_a_condition_on_a_metric_is_refused(text):
    with pytest.raises(ConfigError, match="`fail_if`"):
        Gate.parse(text)


def test_enforcing_raises_for_faults_and_only_when_strict_for_missing_values():
    scores = scores_of({"psnr": Score(20.0, 5), "ssim": Score.missing("too small")})
    scores.enforce()
    with pytest.raises(PartialFailure, match=r"ssim \(too small\)"):
        scores.enforce(strict=True)
    with pytest.raises(QualityGateError, match="psnr is 20") as caught:
        scores.model_copy(update={"faults": ["psnr is 20, which is < 30"]}).enforce()
    assert caught.value.exit_code == 4


def test_a_report_is_json_without_nan_and_says_why_a_value_is_missing():
    result = scores_of({"psnr": Score.of(math.nan, 3, reason="no frames"), "warp_error@3": Score.of(0.5, 3, 1)}).to_dict()
    read = json.loads(json.dumps(result, allow_nan=False))
    assert read["schema_version"] == 1
    assert read["metrics"]["psnr"] == {"value": None, "unit": "dB", "better": "high", "n": 0, "skipped": 0, "reason": "no frames"}
    assert read["metrics"]["warp_error@3"]["n"] == 3
    assert read["metrics"]["warp_error@3"]["skipped"] == 1
    assert read["verdict"] == {"rankable": True, "reasons": [], "remarks": []}


def test_the_table_has_a_line_for_each_score_and_for_each_reason():
    scores = report_of({"psnr": Score(20.0, 5), "ssim": Score.missing("too small")}, ("it is frozen",), cuts=[7])
    lines = scores.table().splitlines()
    assert lines[0].split()[:3] == ["metric", "value", "better"]
    assert lines[1].split() == ["psnr", "20", "high", "dB"]
    assert lines[2].split(maxsplit=3) == ["ssim", "-", "high", "too small"]
    assert lines[3:] == ["cuts before frames 7", "", "not to be ranked: it is frozen"]


def test_the_table_says_that_a_video_may_be_ranked_and_what_else_to_know():
    scores = report_of({"fid": Score(20.0, 5, note="unreliable: 5 samples")}, remarks=["it is a copy"])
    lines = scores.table().splitlines()
    assert lines[1].endswith("distance; unreliable: 5 samples")
    assert lines[-2:] == ["may be ranked: nothing speaks against it", "note: it is a copy"]


def test_videos_are_ranked_by_each_score_and_refused_ones_by_fidelity_only():
    good = scores_of({"warp_error@1": Score(0.1, 5), "psnr": Score(20.0, 5), "motion_ratio": Score(0.9, 5), "fid": Score(3.0, 5)})
    unsteady = scores_of({"warp_error@1": Score(0.2, 5), "psnr": Score(22.0, 5), "motion_ratio": Score(1.05, 5)})
    frozen = report_of({"warp_error@1": Score(0.0, 5), "psnr": Score(21.0, 5)}, ("it is frozen",))
    doubtful = scores_of({"fid": Score(1.0, 5, note="unreliable: 5 samples"), "psnr": Score.missing("too small")})
    ranking = rank({"good": good, "unsteady": unsteady, "frozen": frozen, "doubtful": doubtful})
    assert ranking.order == {
        "warp_error@1": ["good", "unsteady"],
        "psnr": ["unsteady", "frozen", "good"],
        "motion_ratio": ["unsteady", "good"],
    }
    assert ranking.left_out == {"frozen": ["it is frozen"]}


def test_sets_without_frames_are_compared_without_intervals():
    first, second = (report_of({"kid": Score(value, 5)}) for value in (3.0, 1.0))
    [entry] = compare_reports(first, second, lambda columns: {}).values()
    assert entry.model_dump() == {"value": 1.0, "difference": 2.0, "low": None, "high": None}


def noisy(mean: float, seed: int, length: int = 20) -> np.ndarray:
    return mean + np.random.default_rng(seed).normal(size=length)


def mean_of_psnr(columns) -> dict[str, Score]:
    return {"psnr": Score(float(columns["psnr"].mean()), len(columns["psnr"]))}


def compared(first: np.ndarray, second: np.ndarray) -> dict[str, float | None]:
    both = [scores_of(mean_of_psnr({"psnr": column}), psnr=column) for column in (first, second)]
    return compare_reports(both[0], both[1], mean_of_psnr)["psnr"].model_dump()


def test_the_interval_of_a_paired_difference_is_narrow_where_both_vary_together():
    shared = noisy(20, 0)
    found = compared(shared + 1, shared)
    assert found["difference"] == pytest.approx(1)
    assert found["low"] == pytest.approx(1)
    assert found["high"] == pytest.approx(1)
    apart = compared(noisy(21, 1), noisy(20, 2))
    assert apart["low"] < apart["difference"] < apart["high"]
    assert apart["high"] - apart["low"] > 0.3


def test_the_interval_of_independent_frames_is_that_of_their_mean():
    found = compared(noisy(0, 3, 2000), np.zeros(2000))
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 / math.sqrt(2000), rel=0.25)


def test_the_interval_is_wider_where_neighboring_frames_are_alike():
    slow = np.repeat(noisy(0, 4, 40), 10)
    found, shuffled = compared(slow, np.zeros(400)), compared(np.random.default_rng(0).permutation(slow), np.zeros(400))
    assert found["high"] - found["low"] > 1.5 * (shuffled["high"] - shuffled["low"])


def test_missing_values_have_no_difference_and_context_is_not_compared():
    values = {"psnr": Score.missing("why"), "coverage@1": Score(0.5, 3), "warp_error_target@1": Score(0.5, 3)}
    differences = compare_reports(scores_of(values), scores_of(values), lambda columns: values)
    assert {key: entry.difference for key, entry in differences.items()} == {"psnr": None}


def test_videos_of_different_length_are_not_compared():
    first, second = scores_of({}), report_of({}, per_frame={"sharpness": np.zeros(3)})
    with pytest.raises(InputError, match="20 and 3 frames"):
        compare_reports(first, second, lambda columns: {})


def test_csv_files_read_back_as_written():
    text = report.frames_csv({"psnr": np.array([1.5, math.nan]), "ssim": np.array([0.1, 0.2])})
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"frame": "0", "psnr": "1.5", "ssim": "0.1"},
        {"frame": "1", "psnr": "", "ssim": "0.2"},
    ]
    text = report.scores_csv({'a "b", c.mp4': scores_of({"psnr": Score(1.5, 2)}), "d": scores_of({"ssim": Score.missing("why")})})
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"video": 'a "b", c.mp4', "psnr": "1.5", "ssim": ""},
        {"video": "d", "psnr": "", "ssim": ""},
    ]


def test_every_metric_of_the_catalog_says_which_way_is_better_and_what_it_needs():
    for name, metric in METRICS.items():
        assert metric.better in ("low", "high", "one", "context"), name
        assert metric.needs <= set(get_args(Need)), name
        assert metric.weights in ("", *WEIGHTS), name
        assert metric.unit, name


def test_a_value_that_rests_on_nothing_is_missing_with_its_reason():
    assert Score.of(0.5, 0, skipped=3, reason="no pair could be followed") == Score(None, 0, 3, "no pair could be followed")
    assert Score.of(0.5, 1) == Score(0.5, 1)
    assert Score.of(float("inf"), 4).value is None
