"""Label tables: what a value in a file means, and what is said when it means nothing."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import media_clips
from vidgen.errors import InputError
from vidgen.media import frames, images, labels
from vidgen.media.labels import CAMVID, CITYSCAPES, LabelTable

TRAFFIC = LabelTable(("road", "car"), ((128, 64, 128), (0, 0, 142)), (7, 26), ignore=(255,))
PAINTED = LabelTable(("road", "car"), ((128, 64, 128), (0, 0, 142)), None, ignore=(0xFFFFFF,))


def test_ids_become_classes_and_ignored_ids_minus_1():
    classes = TRAFFIC.decode(np.array([[7, 26, 255]], np.uint8), "a.png")
    assert classes.dtype == np.int64
    assert classes.tolist() == [[0, 1, -1]]
    assert TRAFFIC.decode(np.array([[26, 7]], np.uint16), "a.png").tolist() == [[1, 0]]


def test_colours_become_classes():
    pixels = np.array([[[0, 0, 142], [128, 64, 128], [255, 255, 255]]], np.uint8)
    assert PAINTED.decode(pixels, "a.png").tolist() == [[1, 0, -1]]


def test_an_unknown_id_is_named_with_its_place_and_number():
    pixels = np.full((4, 5), 7, np.uint8)
    pixels[2, 3] = pixels[3, 0] = 41
    pixels[3, 4] = 9
    with pytest.raises(InputError) as caught:
        TRAFFIC.decode(pixels, "clip.mkv frame 12")
    assert str(caught.value) == (
        "clip.mkv frame 12: label id 41 at row 2, column 3 (2 pixels) and 1 more unknown ids; the table knows 7, 26, 255"
    )


def test_an_unknown_colour_is_named_with_its_place_and_number():
    pixels = np.full((4, 5, 3), (0, 0, 142), np.uint8)
    pixels[1, 2] = (0, 0, 143)
    with pytest.raises(
        InputError, match=r"label color \(0, 0, 143\) at row 1, column 2 \(1 pixels\); the table knows \(0, 0, 142\)"
    ):
        PAINTED.decode(pixels, "a.png")


def test_a_whole_range_of_ids_is_named_by_its_ends():
    with pytest.raises(InputError, match=r"label id 35 .* the table knows 0\.\.34"):
        labels.plain(35).decode(np.full((2, 2), 35, np.uint8), "a.png")


@pytest.mark.parametrize(
    ("table", "pixels", "message"),
    [
        (TRAFFIC, np.zeros((2, 2, 3), np.uint8), "holds colors, but the label table knows ids"),
        (PAINTED, np.zeros((2, 2), np.uint8), "holds ids, but the label table knows colors"),
    ],
)
def test_ids_and_colours_are_never_mistaken_for_each_other(table, pixels, message):
    with pytest.raises(InputError, match=message):
        table.decode(pixels, "a.png")


def test_classes_are_painted_in_their_colours_and_ignored_pixels_black():
    assert CITYSCAPES.colorize(np.array([[7, 26, -1]])).tolist() == [[[128, 64, 128], [0, 0, 142], [0, 0, 0]]]


@settings(max_examples=50, deadline=None, database=None)
@given(st.lists(st.integers(0, 65535), min_size=1, max_size=40, unique=True), st.integers(0, 2**32 - 1))
def test_decoding_undoes_any_table_of_ids(values, seed):
    table = LabelTable(tuple(map(str, values)), labels.distinct_colors(len(values)), tuple(values))
    classes = np.random.default_rng(seed).integers(0, len(values), (5, 6))
    assert np.array_equal(table.decode(np.array(values, np.uint16)[classes], "a.png"), classes)
    by_colour = LabelTable(table.names, table.colors, None)
    assert np.array_equal(by_colour.decode(by_colour.colorize(classes), "a.png"), classes)


def test_a_dropped_class_is_ignored_and_the_others_move_up():
    table = CAMVID.without("sky", "unlabelled")
    assert table.num_classes == 10
    assert table.names[0] == "building"
    assert table.decode(np.array([[0, 1, 10, 11]], np.uint8), "a.png").tolist() == [[-1, 0, 9, -1]]
    with pytest.raises(InputError, match="no class 'moon'"):
        CAMVID.without("moon")


@pytest.mark.parametrize("table", [TRAFFIC, PAINTED, CITYSCAPES, CAMVID, labels.plain(3, ignore=(255,))])
def test_a_table_survives_json_and_pickle(table):
    assert LabelTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table
    table.decode(np.zeros((0, 0) if table.values else (0, 0, 3), np.uint8), "a.png")
    assert pickle.loads(pickle.dumps(table)) == table


def test_tables_are_read_from_json_and_csv(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(TRAFFIC.to_dict()))
    (tmp_path / "ids.csv").write_text("name, id, r, g, b\nroad, 7, 128, 64, 128\ncar, 26, 0, 0, 142\nignore, 255, 0, 0, 0\n")
    (tmp_path / "colors.csv").write_text("\ufeffname,r,g,b\nroad,128,64,128\ncar,0,0,142\nignore,255,255,255\n", encoding="utf-8")
    assert LabelTable.from_file(tmp_path / "a.json") == TRAFFIC
    assert LabelTable.from_file(tmp_path / "ids.csv") == TRAFFIC
    assert LabelTable.from_file(tmp_path / "colors.csv") == PAINTED


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "not a label table"),
        ("a.json", "[1, 2]", "expected names, colors, values, ignore"),
        ("a.json", '{"names": ["a"]}', "expected names, colors, values, ignore"),
        ("a.json", '{"names": ["a"], "colors": [[0, 0, 0]], "colours": []}', "expected names, colors, values, ignore"),
        ("a.json", '{"names": ["a", "b"], "colors": [[0, 0, 0]]}', "2 names, 1 colors"),
        ("a.json", '{"names": ["a"], "colors": [[0, 0]]}', "label table"),
        ("a.json", '{"names": ["a"], "colors": [[0, 0, 300]]}', r"three numbers 0\.\.255"),
        ("a.json", '{"names": ["a"], "colors": [[0, 0, 0]], "values": [70000]}', r"0\.\.65535"),
        ("a.json", '{"names": ["a"], "colors": [[0, 0, 0]], "values": [-1]}', r"0\.\.65535"),
        ("a.json", '{"names": ["a", "b"], "colors": [[0, 0, 0], [1, 1, 1]], "values": [3, 3]}', "id 3 stands for two classes"),
        ("a.json", '{"names": ["a", "b"], "colors": [[9, 0, 0], [9, 0, 0]]}', r"color \(9, 0, 0\) stands for two classes"),
        ("a.json", '{"names": ["a"], "colors": [[0, 0, 0]], "values": [3], "ignore": [3]}', "id 3 stands for two classes"),
        ("a.json", '{"names": [], "colors": []}', "0 names"),
        ("a.csv", "", "0 bytes"),
        ("a.csv", "name,id\nroad,1\n", "expected the columns"),
        ("a.csv", "name,id,r,g,b\nroad,one,1,2,3\n", "not a label table"),
        ("a.csv", "name,id,r,g,b\nroad,1,1,2\n", "not a label table"),
        ("a.csv", b"name,id,r,g,b\nr\xffad,1,1,2,3\n", "not a label table"),
        ("a.json", "[" * 100000, "not a label table"),
    ],
)
def test_a_table_that_cannot_be_is_refused_with_the_file_and_the_reason(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as caught:
        LabelTable.from_file(path)
    assert str(caught.value).startswith(str(path))


def test_the_tables_of_well_known_data_sets_are_complete():
    assert (labels.named("cityscapes").num_classes, labels.named("camvid").num_classes) == (35, 12)
    by_name = dict(zip(CITYSCAPES.names, range(35), strict=True))
    official = {
        "road": 7,
        "sidewalk": 8,
        "building": 11,
        "pole": 17,
        "vegetation": 21,
        "sky": 23,
        "person": 24,
        "car": 26,
        "bicycle": 33,
    }
    assert {name: by_name[name] for name in official} == official
    with pytest.raises(InputError, match=r"known are cityscapes, .*palette:NAME") as caught:
        labels.named("cityscape")
    assert caught.value.hint == "did you mean cityscapes?"


@pytest.mark.parametrize(
    ("name", "num_classes", "some"),
    [
        ("cityscapes_train_ids", 19, {0: "road", 13: "car", 18: "bicycle", 255: None}),
        ("camvid_11", 11, {0: "sky", 10: "cyclist", 11: None}),
        ("camvid_32", 32, {0: "Animal", 17: "Road", 30: "Void", 31: "Wall"}),
        ("ade20k", 150, {0: None, 1: "wall", 13: "person", 150: "flag"}),
        ("coco_stuff", 171, {0: "person", 71: "tv", 91: "banner", 181: "wood", 255: None}),
        ("voc", 21, {0: "background", 15: "person", 20: "tvmonitor", 255: None}),
        ("mapillary", 66, {13: "Road", 55: "Car", 65: "Unlabeled"}),
    ],
)
def test_the_ids_of_a_data_set_mean_the_classes_of_its_authors(name, num_classes, some):
    table = labels.named(name)
    assert table.num_classes == num_classes
    classes = table.decode(np.array([list(some)], np.uint8), "a.png")[0]
    assert [None if index < 0 else table.names[index] for index in classes] == list(some.values())


@pytest.mark.parametrize("name", labels.PALETTES)
def test_files_in_the_colors_of_a_data_set_give_the_classes_of_its_ids(name):
    table, of_ids = labels.named(name), labels.named(name.removeprefix("palette:"))
    assert (table.names, table.colors) == (of_ids.names, of_ids.colors)
    assert labels.LabelTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table
    painted = of_ids.colorize(np.arange(of_ids.num_classes)[None])
    first = [of_ids.colors.index(color) for color in of_ids.colors]
    assert table.decode(painted, "a.png").tolist() == [first]


def test_colors_that_two_classes_share_are_only_taken_where_a_table_says_so():
    assert labels.named("palette:cityscapes").decode(np.array([[[153, 153, 153]]], np.uint8), "a.png").tolist() == [[17]]
    with pytest.raises(InputError, match="stands for two classes"):
        LabelTable(("a", "b"), ((9, 9, 9), (9, 9, 9)), None)


def test_ids_without_colors_of_their_own_have_no_palette():
    with pytest.raises(InputError, match="coco_stuff has no colors of its own"):
        labels.named("palette:coco_stuff")


def test_the_table_that_the_colors_of_a_file_fit_is_named():
    own = np.array([[[0, 0, 192], [128, 0, 192], [64, 128, 192]]], np.uint8)  # sidewalk, lane marking, SUV of CamVid's own
    for table in (CAMVID, labels.named("palette:camvid"), PAINTED):
        with pytest.raises(InputError) as caught:
            table.decode(own, "a.png")
        assert caught.value.hint == "its colors are those of the label table palette:camvid_32"
    assert labels.matching_palettes(media_clips.smooth_frames(1)[0]) == []


def test_a_table_is_named_or_a_file(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(TRAFFIC.to_dict()))
    assert labels.find(str(tmp_path / "a.json")) == TRAFFIC
    assert labels.find("palette:voc") == labels.named("palette:voc")
    with pytest.raises(InputError, match="'camvit': not known"):
        labels.find("camvit")
    with pytest.raises(InputError, match=r"a\.jsn: not found"):
        labels.find(str(tmp_path / "a.jsn"))


def test_many_classes_have_different_colours():
    assert len(set(labels.distinct_colors(256))) == 256


def sources(tmp_path, *maps: np.ndarray) -> list[frames.FrameSource]:
    for index, pixels in enumerate(maps):
        images.write_png(tmp_path / str(index) / "0.png", pixels)
    return [frames.open_source(tmp_path / str(index), kind="labels") for index in range(len(maps))]


def test_classes_are_discovered_from_ids_and_colours(tmp_path):
    table = labels.discover(sources(tmp_path, np.array([[36, 54]], np.uint8), np.array([[255, 36]], np.uint8)))
    assert (table.values, table.names) == ((36, 54, 255), ("id 36", "id 54", "id 255"))
    painted = np.array([[[253, 13, 0], [0, 253, 9]]], np.uint8)
    table = labels.discover(sources(tmp_path / "painted", painted))
    assert (table.values, table.colors) == (None, ((0, 253, 9), (253, 13, 0)))
    assert table.decode(painted, "a.png").tolist() == [[1, 0]]


def test_what_has_no_classes_is_not_discovered(tmp_path):
    with pytest.raises(InputError, match="more than 256 different colors"):
        labels.discover(sources(tmp_path / "photo", media_clips.smooth_frames(1)[0]))
    with pytest.raises(InputError, match="unlike the label files before"):
        labels.discover(sources(tmp_path / "mixed", np.zeros((2, 2), np.uint8), np.zeros((2, 2, 3), np.uint8)))
    with pytest.raises(InputError, match="no label frames"):
        labels.discover([])


def test_real_label_maps_are_decoded(data_root):
    def opened(where: str) -> frames.FrameSource:
        return frames.open_source(data_root / where, kind="labels")

    for where, table in (
        ("camvid/labels/0016E5", CAMVID),
        ("cityscapes_stills/labels", CITYSCAPES),
        ("cityscapes_clip/labels/aachen", CITYSCAPES),
    ):
        frame = opened(where).read(0, 1)[0]
        classes = table.decode(frame.pixels, frame.name)
        assert np.array_equal(classes, frame.pixels)
    face = labels.discover([opened("face/labels/clip")])
    assert face.values == (36, 54, 60, 66, 79, 115, 176, 182, 195, 219, 237, 255)


def test_real_instance_ids_name_the_class_of_every_object(data_root):
    instances = frames.open_source(data_root / "cityscapes_stills/instances", kind="labels").read(0, 1)[0].pixels
    classes = frames.open_source(data_root / "cityscapes_stills/labels", kind="labels").read(0, 1)[0].pixels
    wide = instances.astype(int)
    assert instances.dtype == np.uint16
    assert wide.max() > 26000
    assert np.array_equal(np.where(wide >= 1000, wide // 1000, wide), classes)


def test_shades_of_a_colour_are_one_class_and_smoothed_outlines_mean_the_nearest(tmp_path):
    painted = np.full((40, 40, 3), (250, 10, 10), np.uint8)
    painted[:, 20:] = (10, 250, 10)
    painted[:, 30:] = (12, 248, 10)
    painted[:6, 19] = (150, 100, 10)
    painted[0, 0] = (0, 0, 255)  # too little to be a class
    table = labels.main_colors(sources(tmp_path, painted))
    assert set(table.colors) == {(10, 250, 10), (250, 10, 10)}
    green = table.colors.index((10, 250, 10))
    decoded = table.decode(painted, "painted")
    assert (decoded[:, 20:] == green).all()
    assert (decoded[1:, :20] == 1 - green).all()
    assert labels.LabelTable.from_dict(table.to_dict()) == table


def test_main_colours_are_not_sought_in_ids(tmp_path):
    with pytest.raises(InputError, match=r"holds ids, not colors"):
        labels.main_colors(sources(tmp_path, np.zeros((4, 4), np.uint8)))


@pytest.mark.parametrize(
    ("shade", "is_the_same"),
    [((148, 100, 100), True), ((149, 100, 100), False), ((127, 127, 127), True), ((128, 128, 128), False)],
)
def test_a_main_colour_takes_in_shades_up_to_48_away_in_colour_space(tmp_path, shade, is_the_same):
    painted = np.full((40, 40, 3), 100, np.uint8)
    painted[:, 30:] = shade
    table = labels.main_colors(sources(tmp_path, painted))
    assert set(table.colors) == ({(100, 100, 100)} if is_the_same else {(100, 100, 100), shade})


@pytest.mark.parametrize(("num_colors", "is_a_label_map"), [(200, True), (216, False)])
def test_a_main_colour_covers_half_a_percent_and_without_one_there_are_no_labels(tmp_path, num_colors, is_a_label_map):
    apart = np.stack(np.meshgrid(*[np.arange(0, 256, 51)] * 3), axis=-1).reshape(1, 216, 3).astype(np.uint8)
    painted = sources(tmp_path, apart[:, :num_colors])
    if is_a_label_map:
        assert labels.main_colors(painted).num_classes == num_colors
    else:
        with pytest.raises(InputError, match=r"no color covers half a percent of the label pictures"):
            labels.main_colors(painted)


def test_labels_are_decoded_in_little_memory_beside_the_map():
    """What numpy allocates is counted by tracemalloc: 8 bytes a pixel for the classes and a bounded rest."""
    generator = np.random.default_rng(0)
    colors = labels.distinct_colors(40)
    table = LabelTable(tuple(map(str, range(40))), colors, None)
    pixels = np.array(colors, np.uint8)[generator.integers(0, 40, (2000, 4000))]
    noise = generator.integers(0, 256, (1000, 2000, 3), dtype=np.uint8)
    for subject, picture in ((table, pixels), (replace(table, nearest=True), pixels), (replace(table, nearest=True), noise)):
        tracemalloc.start()
        subject.decode(picture, "x")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * picture.shape[0] * picture.shape[1] + (256 << 20)
    assert np.array_equal(table.colorize(table.decode(pixels, "x")), pixels)


def test_a_table_of_very_many_classes_is_checked_in_no_time():
    count = 60_000
    table = LabelTable(("x",) * count, ((0, 0, 0),) * count, tuple(range(count)))
    assert table.num_classes == count
    with pytest.raises(InputError, match="id 59999 stands for two classes"):
        LabelTable(("x",) * count, ((0, 0, 0),) * count, (*range(count - 1), 59_999), ignore=(59_999,))
    with pytest.raises(InputError, match="at most 65536"):
        LabelTable(("x",) * 70_000, ((0, 0, 0),) * 70_000, tuple(range(70_000)))


def test_a_class_starts_from_its_namesake_or_else_from_one_that_looks_alike():
    known = labels.named("street").names
    pairs = labels.nearest_classes(labels.named("cityscapes").names, known)
    meant = {labels.named("cityscapes").names[index]: known[place] for index, place in pairs.items()}
    assert meant["car"] == meant["truck"] == "car"
    assert meant["vegetation"] == "tree"
    assert meant["sidewalk"] == "pavement"
    assert meant["rider"] == meant["person"] == "pedestrian"
    assert meant["traffic light"] == "pole"
    assert "dynamic" not in meant
    assert labels.nearest_classes(["Sky"], ["a", "sky"]) == {0: 1}
