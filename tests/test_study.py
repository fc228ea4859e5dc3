"""Perceptual studies: pages that show what they say, and what answers of people of known skill come to."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data

from tests.study_people import answers_to, confused, prefers, study_in, study_of, write_scenes
from vidgen import cli
from vidgen.commands.study import build, score
from vidgen.errors import ConfigError, InputError, OutputExistsError
from vidgen.evaluation.measure import evaluate
from vidgen.evaluation.study import read_answers
from vidgen.media.frames import open_sink
from vidgen.media.images import write_png

NUM_SCENES = 16


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of pictures of the same scenes: real, and two methods that add noise, one of them more from scene to scene."""
    deviations = {"ours": lambda scene: 1 + 3 * scene, "theirs": lambda scene: 30}
    return write_scenes(tmp_path_factory.mktemp("pictures"), NUM_SCENES, (40, 56), deviations)


def written(folder: Path, *documents: dict[str, Any]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    files = [folder / f"{document['participant']}.json" for document in documents]
    for file, document in zip(files, documents, strict=True):
        file.write_text(json.dumps(document))
    return files


# --- pages ----------------------------------------------------------------------------------------------------------------


def test_a_page_says_what_it_asks_and_names_no_file_and_no_address(pictures: Path, tmp_path: Path) -> None:
    study = study_of(pictures, tmp_path / "page.html", "paired", title="<b>Cats</b>", num_trials=20)
    text = (tmp_path / "page.html").read_text()
    assert "&lt;b&gt;Cats&lt;/b&gt;" in text
    assert str(pictures) not in text
    assert "http" not in text.split('id="data"')[0].replace("http-equiv", "")
    assert "default-src 'none'" in text
    assert (study["num_trials"], len(study["questions"]), len(study["checks"])) == (20, 2 * NUM_SCENES, 5)
    assert study["exposure_milliseconds"] == 1000
    assert all([study["stimuli"][index]["role"] for index in question] == ["real", "generated"] for question in study["questions"])
    assert all(study["stimuli"][a]["name"] == study["stimuli"][b]["name"] for a, b in study["questions"])


def test_the_same_command_writes_the_same_page_and_another_seed_another_study(pictures: Path, tmp_path: Path) -> None:
    ids = [study_of(pictures, tmp_path / f"{n}.html", "unpaired", seed=seed)["id"] for n, seed in enumerate((0, 0, 1))]
    assert (tmp_path / "0.html").read_bytes() == (tmp_path / "1.html").read_bytes()
    assert ids[0] == ids[1] != ids[2]


def test_samples_of_one_scene_are_compared_with_it_and_others_are_left_out_aloud(pictures: Path, tmp_path: Path) -> None:
    names = {name: skimage.data.chelsea()[:32, :48] for name in ("1-1", "1-2", "2_1", "stranger")}
    for name, pixels in names.items():
        write_png(tmp_path / "samples" / f"{name}.png", pixels)
    result = build([str(tmp_path / "samples")], tmp_path / "page.html", real=str(pictures / "real"))
    study = study_in(tmp_path / "page.html")
    pairs = {tuple(study["stimuli"][index]["name"] for index in question) for question in study["questions"]}
    assert pairs == {("1", "1-1"), ("1", "1-2"), ("2", "2_1")}
    assert result["trials"] == 3
    assert "samples: left out stranger: no real one of the same name" in result["notes"]
    build([str(tmp_path / "samples")], tmp_path / "one.html", real=str(pictures / "real" / "0.png"))
    assert len(study_in(tmp_path / "one.html")["questions"]) == 4


def test_one_picture_of_each_method_is_one_scene_whatever_it_is_called(pictures: Path, tmp_path: Path) -> None:
    build([str(pictures / "ours" / "0.png"), f"b={pictures / 'theirs' / '1.png'}"], tmp_path / "page.html", kind="preference")
    study = study_in(tmp_path / "page.html")
    assert [[study["stimuli"][index]["name"] for index in question] for question in study["questions"]] == [["0", "1"]]


def test_a_page_stays_within_its_size_and_says_how(pictures: Path, tmp_path: Path) -> None:
    photo = skimage.data.chelsea()[:128, :192]
    noise = np.random.default_rng(0).integers(0, 255, photo.shape, dtype=np.uint8)
    for name, pixels in (("a/1", photo), ("a/2", photo[::-1]), ("b/1", noise), ("b/2", noise[::-1])):
        write_png(tmp_path / f"{name}.png", pixels)
    result = build([str(tmp_path / "a")], tmp_path / "page.html", real=str(tmp_path / "b"), max_megabytes=0.2)
    assert result["megabytes"] < 0.22
    assert any("compressed alike" in note for note in result["notes"])


def test_shapes_that_tell_real_from_generated_are_said_aloud(pictures: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "wide" / "1.png", skimage.data.chelsea()[:40, :120])
    notes = [
        build([str(tmp_path / "wide")], tmp_path / f"{kind}.html", kind=kind, real=str(pictures / "real"))["notes"]
        for kind in ("paired", "unpaired")
    ]
    assert any("padded with black: 1" in note for note in notes[0])
    assert any("differ in shape" in note for note in notes[1])


def test_clips_become_clips_of_the_same_moments(tmp_path: Path) -> None:
    for folder, count in (("real", 6), ("ours", 5)):
        (tmp_path / folder).mkdir()
        with open_sink(tmp_path / folder / "cat.mp4", time_base=Fraction(1, 10), frame_rate=Fraction(10)) as sink:
            for index in range(count):
                sink.write(skimage.data.chelsea()[index : index + 64, :96], index)
    build([str(tmp_path / "ours")], tmp_path / "page.html", real=str(tmp_path / "real"))
    study = study_in(tmp_path / "page.html")
    assert study["prompt"] == "Which clip is real?"
    assert study["exposure_milliseconds"] is None
    assert (tmp_path / "page.html").read_text().count("data:video/mp4;base64,") == 2 + len(study["checks"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("study ours -o p.html", "`real` is missing: in a paired study, people tell generated from real"),
        ("study ours --kind preference -o p.html", "a preference is between two methods or more, got 1"),
        ("study ours a=theirs --kind preference --real real -o p.html", "a preference compares methods with each other"),
        ("study a=ours a=theirs --real real -o p.html", "a: names two methods"),
        ("study ours/1.png --real real/2.png -o ours/1.png", "ours/1.png: is also read as an input"),
        ("study ours --real nothing -o p.html", "nothing: not found"),
        ("study ours other --kind preference -o p.html", "nothing belongs together: ours has 0, 1, 2 and 13 more; other has x"),
        ("study ours --real real --exposure soon -o p.html", "'soon' is no duration"),
        ("study clip.mp4 --real real -o p.html", "a study shows either pictures or clips, found clip: clips, real: pictures"),
    ],
)
def test_a_study_that_cannot_be_is_one_line_and_exit_code_2(
    line: str, message: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("real", "ours", "theirs"):
        (tmp_path / name).symlink_to(pictures / name)
    write_png(tmp_path / "other" / "x.png", skimage.data.chelsea()[:32, :32])
    with open_sink(tmp_path / "clip.mp4", time_base=Fraction(1, 10), frame_rate=Fraction(10)) as sink:
        for index in range(3):
            sink.write(skimage.data.chelsea()[:32, :32], index)
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) in (1, 2)
    err = capsys.readouterr().err
    assert message.replace("`real`", "--real") in err
    assert err.count("\n") <= 2
    assert not (tmp_path / "p.html").exists()


def test_a_page_is_not_written_over(pictures: Path, tmp_path: Path) -> None:
    study_of(pictures, tmp_path / "page.html", "paired")
    with pytest.raises(OutputExistsError):
        study_of(pictures, tmp_path / "page.html", "paired")
    with pytest.raises(ConfigError, match="no name of a method"):
        build([f"real={pictures / 'ours'}"], tmp_path / "other.html", real=str(pictures / "real"))


# --- answers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["paired", "unpaired"])
@pytest.mark.parametrize("skill", [0.1, 0.45])
def test_the_interval_covers_how_often_people_are_fooled(kind: Any, skill: float, pictures: Path, tmp_path: Path) -> None:
    study = study_of(pictures, tmp_path / "page.html", kind, num_trials=32)
    people = [answers_to(study, f"p{n}", confused(skill, n), seed=n) for n in range(12)]
    result = score(written(tmp_path / "answers", *people))
    assert result.num_participants == 12
    assert result.num_answers == 12 * 32
    for item in result.methods.values():
        assert item.confusion.low <= skill <= item.confusion.high
        assert item.confusion.high - item.confusion.low < 0.2
        assert item.confusion.deviation == pytest.approx((item.confusion.high - item.confusion.low) / 3.92, rel=0.15)
        assert (item.fooled is None) is (kind == "paired")


def test_a_bias_towards_real_is_no_confusion_of_unpaired_stimuli(pictures: Path, tmp_path: Path) -> None:
    study = study_of(pictures, tmp_path / "page.html", "unpaired", num_trials=32)
    result = score(written(tmp_path / "a", *(answers_to(study, str(n), lambda stimuli: 1, seed=n) for n in range(4))))
    for item in result.methods.values():
        assert item.fooled is not None
        assert item.doubted is not None
        assert (item.confusion.value, item.fooled.value, item.doubted.value) == (0.5, 1, 0)
    assert result.agreement is not None
    assert result.agreement.kappa is None
    assert result.agreement.pairwise == 1


def test_a_preference_is_found_where_there_is_one(pictures: Path, tmp_path: Path) -> None:
    study = study_of(pictures, tmp_path / "page.html", "preference")
    found = {}
    for share in (0.5, 0.8):
        people = [answers_to(study, f"p{n}", prefers("theirs", share, n), seed=n) for n in range(8)]
        (found[share],) = score(written(tmp_path / f"{share}", *people)).preferences
        assert (found[share].first, found[share].second) == ("ours", "theirs")
        assert found[share].share.low <= 1 - share <= found[share].share.high
        assert found[share].wins + found[share].losses == 8 * NUM_SCENES
    assert found[0.5].p_value > 0.01
    assert found[0.8].p_value < 1e-6


def test_several_methods_are_put_in_an_order(pictures: Path, tmp_path: Path) -> None:
    build([str(pictures / name) for name in ("theirs", "ours", "real")], tmp_path / "page.html", kind="preference")
    study = study_in(tmp_path / "page.html")
    order = ["theirs", "ours", "real"]
    people = [
        answers_to(study, str(n), lambda stimuli: max((0, 1), key=lambda i: order.index(stimuli[i]["method"])), seed=n)
        for n in range(3)
    ]
    result = score(written(tmp_path / "a", *people))
    assert sorted(result.strengths, key=lambda name: result.strengths[name]) == order
    assert sum(result.strengths.values()) == pytest.approx(1)
    assert all(item.wins == 0 for item in result.preferences)


def test_who_fails_a_check_is_left_out_aloud(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = study_of(pictures, tmp_path / "page.html", "unpaired", num_trials=16)
    good = [answers_to(study, f"good{n}", confused(0.2, n), seed=n) for n in range(5)]
    bad = answers_to(study, "bad", confused(0.5, 9), seed=9, fails=2)
    files = [str(file) for file in written(tmp_path / "a", *good, bad)]
    assert cli.main(["study", "score", *files]) == 0
    out = capsys.readouterr().out
    assert "5 participants, 80 answers" in out
    assert f"excluded: participant bad ({tmp_path}/a/bad.json) failed 2 of 5 attention checks" in out
    assert cli.main(["study", "score", *files, "--max-failed-checks", "2", "--json", "--csv", str(tmp_path / "all.csv")]) == 0
    assert json.loads(capsys.readouterr().out)["num_participants"] == 6
    lines = (tmp_path / "all.csv").read_text().splitlines()
    assert len(lines) == 1 + 6 * 21
    assert sum(",1," in line for line in lines[1:]) >= 6 * 5
    assert cli.main(["study", "score", files[-1]]) == 2
    assert (
        "error: nobody is left: 1 participant failed more than 0 attention checks\nhint: --max-failed-checks"
        in capsys.readouterr().err
    )


def test_names_in_foreign_files_say_nothing_to_a_terminal(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_of(pictures, tmp_path / "page.html", "paired", title="Cats\x1b[2J", num_trials=4)
    people = [answers_to(study, f"{n}\x1b[31m", confused(0.5, n), seed=n, fails=n) for n in range(2)]
    files = [tmp_path / f"{n}.json" for n in range(2)]
    for file, person in zip(files, people, strict=True):
        file.write_text(json.dumps(person))
    assert cli.main(["study", "score", *map(str, files)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"excluded: participant 1\x1b[31m" in out


def test_answers_go_with_metrics_that_see_what_people_see(pictures: Path, tmp_path: Path) -> None:
    study = study_of(pictures, tmp_path / "page.html", "paired")
    generator = np.random.default_rng(0)

    def sees_noise(stimuli: list[dict[str, Any]]) -> int:
        (fake,) = (number for number, stimulus in enumerate(stimuli) if stimulus["role"] == "generated")
        fooled = stimuli[fake]["method"] == "ours" and generator.random() < 0.6 - 0.04 * int(stimuli[fake]["name"])
        return fake if fooled else 1 - fake

    files = written(tmp_path / "a", *(answers_to(study, str(n), sees_noise, seed=n) for n in range(8)))
    (tmp_path / "scores").mkdir()
    for method in ("ours", "theirs"):
        report = evaluate(str(pictures / method), target=str(pictures / "real"), metrics="psnr,ssim", cache=None)
        (tmp_path / "scores" / f"{method}.json").write_text(report.to_json())
    result = score(files, scores=[f"{method}={tmp_path / 'scores' / method}.json" for method in ("ours", "theirs")])
    found = result.correlations["psnr"].correlation
    assert found is not None
    assert found.count == 2 * NUM_SCENES
    assert found.low > 0.2
    with pytest.raises(InputError, match=r"of which method\? the study has ours, theirs"):
        score(files, scores=[str(tmp_path / "scores" / "ours.json")])
    one = evaluate(str(pictures / "ours" / "3.png"), target=str(pictures / "real" / "3.png"), metrics="psnr", cache=None)
    (tmp_path / "one.json").write_text(one.to_json())
    entry = score(files, scores=[f"ours={tmp_path / 'one.json'}"]).correlations["psnr"]
    assert entry.correlation is None
    assert entry.reason == "1 of stimuli, 4 are needed"


def test_a_preference_agrees_with_a_metric_as_often_as_people_do(pictures: Path, tmp_path: Path) -> None:
    study = study_of(pictures, tmp_path / "page.html", "preference")
    people = [answers_to(study, f"p{n}", prefers("ours", 0.9, n), seed=n) for n in range(6)]
    values = {}
    for method in ("ours", "theirs"):
        report = evaluate(str(pictures / method), target=str(pictures / "real"), metrics="psnr", cache=None)
        (tmp_path / f"{method}.json").write_text(report.to_json())
        names = next(entry["names"] for entry in study["methods"] if entry["name"] == method)
        values |= {(method, name): value for name, value in zip(names, report.per_frame["psnr"], strict=True)}
    votes = []
    for person in people:
        for trial in person["trials"]:
            left, right = (study["stimuli"][index] for index in trial["shown"])
            if "check" not in (left["role"], right["role"]):
                is_left_better = values[left["method"], left["name"]] > values[right["method"], right["name"]]
                votes.append(bool(is_left_better) is (trial["answer"] == "left"))
    result = score(written(tmp_path / "a", *people), scores=[f"{method}={tmp_path / method}.json" for method in ("ours", "theirs")])
    assert result.correlations["psnr"].agreement == pytest.approx(np.mean(votes))


# --- files that are none --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sheet(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The answers of one person."""
    folder = tmp_path_factory.mktemp("sheet")
    return answers_to(study_of(pictures, folder / "page.html", "paired", num_trials=8), "anna", confused(0.3, 0), seed=0)


def test_answers_that_were_read_are_those_that_were_written(sheet: dict[str, Any], tmp_path: Path) -> None:
    (file,) = written(tmp_path / "a", sheet)
    answers = read_answers(file)
    assert answers.model_dump(mode="json") == sheet
    assert answers.num_failed_checks == 0


def changed(sheet: dict[str, Any], *keys: Any, to: Any) -> dict[str, Any]:
    copy = json.loads(json.dumps(sheet))
    place = copy
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    return copy


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"PK\x03\x04", "is not JSON"),
        (b"[1, 2]", "holds no answers of a study"),
        (b'{"metrics": {}, "schema_version": 1}', "holds no answers of a study"),
        (b'{"study": {}, "trials": [], "schema_version": 2}', "schema_version: '2', but 1 is the one known here"),
        (("study", "prompt", "Which is fake?"), "study: was changed after its page was written"),
        (("trials", 2, "answer", "both"), "trials.2.answer: Input should be 'left', 'right', 'real' or 'generated'"),
        (("trials", 2, "answer", "real"), "trials.2: 'real' is no answer in a study of this kind"),
        (("trials", 2, "shown", [0, 99]), "trials.2: shows [0, 99], which the study does not ask"),
        (("trials", 2, "milliseconds", -1), "trials.2.milliseconds"),
        (("trials", []), "trials: 0 of them, but the study asks 13"),
        (("participant", ""), "participant: String should have at least 1 character"),
        ("half", "is not JSON"),
        ("twice", "or not again"),
    ],
)
def test_a_file_that_holds_no_answers_is_one_line_and_exit_code_2(
    content: Any, message: str, sheet: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "answers.json"
    text = json.dumps(sheet)
    if content == "half":
        content = text[: len(text) // 2].encode()
    elif content == "twice":
        content = json.dumps(changed(sheet, "trials", 1, to=sheet["trials"][0])).encode()
    elif isinstance(content, tuple):
        content = json.dumps(changed(sheet, *content[:-1], to=content[-1])).encode()
    file.write_bytes(content)
    assert cli.main(["study", "score", str(file)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith(f"error: {file}: ")
    assert err.count("\n") == 1


def test_a_picture_in_place_of_answers_is_called_one(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", "score", str(pictures / "real" / "0.png")]) == 2
    assert "0.png: is a picture; the answers that the page of a study offers were expected" in capsys.readouterr().err


def test_answers_to_two_studies_or_twice_by_one_person_are_refused(
    sheet: dict[str, Any], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = answers_to(study_of(pictures, tmp_path / "page.html", "paired", title="Dogs"), "ben", confused(0.3, 1), seed=1)
    again = answers_to(sheet["study"], "anna", confused(0.3, 5), seed=5)
    first, second = written(tmp_path / "a", sheet, other)
    (third,) = written(tmp_path / "b", again)
    (copy,) = written(tmp_path / "c", sheet)
    assert cli.main(["study", "score", str(first), str(second)]) == 2
    assert f"{second}: answers to another study, 'Dogs' (" in capsys.readouterr().err
    assert cli.main(["study", "score", str(first), str(third)]) == 2
    assert f"error: {third}: participant 'anna' also answers in {first}, otherwise\nhint: each" in capsys.readouterr().err
    assert score([first, copy]).num_participants == 1
    assert score([tmp_path / "c"]).num_participants == 1
    with pytest.raises(InputError, match=r"real: holds no \.json files"):
        score([pictures / "real"])
    assert any("counts once" in remark for remark in score([first, copy]).remarks)
