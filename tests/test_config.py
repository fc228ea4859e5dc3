"""Configuration files: what is read, what is refused, and what the user is told."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from vidgen.config import MAX_BYTES, MAX_DEPTH, Settings, dump, from_data, load, parse_duration, read, template, to_yaml
from vidgen.errors import ConfigError


class Wide(Settings):
    kind: Literal["wide"] = "wide"
    num_channels: Annotated[int, Field(ge=1)] = 64
    """Width of the first layer."""
    norm: Literal["batch", "none"] = "batch"


class Deep(Settings):
    kind: Literal["deep"] = "deep"
    num_layers: int = 3


class Data(Settings):
    root: Path
    size: tuple[int, int] = (64, 32)
    mirror: bool = True
    limit: int | Literal["auto"] = "auto"
    steps: tuple[Wide | Deep, ...] = ()

    @model_validator(mode="after")
    def _wide_enough(self) -> Data:
        if self.size[0] < self.size[1]:
            raise ValueError("size must be wider than high")
        return self


class Run(Settings):
    model: Annotated[Wide | Deep, Field(discriminator="kind")]
    data: Data
    rate: float = 1e-3
    label: str = ""
    stages: tuple[Annotated[Wide | Deep, Field(discriminator="kind")], ...] = ()


GOOD = "model: {kind: wide}\ndata: {root: clips}\n"


@pytest.fixture
def fault(tmp_path: Path) -> Callable[..., str]:
    """Gives the message for a configuration of this text, with the file called `c.yaml`."""

    def give(text: str | bytes, sets: tuple[str, ...] = ()) -> str:
        path = tmp_path / "c.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ConfigError) as caught:
            load(path, Run, sets)
        return str(caught.value).replace(str(path), "c.yaml")

    return give


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


# --- scalars ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E4", 1e4),
        (".5", 0.5),
        ("-2.", -2.0),
        ("7", 7),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("12:30:45", "12:30:45"),
        ("2026-01-02", "2026-01-02"),
        ("1_000", "1_000"),
        ("~", None),
        ("null", None),
        ("", None),
        ("'3'", "3"),
        ('"true"', "true"),
        ("[1, two]", [1, "two"]),
        ("1e", "1e"),
        ("<<", "<<"),
        ("=", "="),
    ],
)
def test_scalars_are_those_of_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"key: {text}\n")
    found = read(path).data["key"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_always_words(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("1: a\ntrue: b\nnull: c\n")
    assert read(tmp_path / "c.yaml").data == {"1": "a", "true": "b", "null": "c"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("model: {kind: wide, num_channels: 8.0}", "model.num_channels: Input should be a valid integer, got 8.0"),
        ("model: {kind: wide, num_channels: '8'}", "model.num_channels: Input should be a valid integer, got '8'"),
        ("model: {kind: wide, num_channels: true}", "model.num_channels: Input should be a valid integer, got True"),
        ("model: {kind: wide, num_channels: 0}", "model.num_channels: Input should be greater than or equal to 1, got 0"),
    ],
)
def test_a_value_keeps_its_type(fault: Callable[..., str], value: str, message: str) -> None:
    assert fault(f"{value}\ndata: {{root: x}}\n") == f"c.yaml:1:{value.rindex(':') + 3}: {message}"


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate: 1\nlabel: a\nrate: 2\n", "c.yaml:3:1: rate: written twice, first at c.yaml:1:1"),
        ("data: {root: a, root: b}", "c.yaml:1:17: data.root: written twice, first at c.yaml:1:8"),
        ("a: &x 1", "c.yaml:1:4: anchors (&) and aliases (*) are not allowed"),
        ("a: *x", "c.yaml:1:4: anchors (&) and aliases (*) are not allowed"),
        ("a: !!python/object/apply:os.system [id]", "c.yaml:1:4: tags are not allowed"),
        ("a: !!str 1", "c.yaml:1:4: tags are not allowed"),
        ("!!map {a: 1}", "c.yaml:1:1: tags are not allowed"),
        ("a: .nan", "c.yaml:1:4: numbers must be finite, got '.nan'"),
        ("a: -.inf", "c.yaml:1:4: numbers must be finite, got '-.inf'"),
        ("a: 1e999", "c.yaml:1:4: numbers must be finite, got '1e999'"),
        ("a: " + "9" * 5000, "c.yaml:1:4: a number of 5000 digits"),
        ("a: 1\n---\nb: 2", "c.yaml:3:1: a second document starts here"),
        ("- a", "c.yaml: expected `key: value` lines, got ['a']"),
        ("just words", "c.yaml: expected `key: value` lines, got 'just words'"),
        ("? [a]\n: 1", "c.yaml:1:3: a key must be a word"),
        ("a: [1", "c.yaml:1:6: not valid YAML"),
        ("\ta: 1", "c.yaml:1:1: not valid YAML"),
        ("a: 1\n b: 2", "c.yaml:2:3: not valid YAML"),
        ("a: \x07", "c.yaml: not valid YAML"),
        ('a: "\\ud800"', "c.yaml:1:4: text must be Unicode"),
        ("%YAML 3.0\n---\na: 1", "c.yaml:1:1: not valid YAML"),
        ("[" * 3000, f"c.yaml:1:{MAX_DEPTH + 1}: nested deeper than {MAX_DEPTH} levels"),
        ("a: " + "{b: " * MAX_DEPTH, f"c.yaml:1:{4 * MAX_DEPTH}: nested deeper than {MAX_DEPTH} levels"),
        (b"a: \xff", "c.yaml: not UTF-8 text (byte 3 is 0xff)"),
        (b"#" * (MAX_BYTES + 1), "c.yaml: larger than 1 MiB"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_surprising_or_unsafe_is_refused(fault: Callable[..., str], text: str | bytes, message: str) -> None:
    assert fault(text).startswith(message)


def test_nested_aliases_that_would_grow_to_gigabytes_are_refused_at_the_first(fault: Callable[..., str]) -> None:
    text = 'a: &a ["lol"]\n' + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
    )
    assert fault(text).startswith("c.yaml:1:4: anchors")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load(tmp_path / "c.yaml", Run).data.root == Path("clips")


def test_a_missing_file_is_answered_with_its_neighbours(good: Path) -> None:
    with pytest.raises(ConfigError, match="no such file") as caught:
        load(good.with_name("god.yaml"), Run)
    assert caught.value.hint == f"in {good.parent} there is good.yaml"


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is an empty folder; a configuration file \(YAML\) was expected"):
        load(tmp_path, Run)


def test_a_name_with_a_nul_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(Path("a\0b"), Run)


# --- faults against the schema ----------------------------------------------------------------------------------------


def test_all_faults_are_listed_in_the_order_of_the_file_each_with_its_place(fault: Callable[..., str]) -> None:
    text = """\
