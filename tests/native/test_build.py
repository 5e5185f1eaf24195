"""The library is compiled once and loaded only if nobody else can have changed it; else torch computes."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from molsam.errors import ConfigError
from molsam.native import build, kernels
from tests.native.models import SMILES, gradients

GCC = shutil.which("gcc")
needs_gcc = pytest.mark.skipif(kernels.in_use() != "compiled", reason="no C compiler")


@pytest.fixture(autouse=True)
def again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The library is looked for anew, in this test and after it; a small one, so that compiling takes no time."""
    forget()
    (tmp_path / "one.c").write_text("int one(void) { return 1; }\n")
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(build, "SOURCES", [tmp_path / "one.c"])
    monkeypatch.delenv("MOLSAM_KERNELS", raising=False)
    yield
    forget()


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where this test's libraries are."""
    monkeypatch.setenv("MOLSAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "native"


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Path]:
    """Makes a shell script the only compiler; a line of `calls` is added whenever it is asked to compile."""

    def make(script: str) -> Path:
        path = tmp_path / "bin" / "gcc"
        path.parent.mkdir(exist_ok=True)
        record = f'case "$*" in *--version*) ;; *) echo x >> {tmp_path}/calls ;; esac'
        path.write_text(f"#!/bin/sh\n{record}\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
        return path

    return make


def forget() -> None:
    build.library.cache_clear()
    build._say_once.cache_clear()


def calls(tmp_path: Path) -> int:
    path = tmp_path / "calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


def library() -> Path:
    (path,) = (build.cache_folder(None) / "native").glob("*.so")
    return path


def load() -> bool:
    forget()
    return build.library(False) is not None


@needs_gcc
def test_compiled_once_and_only_the_user_may_write_it(folder: Path, compiler, tmp_path: Path) -> None:
    compiler(f'exec {GCC} "$@"')
    before = os.umask(0o002)
    try:
        assert load()
        assert load()
    finally:
        os.umask(before)
    assert calls(tmp_path) == 1
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert {path.suffix for path in folder.iterdir()} == {".so", ".sha256", ".lock"}


@needs_gcc
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "removed", "checksum", "writable"])
def test_a_damaged_library_is_never_loaded_but_compiled_again(damage: str, folder: Path) -> None:
    assert load()
    path, whole = library(), library().read_bytes()
    middle = len(whole) // 2
    changed = {
        "cut": whole[:middle],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "empty": b"",
    }
    if damage in changed:
        path.unlink()  # the old file is mapped into this process
        path.write_bytes(changed[damage])
    elif damage == "removed":
        path.unlink()
    elif damage == "writable":
        path.chmod(0o620)
    else:
        path.with_suffix(".sha256").write_bytes(b"0" * 64)
    assert not build._is_intact(path)
    assert load()
    assert build._is_intact(path)
    assert path.stat().st_mode & 0o777 == 0o600


@needs_gcc
def test_without_a_compiler_a_damaged_library_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert load()
    path = library()
    path.unlink()
    path.write_bytes(b"damaged")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not load()
    assert "there is no C compiler" in caplog.text
    assert path.read_bytes() == b"damaged"


@needs_gcc
def test_a_valid_library_serves_where_the_compiler_has_gone_or_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, compiler, tmp_path: Path
) -> None:
    assert load()
    compiler("exit 1")
    assert load()
    assert calls(tmp_path) == 0
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert load()


