"""Promises of the label map: there and back, one void rule, and errors that say where a mask is wrong."""

from pathlib import Path

import numpy as np
import pytest
from layouts import TINY
from pydantic import TypeAdapter, ValidationError

from veduta.labels import IGNORE_INDEX, LabelClass, LabelMap, read_label_map

NOWHERE = Path("mask.png")


def label_map(*file_ids: int, void: tuple[int, ...] = ()) -> LabelMap:
    classes = tuple(LabelClass(file_id=i, name=f"class {i}", color=(i, i, i)) for i in file_ids)
    return LabelMap(name="test", classes=classes, void_ids=void)


def test_encode_gives_positions_and_void() -> None:
    mask = np.array([[10, 0, 7], [255, 3, 10]], np.uint8)
    encoded = TINY.encode(mask, path=NOWHERE)
    assert encoded.dtype == np.uint8
    assert encoded.tolist() == [[0, 1, 2], [IGNORE_INDEX, IGNORE_INDEX, 0]]


def test_decode_undoes_encode_with_the_first_void_id_for_all_void() -> None:
    mask = np.array([[10, 0, 7], [255, 3, 10]], np.uint8)
    assert TINY.decode(TINY.encode(mask, path=NOWHERE)).tolist() == [[10, 0, 7], [255, 255, 10]]


def test_all_256_values_can_be_in_use() -> None:
    labels = label_map(*range(255, 0, -1), void=(0,))
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert labels.num_classes == 255
    assert (labels.decode(labels.encode(mask, path=NOWHERE)) == mask).all()


def test_a_foreign_value_is_refused_with_file_value_count_and_place() -> None:
    mask = np.full((30, 50), 7, np.uint8)
    mask[4, 9:] = 99
    mask[20:] = 99
    mask[0, 0] = 200
    expected = (
        r"^city/mask\.png: value 99 at row 4, column 9 \(541 pixels; also \[200\]\) is not in label map 'tiny' "
        r"\(10 sky, 0 road, 7 car; void \[255, 3\]\)"
    )
    with pytest.raises(ValueError, match=expected):
        TINY.encode(mask, path=Path("city/mask.png"))


def test_255_is_void_only_where_the_map_says_so() -> None:
    with pytest.raises(ValueError, match="value 255 at row 0, column 0"):
        label_map(0, 1).encode(np.full((2, 2), 255, np.uint8), path=NOWHERE)


def test_the_class_count_names_and_palette_follow_from_the_classes() -> None:
    assert TINY.num_classes == 3 and TINY.names == ("sky", "road", "car")
    assert TINY.palette.shape == (256, 3) and TINY.palette.dtype == np.uint8
    assert TINY.palette[:3].tolist() == [list(c.color) for c in TINY.classes]
    assert not TINY.palette[3:].any()


def test_a_label_map_is_equal_after_json() -> None:
    adapter = TypeAdapter(LabelMap)
    assert adapter.validate_json(adapter.dump_json(TINY)) == TINY


@pytest.mark.parametrize(
    ("file_ids", "void", "message"),
    [
        ((), (), "1 to 255 classes, got 0"),
        (range(256), (), "1 to 255 classes, got 256"),
        ((1, 2, 1), (), r"file ids must differ.*got \[1, 1, 2\]"),
        ((1, 2), (2,), "file ids must differ, classes and void together"),
        ((1, 256), (), "values of 8-bit masks"),
        ((1,), (-1,), "values of 8-bit masks"),
    ],
)
def test_a_contradictory_map_is_refused(file_ids: tuple[int, ...], void: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        label_map(*file_ids, void=void)


def test_two_classes_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="class names must differ"):
        LabelMap(name="x", classes=tuple(LabelClass(file_id=i, name="a", color=(0, 0, 0)) for i in (0, 1)))


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_text(text, encoding=encoding)
    return path