model: {kind: wide, nrom: batch, num_channels: 0, num_layers: 3}
data:
  mirror: off
  limit: many
  steps: 3
rate: fast
stages: [{kind: deep, num_layer: 1}, {num_layers: 1}, {kind: flat}, 7]
"""
    assert fault(text).splitlines() == [
        "c.yaml:1:21: model.nrom: unknown key, did you mean 'norm'? (known: kind, num_channels, norm)",
        "c.yaml:1:48: model.num_channels: Input should be greater than or equal to 1, got 0",
        "c.yaml:1:51: model.num_layers: unknown key, did you mean 'num_channels'? (known: kind, num_channels, norm)",
        "c.yaml:3:3: data.root: missing; it has no default",
        "c.yaml:3:11: data.mirror: Input should be a valid boolean, got 'off'",
        "c.yaml:4:10: data.limit: Input should be a valid integer or Input should be 'auto', got 'many'",
        "c.yaml:5:10: data.steps: Input should be a valid array, got 3",
        "c.yaml:6:7: rate: Input should be a valid number, got 'fast'",
        "c.yaml:7:23: stages.0.num_layer: unknown key, did you mean 'num_layers'? (known: kind, num_layers)",
        "c.yaml:7:38: stages.1.kind: missing; it must be one of wide, deep",
        "c.yaml:7:62: stages.2.kind: unknown kind 'flat' (known: wide, deep)",
        "c.yaml:7:69: stages.3: expected a section of `key: value` lines, got 7",
    ]


def test_a_rule_over_a_whole_section_is_told_without_its_content(fault: Callable[..., str]) -> None:
    assert fault("model: {kind: deep}\ndata: {root: a, size: [2, 3]}\n") == "c.yaml:2:7: data: size must be wider than high"


def test_an_empty_file_lacks_what_has_no_default(fault: Callable[..., str]) -> None:
    assert fault("").splitlines() == ["c.yaml: data: missing; it has no default", "c.yaml: model: missing; it has no default"]


def test_only_the_first_faults_are_shown(fault: Callable[..., str]) -> None:
    lines = fault(GOOD + "".join(f"key{index}: 1\n" for index in range(30))).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "... and 10 more"


def test_settings_cannot_be_changed_or_hold_infinities(good: Path) -> None:
    run = load(good, Run)
    with pytest.raises(ValidationError):
        run.rate = 2.0  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Run(model=Wide(), data=Data(root=Path()), rate=float("inf"))


# --- assignments ------------------------------------------------------------------------------------------------------


def test_assignments_change_values_sections_and_list_items(good: Path) -> None:
    sets = ["rate=1e-2", "data.size=[8, 4]", "stages=[{kind: deep}, {kind: wide}]", "stages.0.num_layers=7", "label=a=b"]
    run = load(good, Run, [*sets, "model={kind: deep}"])
    assert (run.rate, run.data.size, run.label) == (0.01, (8, 4), "a=b")
    assert run.stages == (Deep(num_layers=7), Wide())
    assert run.model == Deep()


def test_an_assignment_makes_the_sections_it_needs(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: {kind: deep}\n")
    assert load(tmp_path / "c.yaml", Run, ["data.root=x"]).data.root == Path("x")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("rte=1", "--set rte=1: rte: unknown key, did you mean 'rate'? (known: model, data, rate, label, stages)"),
        (
            "data.szie=3",
            "--set data.szie=3: data.szie: unknown key, did you mean 'size'? (known: root, size, mirror, limit, steps)",
        ),
        ("rate=fast", "--set rate=fast: rate: Input should be a valid number, got 'fast'"),
        ("model={kind: flat}", "--set model={kind: flat}: model.kind: unknown kind 'flat' (known: wide, deep)"),
        ("rate", "--set rate: expected KEY.PATH=VALUE"),
        ("=1", "--set =1: expected KEY.PATH=VALUE"),
        ("data..root=1", "--set data..root=1: expected KEY.PATH=VALUE"),
        ("model.kind.x=1", "--set model.kind.x=1: model.kind is 'wide', not a section"),
        ("stages.0.x=1", "--set stages.0.x=1: stages is a list of 0, positions start at 0"),
        ("rate=[", "--set rate=[:1:2: not valid YAML"),
        ("rate=*x", "--set rate=*x:1:1: anchors"),
    ],
)
def test_a_wrong_assignment_is_named_as_the_place(fault: Callable[..., str], assignment: str, message: str) -> None:
    assert fault(GOOD + "stages: []\n", (assignment,)).startswith(message)


class Places(Settings):
    root: Path
    names: tuple[str, ...] = ()
    files: Mapping[str, Path] = Field(default_factory=dict)
    table: Path | None = None
    count: int = 0


@pytest.mark.parametrize("text", ["2024", "0001", "a #1", "[0001]", "x: y", "[0001", "*x", "@list", "1e3", "true", "{a}"])
def test_what_is_assigned_to_a_path_is_its_text_and_no_yaml(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text("root: data\n")
    assert load(tmp_path / "a.yaml", Places, [f"root={text}"]).root == Path(text)
    assert load(tmp_path / "a.yaml", Places, [f"files.vgg={text}"]).files == {"vgg": Path(text)}
    assert load(tmp_path / "a.yaml", Places, [], {"root": text}).root == Path(text)


def test_quotes_and_absence_still_mean_what_they_mean_in_yaml(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("root: 2024\nnames: [0001, two]\ntable: null\n")
    places = load(tmp_path / "a.yaml", Places)
    assert (places.root, places.names, places.table) == (Path("2024"), ("0001", "two"), None)
    assert load(tmp_path / "a.yaml", Places, ["root='a b'", "table=~", "count=3"]) == places.model_copy(
        update={"root": Path("a b"), "count": 3}
    )
    with pytest.raises(ConfigError, match="count: Input should be a valid integer"):
        load(tmp_path / "a.yaml", Places, ["count='3'"])


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.yaml").write_text("root: ~/data\nfiles: {vgg: ~/vgg.pth}\n")
    places = load(tmp_path / "a.yaml", Places)
    assert (places.root, places.files) == (tmp_path / "data", {"vgg": tmp_path / "vgg.pth"})


def test_an_assignment_far_too_deep_is_an_error_of_ours(fault: Callable[..., str]) -> None:
    assert "c.yaml" in fault(GOOD, ("model." + "a." * 5000 + "b=1",))


def test_an_assigned_value_replaces_the_place_of_what_it_replaced(fault: Callable[..., str]) -> None:
    text = "model: {kind: wide, norm: odd}\ndata: {root: x}\n"
    assert fault(text).startswith("c.yaml:1:27: model.norm")
    assert fault(text, ("model={kind: wide, norm: even}",)).startswith("--set model={kind: wide, norm: even}: model.norm")


# --- data that comes from elsewhere -----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [{"model": {1, 2}}, {"rate": float("nan")}, {"label": "\ud800"}])
def test_data_that_is_no_json_is_an_error_of_ours(data: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"^here: "):
        from_data(data, Run, "here")


# --- writing ----------------------------------------------------------------------------------------------------------

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), PLAIN, max_size=4))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_whatever_is_written_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, data: dict[str, object]) -> None:
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_text(to_yaml(data), encoding="utf-8")
    found = read(path).data
    assert json.dumps(found) == json.dumps(data)


@pytest.mark.parametrize(
    "text", ["1e-4", "1e5", "0o7", "0x1f", "no", "on", "null", "~", "1_000", "<<", "=", "!x", "&a", "*a", ".5"]
)
def test_words_that_look_like_numbers_stay_words(tmp_path: Path, text: str) -> None:
    run = Run(model=Wide(), data=Data(root=Path("x")), label=text, rate=1e-9)
    (tmp_path / "c.yaml").write_text(dump(run))
    assert load(tmp_path / "c.yaml", Run) == run


def test_a_template_is_valid_as_it_is_and_with_every_line_switched_on(tmp_path: Path) -> None:
    text = template(Run, {"model": {"kind": "wide"}, "data": {"root": "clips"}})
    path = tmp_path / "c.yaml"
    path.write_text(text)
    given = load(path, Run)
    assert given == Run(model=Wide(), data=Data(root=Path("clips")))
    assert "  # Width of the first layer.\n  # num_channels: 64\n  # [batch, none]\n  # norm: batch\n" in text
    settings = [line.replace("# ", "", 1) if ": " in line else line for line in text.splitlines()]
    path.write_text("\n".join(settings))
    assert load(path, Run) == given


# --- durations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("2h", 7200), ("1h30m", 5400), ("0.5h", 1800), (" 1m30s ", 90), ("1.5s", 1.5)]
)
def test_durations_are_counted_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "-5m", "5d", "0s", "1m1h", "1..5s", ".s", "1e3s", "infs", "5M"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError, match="is no duration"):
        parse_duration(text)


# --- hostile text -----------------------------------------------------------------------------------------------------

PIECES = ["b: ", "&a ", "*a", "!!x ", "---", "...", "<<", "1e9", ".nan", "0x", "rate", "data", "kind", "  ", "- "]
LETTERS = list("a:\n{}[],'\"|>%#?\t\\\x00\x85\ufeff\u2028é😀")


@given(st.lists(st.sampled_from(PIECES + LETTERS), max_size=30).map("".join))
@settings(max_examples=2000, deadline=None, derandomize=True)
def test_no_text_raises_anything_but_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(text.encode())
    with contextlib.suppress(ConfigError):
        load(path, Run)


# --- keys of earlier releases -----------------------------------------------------------------------------------------


class _Section(Settings):
    vgg: str = ""


class _Renamed(Settings):
    renamed: ClassVar[Mapping[str, tuple[str, str]]] = {
        "old_rate": ("rate", "99.0"),
        "old_file": ("section.vgg", "99.0"),
        "expired": ("rate", "0.0.1"),
    }
    rate: float = 1.0
    section: _Section = _Section()


def test_an_old_key_is_read_under_its_new_name_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match=r"c.yaml: the key old_rate is deprecated.*use rate"):
        assert from_data({"old_rate": 2.0}, _Renamed, "c.yaml").rate == 2
    with pytest.warns(DeprecationWarning, match=r"use section\.vgg"):
        assert from_data({"old_file": "x"}, _Renamed, "c.yaml").section.vgg == "x"


def test_an_old_key_beside_its_new_name_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match=r"^c.yaml: old_rate: is the old name of rate; both are set, keep rate"):
        from_data({"old_rate": 2.0, "rate": 3.0}, _Renamed, "c.yaml")


def test_a_key_whose_time_has_come_fails_here_before_a_release() -> None:
    with pytest.raises(RuntimeError, match=r"was to be removed in 0\.0\.1"):
        from_data({"expired": 2.0}, _Renamed, "c.yaml")