@needs_gcc
@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_nothing_is_loaded_from_or_put_into_a_folder_that_others_may_write(
    mode: int, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert load()
    folder.chmod(mode)
    assert not load()
    assert f"other users may write {folder}" in caplog.text
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1
    library().unlink()
    assert not load()
    assert not list(folder.glob("*.so"))
    folder.chmod(0o700)
    assert load()


def test_another_users_file_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    status = os.stat(sys.executable if os.stat(sys.executable).st_uid else __file__)
    assert build._is_ours(status) == (status.st_uid == 0)
    root = os.stat_result((0o100600, 0, 0, 1, 0, 0, 0, 0, 0, 0))
    other = os.stat_result((0o100600, 0, 0, 1, 4712, 0, 0, 0, 0, 0))
    own = os.stat_result((0o100600, 0, 0, 1, 4711, 0, 0, 0, 0, 0))
    assert [build._is_ours(one) for one in (root, other, own)] == [True, False, True]


def test_a_link_to_a_library_is_not_followed(folder: Path, tmp_path: Path) -> None:
    data = b"planted"
    folder.mkdir(parents=True)
    for suffix, content in ((".so", data), (".sha256", hashlib.sha256(data).hexdigest().encode())):
        (tmp_path / f"x{suffix}").write_bytes(content)
        (tmp_path / f"x{suffix}").chmod(0o600)
        (folder / f"x{suffix}").symlink_to(tmp_path / f"x{suffix}")
    assert build._is_intact(tmp_path / "x.so")
    assert not build._is_intact(folder / "x.so")


@pytest.mark.parametrize(
    ("script", "limit", "reason"),
    [
        ("echo no such flag >&2; exit 1", 60, "no such flag"),
        ("sleep 1000", 0.5, "was stopped after 0.5 s"),
        ('case "$*" in *--version*) echo gcc 12 ;; *) sleep 1000 & wait ;; esac', 0.5, "was stopped after 0.5 s"),
        ("echo Apple clang version 15", 60, "they need GCC, and"),
    ],
)
def test_a_failing_or_hanging_compiler_is_said_once_and_asked_again_once_it_has_changed(
    script: str,
    limit: float,
    reason: str,
    folder: Path,
    compiler,
    tmp_path: Path,
    caplog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build, "LIMIT", limit)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    path = compiler(script)
    assert not load()
    assert reason in caplog.text
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "\n" not in warning.getMessage()
    assert not list(folder.glob("*.so")) + list(folder.glob("*.tmp"))
    made = calls(tmp_path)
    assert made <= 1
    caplog.clear()
    assert not load()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING], "said already"
    assert calls(tmp_path) == made, "asked already"
    path.write_text(f'#!/bin/sh\nexec {GCC} "$@"\n')
    if GCC:
        monkeypatch.setattr(build, "LIMIT", 60.0)
        assert load()
        assert not list(folder.glob("*.failed"))


@pytest.mark.parametrize(("busy", "seconds"), [(0.0, 60), (2.0, 60), (6.0, 180), (99.0, 300)])
def test_on_a_busy_machine_a_compiler_has_more_time(busy: float, seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit that a slow compiler exceeds is recorded as its failure, and C would stay off."""
    monkeypatch.setattr(os, "getloadavg", lambda: (busy, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert build._limit() == seconds


@needs_gcc
def test_a_compiler_behind_a_script_that_stays_is_known_by_its_version(folder: Path, compiler, tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.write_text("gcc 1")
    compiler(f'case "$*" in *--version*) cat {version} ;; *) grep -q 2 {version} && exec {GCC} "$@"; exit 1 ;; esac')
    assert not load()
    assert not load()
    version.write_text("gcc 2")
    assert load()


@needs_gcc
def test_two_processes_compile_once(folder: Path, compiler, tmp_path: Path) -> None:
    compiler(f'exec {GCC} "$@"')
    ask = f"""
from pathlib import Path
from molsam.native import build
build.FOLDER = Path({str(tmp_path)!r})
build.SOURCES = [build.FOLDER / "one.c"]
print(build.library(False).one())
"""
    made = [subprocess.Popen([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in made] == ["1", "1"]
    assert calls(tmp_path) == 1


@needs_gcc
def test_other_sources_are_another_library(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = build._digest([])
    assert build._digest(["-O0"]) != first
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(build, "SOURCES", [tmp_path / "a.c"])
    (tmp_path / "a.c").write_text("int x;")
    one = build._digest([])
    (tmp_path / "a.c").write_text("int y;")
    assert len({first, one, build._digest([])}) == 3


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64"), ("Windows", "AMD64")])
def test_on_other_systems_one_line_says_so_once(
    system: str, machine: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(build.platform, "system", lambda: system)
    monkeypatch.setattr(build.platform, "machine", lambda: machine)
    assert build.library(False) is build.library(True) is None
    (line,) = caplog.messages
    assert f"this is {system} on {machine}; torch computes instead" in line


def test_without_a_compiler_torch_computes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert kernels.in_use() == "torch"
    assert not kernels.available(torch.empty(1))
    assert "there is no C compiler (gcc); torch computes instead" in caplog.text
    assert gradients("compt", torch.float32, SMILES)[0].isfinite().all()


def test_the_variable_turns_them_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLSAM_KERNELS", "torch")
    assert kernels.in_use() == "torch"
    assert not kernels.available(torch.empty(1))


def test_another_value_of_the_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLSAM_KERNELS", "Torch")
    with pytest.raises(ConfigError, match="MOLSAM_KERNELS=Torch is unknown; give torch"):
        kernels.in_use()
