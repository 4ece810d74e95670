"""What a model is called, where it is found, and how sizes are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import CheckpointError, DeviceError
from engine.models import STARTER, STARTER_ID, ModelSource, locate
from engine.models.locate import ModelName
from engine.sizes import human_size, parse_size


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STARFILL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000000", 1_000_000),
        ("0", 0),
        ("512MiB", 512 * 2**20),
        ("512 mib", 512 * 2**20),
        ("2G", 2 * 2**30),
        ("2GB", 2 * 2**30),
        ("1.5k", 1_536),
        (" 3 TiB ", 3 * 2**40),
        ("7b", 7),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "MiB", "-1", "1e9", "1.G", ".5G", "5 apples", "1MiBs", "1 2", "0x10", "nan", "1PiB"]
)
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(DeviceError) as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)
    assert "512MiB" in str(caught.value)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1_023, "1023 B"),
        (2**10, "1 KiB"),
        (2**20, "1 MiB"),
        (2**30, "1 GiB"),
        (2**40, "1 TiB"),
        (2**50, "1024 TiB"),
        (3.4 * 2**30, "3.4 GiB"),
        (1_536, "1.5 KiB"),
    ],
)
def test_sizes_are_written_for_people(count: float, text: str) -> None:
    assert human_size(count) == text


@pytest.mark.parametrize("count", [1, 2**10, 2**20, 3 * 2**30, 2**40])
def test_a_written_size_can_be_read_back(count: int) -> None:
    assert parse_size(human_size(count)) == count


@pytest.mark.parametrize("name", [None, "default", STARTER_ID])
def test_nothing_means_the_starter(name: str | None) -> None:
    assert locate(name) == ModelSource(STARTER_ID, STARTER)
    assert (STARTER / "tokenizer.json").is_file()


def test_a_directory_is_itself(home: Path) -> None:
    (home / "my-model").mkdir()
    expected = ModelSource("my-model", (home / "my-model").resolve())
    assert locate(str(home / "my-model")) == locate("./my-model/") == expected


def test_an_id_is_what_was_pulled_under_it(home: Path) -> None:
    for folder in ("bigcode--tiny", "bigcode--tiny@no-fim", "tiny@refs--pr--1"):
        (home / "home" / "models" / folder).mkdir(parents=True)
    models = home / "home" / "models"
    assert locate("bigcode/tiny") == ModelSource("bigcode/tiny", models / "bigcode--tiny")
    assert locate("bigcode/tiny@main") == ModelSource("bigcode/tiny", models / "bigcode--tiny")
    assert locate("bigcode/tiny@no-fim") == ModelSource("bigcode/tiny@no-fim", models / "bigcode--tiny@no-fim")
    assert locate("tiny@refs/pr/1").directory == models / "tiny@refs--pr--1"


@pytest.mark.parametrize("name", ["bigcode/tiny", "bigcode/tiny@no-fim", "tiny@refs/pr/1"])
def test_a_model_keeps_its_name_when_it_is_given_by_its_path(home: Path, name: str) -> None:
    """As the process of a shared engine gets it: status and remove speak of the model, not of a folder."""
    parsed = ModelName.parse(name)
    assert parsed is not None
    folder = home / "home" / "models" / parsed.folder
    folder.mkdir(parents=True)
    assert locate(str(folder)) == locate(name) == ModelSource(name, folder)


@pytest.mark.parametrize(
    "text",
    ["a--b/c", "a/b--c", ".partial", "a/.b", "a@", "@a", "a@b@c", "a@-b", "a@b//c", "a/b@../c", "a/b/c", "é/b", "a b"],
)
def test_what_is_no_name_of_a_model_is_not_taken_for_one(home: Path, text: str) -> None:
    """No two names share a folder, and what is being downloaded has none that could be named."""
    assert ModelName.parse(text) is None
    (home / "home" / "models" / text.replace("/", "--")).mkdir(parents=True)
    with pytest.raises(CheckpointError):
        locate(text)


@pytest.mark.parametrize("name", ["bigcode/santacoder", "bigcode/santacoder@no-fim", "tiny", "a/b@refs/pr/1"])
def test_a_folder_says_which_model_it_is(name: str) -> None:
    parsed = ModelName.parse(name)
    assert parsed is not None
    assert ModelName.of_folder(parsed.folder) == parsed
    assert str(parsed) == name


def test_a_folder_of_the_working_directory_does_not_stand_in_for_a_pulled_model(home: Path) -> None:
    (home / "home" / "models" / "bigcode--tiny").mkdir(parents=True)
    (home / "bigcode" / "tiny").mkdir(parents=True)
    assert locate("bigcode/tiny").directory == home / "home" / "models" / "bigcode--tiny"
    assert locate("./bigcode/tiny").directory == (home / "bigcode" / "tiny").resolve()


@pytest.mark.parametrize(
    "name",
    [
        "nobody/has-this",
        "a/b/c",
        "../models",
        "tiny@../../etc",
        "/nowhere",
        "~nobody-of-that-name/model",
        "a\0b",
        "x" * 300,
        "with space",
        "\ud800",
        "",
    ],
)
def test_what_cannot_be_found_is_named_with_the_remedy(name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        locate(name)
    assert repr(name) in str(caught.value)
    assert "config.json" in str(caught.value)


def test_a_server_inside_a_repository_takes_no_folder_of_it_for_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 11: only what is written as a path is one."""
    monkeypatch.setenv("STARFILL_HOME", str(tmp_path / "home"))
    (tmp_path / "bigcode" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError):
        locate("bigcode/tiny", trust_folder=False)
    assert locate("./bigcode/tiny", trust_folder=False).directory == tmp_path / "bigcode" / "tiny"
    assert locate("bigcode/tiny").directory == tmp_path / "bigcode" / "tiny"
