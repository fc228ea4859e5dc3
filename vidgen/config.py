"""Configuration files: strict YAML in, frozen typed settings out, and every fault reported at once with its place.

The scalars are those of the YAML 1.2 core schema, so `1e-4` is a number and `no` is a word. What makes YAML surprising or
unsafe is refused: duplicate keys, anchors, aliases, tags, several documents, infinities, huge or deeply nested files.
Values keep their type: a quoted "3" is not a number and 3.0 is not a whole number.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import pydantic
import yaml

from vidgen import kinds
from vidgen.deprecation import deprecated
from vidgen.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_FAULTS = 20
DISCRIMINATOR = "kind"
"""The key that says which of several settings a section holds."""

Key = tuple[str | int, ...]


class Settings(pydantic.BaseModel):
    """Base of every configuration section: unknown keys, infinities and later changes are errors; defaults are checked too.

    Attributes:
        renamed: keys of earlier releases -> (the key now, the release that stops reading the old one); a key of a section inside
            is written with a dot.
    """

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    renamed: ClassVar[Mapping[str, tuple[str, str]]] = {}

    @pydantic.field_validator("*", mode="after")
    @classmethod
    def _home(cls, value: Any) -> Any:
        """Paths with a leading `~` mean the home folder, as they do where a shell reads them."""
        if isinstance(value, Path) and str(value).startswith("~") and not os.path.lexists(value):
            return Path(os.path.expanduser(value))
        if isinstance(value, Mapping) and any(isinstance(item, Path) for item in value.values()):
            return {name: cls._home(item) for name, item in value.items()}
        return value


T = TypeVar("T", bound=pydantic.BaseModel)


@dataclass(frozen=True, order=True)
class Origin:
    """Where a key or value was written: a place in a file (1-based; 0 where there is none) or a `--set` argument."""

    line: int
    column: int
    source: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True)
class Document:
    """Plain data (dict, list, str, int, float, bool, None) and where each part of it was written.

    Attributes:
        data: the outermost mapping.
        source: name of the whole, for messages about parts whose place is unknown.
        keys: path -> where its key stands.
        values: path -> where its value stands.
        texts: path -> what was written, where that has no quotes and was read as something else than this text.
        faults: path -> why what was written there is no YAML; nothing, where only the text is wanted.
    """

    data: dict[str, Any]
    source: str
    keys: dict[Key, Origin] = field(default_factory=dict)
    values: dict[Key, Origin] = field(default_factory=dict)
    texts: dict[Key, str] = field(default_factory=dict)
    faults: dict[Key, ConfigError] = field(default_factory=dict)

    def origin(self, key: Key, *, of_key: bool = False) -> Origin:
        """Where `key` was written, or the nearest part around it."""
        places = self.keys if of_key else self.values
        if key in places:
            return places[key]
        return self.origin(key[:-1]) if key else Origin(0, 0, self.source)


def load(path: Path, schema: type[T], sets: Sequence[str] = (), values: Mapping[str, Any] | None = None) -> T:
    """Settings of the file `path`, changed by the `key.path=value` assignments in `sets`.

    Args:
        values: further changes, by key path, that are no YAML text but the values themselves.

    Raises:
        ConfigError: the file cannot be read, or its content is not what `schema` asks for; one line per fault.
    """
    document = read(path, sets)
    for key, value in (values or {}).items():
        _put(document, key.split("."), value, Origin(0, 0, f"{key}={value}"))
    return validate(document, schema)


def read(path: Path, sets: Sequence[str] = ()) -> Document:
    """Data of a YAML file with the `key.path=value` assignments in `sets` applied, not yet checked against a schema.

    Args:
        path: the file, or the name of a shipped configuration such as vid2vid/street; see `find`.

    Raises:
        ConfigError: the file is missing, not strict YAML, or an assignment does not fit it.
    """
    path = find(path)
    document = _Reader(_text(path), str(path)).document()
    for assignment in sets:
        _assign(document, assignment)
    return document


def shipped() -> dict[str, Path]:
    """Name -> file of every configuration that comes with vidgen, such as `vid2vid/street`."""
    inside = Path(__file__).parent / "configs"  # installed; in a source tree the folder stands beside the package
    folder = inside if inside.is_dir() else Path(__file__).parents[1] / "configs"
    return {f"{path.parent.name}/{path.stem}": path for path in sorted(folder.glob("*/*.yaml"))}


def find(path: Path) -> Path:
    """`path` itself where it exists, else the shipped configuration of that name."""
    name = path.as_posix().removeprefix("configs/").removesuffix(".yaml")
    return path if path.exists() else shipped().get(name, path)


def validate(document: Document, schema: type[T]) -> T:
    """`document` as an instance of `schema`.

    Raises:
        ConfigError: with one line per fault: `place: key.path: what would be right, got ...`.
    """
    try:
        _rename(document, document.data, [schema], ())
        _take_texts(document, schema)
        return schema.model_validate_json(json.dumps(document.data, default=str), strict=True)
    except pydantic.ValidationError as error:
        raise ConfigError(_describe(error, document, schema)) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{document.source}: cannot be used as settings ({error})") from None


def from_data(data: Mapping[str, Any], schema: type[T], where: str) -> T:
    """Settings from plain data; `where` names it in messages.

    Raises:
        ConfigError: one line per fault.
    """
    return validate(Document(dict(data), where), schema)


def parse_duration(text: str) -> float:
    """Seconds in a duration such as `90s`, `5m`, `1h30m` or `0.5h`.

    Raises:
        ConfigError: `text` is no duration, or not longer than 0 seconds.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = sum(float(value or 0) * unit for value, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0
    if seconds <= 0:
        raise ConfigError(f"{_show(text)} is no duration", hint="write it like 90s, 5m, 1h30m or 0.5h")
    return seconds


def dump(settings: pydantic.BaseModel) -> str:
    """YAML with every value of `settings`, defaults included, that `load` reads back to an equal object."""
    return to_yaml(settings.model_dump(mode="json"))


def to_yaml(data: Mapping[str, Any]) -> str:
    """YAML of plain data that reads back to the same values."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=120)


def template(schema: type[pydantic.BaseModel], given: Mapping[str, Any]) -> str:
    """YAML that holds `given` and, commented out, every other setting with its default; what each means stands above it."""
    return "".join(line + "\n" for line in _template_lines(schema, given, ""))


def _template_lines(schema: type[pydantic.BaseModel], given: Mapping[str, Any] | None, indent: str) -> Iterator[str]:
    """Lines of one section; `given` is None in a section that is commented out as a whole."""
    for name, item in schema.model_fields.items():
        is_given = given is not None and name in given
        start = indent if is_given or given is None else f"{indent}# "
        value = given[name] if given is not None and name in given else item.get_default(call_default_factory=True)
        meaning = " ".join((item.description or "").split())
        choices = _choices(item.annotation)
        if choices and name != DISCRIMINATOR:
            meaning = f"{meaning} [{', '.join(choices)}]".strip()
        if meaning:
            yield f"{indent}# {meaning}"
        section = _section(item.annotation, value)
        if section is None:
            yield f"{start}{name}: {_inline(value)}"
            continue
        yield f"{start}{name}:"
        yield from _template_lines(section, value if is_given else None, f"{start}  ")


def _section(annotation: Any, value: Any) -> type[pydantic.BaseModel] | None:
    """The class of a section with this value, or None where the value is no section."""
    if isinstance(value, pydantic.BaseModel):
        return type(value)
    if not isinstance(value, Mapping):
        return None
    models = _models(annotation)
    return next((model for model in models if value.get(DISCRIMINATOR) in _tags(model)), models[0] if models else None)


def _choices(annotation: Any) -> tuple[str, ...]:
    return tuple(str(value) for value in get_args(annotation)) if get_origin(annotation) is Literal else ()


def _inline(value: Any) -> str:
    plain = pydantic.TypeAdapter(Any).dump_python(value, mode="json")
    return yaml.dump(plain, Dumper=_Dumper, default_flow_style=True, sort_keys=False, width=10**6).removesuffix("...\n").rstrip()


# --- reading -------------------------------------------------------------------------------------------------------------

_DURATION = re.compile("".join(rf"(?:([0-9]{{1,6}}(?:\.[0-9]{{1,6}})?){unit})?" for unit in "hms"))
_NULL = re.compile(r"(?:null|Null|NULL|~|)")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)")
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_PREFIXED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NON_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class _Dumper(yaml.SafeDumper):
    """Quotes every string that YAML 1.1 or 1.2 would take for something else; never writes aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"(?:{_FLOAT.pattern})$"), list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(rf"(?:{_PREFIXED.pattern})$"), ["0"])


