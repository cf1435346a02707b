"""When the compiled form of the verifier is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from verifier import compiled


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as `build_compiled.py` leaves it."""
    monkeypatch.delenv("BPFVM_COMPILED", raising=False)
    folder = tmp_path / "_compiled"
    folder.mkdir()
    (folder / compiled.DIGEST).write_text(compiled.digest())
    monkeypatch.setattr(compiled, "FOLDER", folder)
    return folder


def test_it_goes_before_the_sources_it_was_made_of(made: Path) -> None:
    path = ["verifier"]
    assert compiled.use(path)
    assert path == [str(made), "verifier"]


def test_a_changed_source_or_python_turns_it_off(made: Path) -> None:
    (made / compiled.DIGEST).write_text("of other sources")
    path = ["verifier"]
    assert not compiled.use(path)
    assert path == ["verifier"]


def test_the_environment_turns_it_off(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFVM_COMPILED", "0")
    assert not compiled.use([])


def test_nothing_compiled_is_no_error(made: Path) -> None:
    (made / compiled.DIGEST).unlink()
    assert not compiled.use([])
    made.rmdir()
    assert not compiled.use([])


def test_what_is_left_pure_is_there() -> None:
    assert {path.stem for path in compiled.sources()} >= compiled.LEFT_PURE