def test_labels_json_is_read_and_named_after_its_folder(tmp_path: Path) -> None:
    text = '{"classes": [{"file_id": 4, "name": "Straße", "color": [1, 2, 3]}], "void_ids": [0]}'
    labels = read_label_map(write(tmp_path / "labels.json", text))
    assert labels.name == tmp_path.name
    assert labels.classes == (LabelClass(file_id=4, name="Straße", color=(1, 2, 3)),) and labels.void_ids == (0,)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_classes_csv_is_read_with_void_by_its_name(tmp_path: Path, encoding: str) -> None:
    text = "index,name,r,g,b\n4,Straße,1,2,3\n0, Void ,0,0,0\n255,unlabelled,0,0,0\n"
    labels = read_label_map(write(tmp_path / "classes.csv", text, encoding))
    assert labels.classes == (LabelClass(file_id=4, name="Straße", color=(1, 2, 3)),) and labels.void_ids == (0, 255)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"classes": [', "not valid JSON"),
        ("[]", "should be a dictionary"),
        ("{}", "classes Field required"),
        ('{"classes": []}', "a label map needs 1 to 255 classes, got 0"),
        ('{"classes": [{"file_id": 0, "name": "a"}]}', r"classes\.0\.color Field required"),
        ('{"classes": [{"file_id": "x", "name": "a", "color": [0, 0, 0]}]}', r"classes\.0\.file_id .*valid integer"),
        ('{"classes": [{"file_id": 0, "name": "a", "color": [0, 0, 300]}]}', "RGB values from 0 to 255"),
        ('{"classes": [{"file_id": 0, "name": "a", "color": [0, 0, 0]}], "void": [1]}', "void Unexpected keyword"),
        (
            '{"classes": [{"file_id": 0, "name": "\\ud800", "color": [0, 0, 0]}]}',
            r"printable text, got \['\\ud800'\]",
        ),
        ('{"classes": [{"file_id": 0, "name": "a\\u0000", "color": [0, 0, 0]}]}', "printable text"),
        ('{"classes": [{"file_id": 0, "name": " ", "color": [0, 0, 0]}]}', r"printable text, got \[' '\]"),
        ('{"classes": [], "void_ids": [' + "9" * 5000 + "]}", "not valid JSON: .*digits"),
    ],
)
def test_a_wrong_labels_json_is_refused_with_file_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "labels.json", text)
    with pytest.raises(ValueError, match=message) as caught:
        read_label_map(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"columns \['b', 'g', 'index', 'name', 'r'\] are missing"),
        ("index;name;r;g;b\n", "expected index,name,r,g,b"),
        ("index,name,r,g\n0,a,0,0\n", r"columns \['b'\] are missing"),
        ("index,name,r,g,b\n0,a,0,0,0\n1,b,0,0,red\n", "line 3: expected .* whole numbers as index, r, g, b.*'red'"),
        ("index,name,r,g,b\n0,a,0,0\n", "line 2: expected a name, and whole numbers"),
        ("r,g,b,index,name\n0,0,0,1\n", "line 2: expected a name"),
        ("index,name,r,g,b\n0,a,0,0,0\n0,b,0,0,0\n", r"file ids must differ.*\[0, 0\]"),
        ("index,name,r,g,b\n0,a,0,0,0\n1,a,0,0,0\n", "class names must differ"),
        ("index,name,r,g,b\n256,a,0,0,0\n", "values of 8-bit masks"),
        ("index,name,r,g,b\n0,,0,0,0\n", r"class names must be printable text, got \[''\]"),
        ("index,name,r,g,b\n0,void,0,0,0\n", "a label map needs 1 to 255 classes, got 0"),
    ],
)
def test_a_wrong_classes_csv_is_refused_with_file_and_row(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "classes.csv", text)
    with pytest.raises(ValueError, match=message) as caught:
        read_label_map(path)
    assert str(caught.value).startswith(str(path))


def test_another_encoding_is_refused_by_file(tmp_path: Path) -> None:
    path = write(tmp_path / "classes.csv", "index,name,r,g,b\n0,Straße,0,0,0\n", "latin-1")
    with pytest.raises(ValueError, match=r"classes\.csv: not UTF-8 text"):
        read_label_map(path)