def _text(path: Path) -> str:
    kind = kinds.other_kind(path, "a configuration file")
    if kind is not None or path.is_dir():
        inside = path / "config.yaml"
        hint = f"the configuration of this run is {inside}" if inside.is_file() else None
        raise ConfigError(f"{path}: is {kind or 'a folder'}; a configuration file (YAML) was expected", hint=hint)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES >> 20} MiB, so hardly a configuration")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", hint=_near_files(path)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start} is 0x{content[error.start]:02x})") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _near_files(path: Path) -> str | None:
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix in (".yaml", ".yml")]
    except OSError:
        names = []
    near = difflib.get_close_matches(path.name, names, n=3) or sorted(names)[:5]
    if near:
        return f"in {path.parent} there is {', '.join(near)}"
    included = difflib.get_close_matches(path.as_posix(), shipped(), n=3)
    return f"vidgen comes with {', '.join(included)}" if included else None


class _Reader:
    """Builds plain data from the events of one YAML text, noting where each key and value stands."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self.keys: dict[Key, Origin] = {}
        self.values: dict[Key, Origin] = {}
        self.texts: dict[Key, str] = {}

    def document(self) -> Document:
        data = self.value()
        if data is None:
            data = {}
        if not isinstance(data, dict):
            raise ConfigError(f"{self.source}: expected `key: value` lines, got {_show(data)}")
        return Document(data, self.source, self.keys, self.values, self.texts)

    def value(self) -> Any:
        """The text's only value of any type; None for an empty text."""
        try:
            self.events = self._checked_events()
            first = next(self.events, None)
            data = None if first is None else self._build(first, ())
            extra = next(self.events, None)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"{self.source}:{mark.line + 1}:{mark.column + 1}" if mark else self.source
            raise ConfigError(f"{place}: not valid YAML: {error.problem or error.context}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError(f"{self.source}: not valid YAML: {' '.join(str(error).split())}") from None
        if extra is not None:
            raise self._fault(extra, "a second document starts here; a configuration is one document")
        return data

    def _checked_events(self) -> Iterator[Any]:
        depth = 0
        for event in yaml.parse(self.text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise self._fault(event, "anchors (&) and aliases (*) are not allowed; write the value out, or quote the text")
            if tag := getattr(event, "tag", None):
                raise self._fault(event, f"tags are not allowed, got {_show(tag)}; quote the text if it starts with '!'")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise self._fault(event, f"nested deeper than {MAX_DEPTH} levels")
            if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
                yield event

    def _build(self, event: Any, key: Key) -> Any:
        self.values[key] = self._origin(event)
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
            if not isinstance(value, str):
                self.texts[key] = event.value
            return value
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
                items.append(self._build(event, (*key, len(items))))
            return items
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            name = self._name(event, key)
            mapping[name] = self._build(next(self.events), (*key, name))
        return mapping

    def _name(self, event: Any, parent: Key) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise self._fault(event, "a key must be a word, not a list or a mapping")
        key = (*parent, event.value)
        if key in self.keys:
            raise self._fault(event, f"{_dotted(key)}: written twice, first at {self.keys[key]}")
        self.keys[key] = self._origin(event)
        return event.value

    def _scalar(self, event: Any) -> str | int | float | bool | None:
        text: str = event.value
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise self._fault(event, f"text must be Unicode, got {_show(text)}")
        if not event.implicit[0]:  # quoted
            return text
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text.lower() == "true"
        if _DECIMAL.fullmatch(text) or _PREFIXED.fullmatch(text):
            if len(text) > 100:
                raise self._fault(event, f"a number of {len(text)} digits")
            return int(text, 0 if text[1:2] in ("o", "x") else 10)
        if _NON_FINITE.fullmatch(text) or (_FLOAT.fullmatch(text) and not math.isfinite(float(text))):
            raise self._fault(event, f"numbers must be finite, got {_show(text)}")
        return float(text) if _FLOAT.fullmatch(text) else text

    def _origin(self, event: Any) -> Origin:
        return Origin(event.start_mark.line + 1, event.start_mark.column + 1, self.source)

    def _fault(self, event: Any, message: str) -> ConfigError:
        return ConfigError(f"{self._origin(event)}: {message}")


def _assign(document: Document, assignment: str) -> None:
    """Apply one `key.path=value`; a number in the path is a position in a list."""
    place = Origin(0, 0, f"--set {assignment}")
    path, equals, text = assignment.partition("=")
    parts = path.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"{place}: expected KEY.PATH=VALUE", hint="for example train.batch_size=2")
    reader = _Reader(text, str(place))
    try:
        value, fault = reader.value(), None
    except ConfigError as error:
        value, fault = text, error
    key = _put(document, parts, value, place)
    document.texts.update({(*key, *inner): written for inner, written in reader.texts.items()})
    if not text.lstrip().startswith(("'", '"')):
        document.texts[key] = text.strip()
    if fault is not None:
        document.faults[key] = fault


def _put(document: Document, parts: Sequence[str], value: Any, place: Origin) -> Key:
    """Set a value, and return its key."""
    parent: Any = document.data
    key: Key = ()
    for part in parts[:-1]:
        step = _step(parent, part, key, place)
        key = (*key, step)
        if isinstance(parent, dict) and parent.get(step) is None:
            parent[step] = {}
            document.keys[key] = document.values[key] = place
        parent = parent[step]
    step = _step(parent, parts[-1], key, place)
    parent[step] = value
    key = (*key, step)
    for places in (document.keys, document.values, document.texts, document.faults):
        for old in [old for old in places if old[: len(key)] == key]:
            del places[old]
    document.keys[key] = document.values[key] = place
    return key


def _step(parent: Any, part: str, key: Key, place: Origin) -> str | int:
    if isinstance(parent, dict):
        return part
    if isinstance(parent, list) and part.isdecimal() and len(part) < 10 and int(part) < len(parent):
        return int(part)
    expected = f"a list of {len(parent)}, positions start at 0" if isinstance(parent, list) else f"{_show(parent)}, not a section"
    raise ConfigError(f"{place}: {_dotted(key)} is {expected}")


# --- text ----------------------------------------------------------------------------------------------------------------


def _take_texts(document: Document, schema: type[pydantic.BaseModel]) -> None:
    """Give keys that want text what was written, though YAML read a number, a list or a comment in it: a folder called 2024.

    Raises:
        ConfigError: what was written is no YAML, and the key does not want text.
    """
    for key, text in document.texts.items():
        kinds = list(_kinds_of(document, schema, key))
        if _wants_text(kinds) and not (type(None) in kinds and _NULL.fullmatch(text)):
            parent: Any = document.data
            for part in key[:-1]:
                parent = parent[part]
            if parent[key[-1]] is not None or key in document.faults:
                parent[key[-1]] = text
                document.faults.pop(key, None)
    if document.faults:
        raise next(iter(document.faults.values()))


def _wants_text(kinds: Sequence[Any]) -> bool:
    plain = {kind for kind in kinds if kind is not type(None)}
    return bool(plain) and plain <= {str, Path}


def _kinds_of(document: Document, schema: type[pydantic.BaseModel], key: Key) -> Iterator[Any]:
    """The types that the value at `key` may have, unions taken apart."""
    kinds: list[Any] = [schema]
    data: Any = document.data
    for part in key:
        inner: list[Any] = []
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
                tags = _tags(kind)
                fits = not tags or (isinstance(data, dict) and data.get(DISCRIMINATOR) in tags)
                inner += [kind.model_fields[part].annotation] if fits and part in kind.model_fields else []
            elif get_origin(kind) is not None and get_args(kind):
                inner.append(get_args(kind)[-1 if issubclass(get_origin(kind), Mapping) else 0])
        kinds = [alternative for annotation in inner for alternative in _alternatives(annotation)]
        inside: Any = data if isinstance(data, dict | list) else {part: {}}
        data = inside[part]
    yield from kinds


def _alternatives(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _alternatives(part)
    elif get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) is not Literal:
        yield annotation
    else:
        yield Literal


# --- describing faults ---------------------------------------------------------------------------------------------------


def _describe(error: pydantic.ValidationError, document: Document, schema: type[pydantic.BaseModel]) -> str:
    """One line per faulty key, in the order of the file; several faults of one key are the branches of a union."""
    faults: dict[tuple[Origin, str], dict[str, str]] = {}
    for item in error.errors(include_url=False):
        origin, key, expected, found = _fault(item, document, schema)
        faults.setdefault((origin, _dotted(key)), {})[expected] = found
    lines = []
    for (origin, name), messages in sorted(faults.items(), key=lambda fault: (not fault[0][0].line, fault[0])):
        lines.append(": ".join(filter(None, [str(origin), name, " or ".join(messages) + next(iter(messages.values()))])))
    return "\n".join(lines[:MAX_FAULTS] + ([f"... and {len(lines) - MAX_FAULTS} more"] if len(lines) > MAX_FAULTS else []))


def _fault(item: Any, document: Document, schema: type[pydantic.BaseModel]) -> tuple[Origin, Key, str, str]:
    """Place, key path, what is wrong, and `, got ...` of one pydantic error."""
    key, models = _locate(item["loc"], document.data, schema)
    kind, found = item["type"], item["input"]
    got = f", got {_show(found)}"
    if kind == "extra_forbidden":
        known = list(dict.fromkeys(name for model in models for name in model.model_fields))
        return document.origin(key, of_key=True), key, "unknown key", _suggest(str(key[-1]), known)
    if kind == "missing":
        return document.origin(key[:-1]), key, "missing; it has no default", ""
    if kind in ("union_tag_invalid", "union_tag_not_found") and isinstance(found, dict):
        key = (*key, DISCRIMINATOR)
        known = [tag for model in models for tag in _tags(model)]
        if DISCRIMINATOR not in found:
            return document.origin(key), key, f"missing; it must be one of {', '.join(known)}", ""
        word = str(found[DISCRIMINATOR])
        return document.origin(key), key, f"unknown {DISCRIMINATOR} {_show(word)}", _suggest(word, known)
    if kind in ("model_type", "model_attributes_type", "dict_type", "union_tag_not_found"):
        return document.origin(key), key, "expected a section of `key: value` lines", got
    message = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return document.origin(key), key, message, "" if isinstance(found, dict) else got


def _locate(
    location: tuple[int | str, ...], data: Any, schema: type[pydantic.BaseModel]
) -> tuple[Key, list[type[pydantic.BaseModel]]]:
    """The key path of a pydantic location, without its union tags, and the models that may hold, or be, its last part."""
    models: list[type[pydantic.BaseModel]] = [schema]
    key: Key = ()
    for position, part in enumerate(location):
        if isinstance(data, list) and isinstance(part, int) and part < len(data):
            key, data = (*key, part), data[part]
        elif len(models) > 1 and all(_tags(model) for model in models):
            models = [model for model in models if part in _tags(model)] or models
        elif isinstance(data, dict) and (part in data or position == len(location) - 1):
            annotations = [model.model_fields[str(part)].annotation for model in models if part in model.model_fields]
            key, data = (*key, part), data.get(str(part))
            models = [model for annotation in annotations for model in _models(annotation)] or models
    return key, models


def _rename(document: Document, data: Any, models: Sequence[type[pydantic.BaseModel]], key: Key) -> None:
    """Move what stands under keys of earlier releases to the keys of today, with a warning each.

    Raises:
        ConfigError: both the old and the new key are set.
    """
    if isinstance(data, list):
        for index, item in enumerate(data):
            _rename(document, item, models, (*key, index))
    if not isinstance(data, dict):
        return
    kind = data.get(DISCRIMINATOR)
    chosen = [model for model in models if not _tags(model) or kind in _tags(model)]
    for model in chosen:
        for old, (new, removed_in) in getattr(model, "renamed", {}).items():
            if old in data:
                _move(document, data, key, old, new)
                deprecated(f"{document.origin((*key, *new.split('.')))}: the key {_dotted((*key, old))}", new, removed_in)
    for name, value in data.items():
        annotations = [model.model_fields[name].annotation for model in chosen if name in model.model_fields]
        _rename(document, value, [model for annotation in annotations for model in _models(annotation)], (*key, name))


def _move(document: Document, data: dict[str, Any], key: Key, old: str, new: str) -> None:
    *sections, name = new.split(".")
    place = data
    for section in sections:
        if not isinstance(place.get(section), dict):
            place[section] = {}
        place = place[section]
    if name in place:
        where = document.origin((*key, old), of_key=True)
        raise ConfigError(f"{where}: {_dotted((*key, old))}: is the old name of {new}; both are set, keep {new}")
    place[name] = data.pop(old)
    before, after = (*key, old), (*key, *new.split("."))
    places_of_all: tuple[dict[Key, Any], ...] = (document.keys, document.values, document.texts, document.faults)
    for places in places_of_all:
        for path in [path for path in places if path[: len(before)] == before]:
            places[(*after, *path[len(before) :])] = places.pop(path)


def _models(annotation: Any) -> list[type[pydantic.BaseModel]]:
    """The settings classes named in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _tags(model: type[pydantic.BaseModel]) -> tuple[str, ...]:
    """The values of the key that selects this model; empty for a model that is not one of several."""
    item = model.model_fields.get(DISCRIMINATOR)
    return get_args(item.annotation) if item else ()


def _suggest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return (f", did you mean '{near[0]}'?" if near else "") + f" (known: {', '.join(known)})"


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "a section"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _dotted(key: Key) -> str:
    return ".".join(str(part) for part in key)
