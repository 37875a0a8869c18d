"""The store keeps whole values or none, whoever is killed, and says what is wrong with them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from terrarium.errors import StoreError
from terrarium.store import Store, difference, files, load_checkpoint, save_checkpoint

SPEC = {"recipe": {"phases": [{"steps": 3, "lr": 0.003}]}, "seed": 1}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def put(store: Store, spec: object = SPEC, text: str = "weights", kind: str = "organism") -> Path:
    with store.write(kind, spec, "c0de") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "weights.bin").write_text(text)
    found = store.get(kind, spec, "c0de")
    assert found is not None
    return found


def child(code: str, home: Path, *arguments: str) -> subprocess.Popen[str]:
    head = "import os, sys, time\nfrom pathlib import Path\nfrom terrarium.store import *\n"
    command = [sys.executable, "-c", head + code, str(home), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def left_over(store: Store) -> list[Path]:
    return [path for path in (store.home / ".tmp").glob("*") if path.name != "guard.lock"]


def test_round_trip(store: Store) -> None:
    assert store.get("organism", SPEC, "c0de") is None
    assert not store.home.exists(), "looking writes nothing"
    folder = put(store)
    key = store.key(SPEC, "c0de")
    assert folder == store.home / "organism" / key[:2] / key
    assert (folder / "sub" / "weights.bin").read_text() == "weights"
    told = json.loads((folder / "spec.json").read_text())
    assert told["spec"] == SPEC
    assert {"made", "platform", "terrarium", "code", "key"} <= set(told)
    assert store.get("organism", SPEC, "0ther") is None, "other code, other value"
    assert store.get("organism", {**SPEC, "seed": 2}, "c0de") is None
    assert left_over(store) == []


def test_home_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRARIUM_HOME", str(tmp_path / "elsewhere"))
    assert Store().home == tmp_path / "elsewhere"


def test_a_failing_body_stores_nothing(store: Store) -> None:
    with pytest.raises(FileNotFoundError), store.write("rows", SPEC, "") as folder:
        (folder / "half").rename(folder / "missing" / "half")
    assert store.get("rows", SPEC, "") is None
    assert left_over(store) == []


def test_entries_sizes_removal(store: Store) -> None:
    put(store, text="x" * 1000)
    put(store, {"seed": 2}, kind="rows")
    entries = list(store.entries())
    assert [entry.kind for entry in entries] == ["organism", "rows"]
    assert entries[0].size > 1000
    assert [entry.spec for entry in store.entries("rows")] == [{"seed": 2}]
    summary = store.describe()
    assert summary.kinds["organism"][0] == 1
    assert "organism: 1" in str(summary)
    assert store.remove("rows", entries[1].key)
    assert not store.remove("rows", entries[1].key)
    assert [entry.kind for entry in store.entries()] == ["organism"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "does not match": lambda folder: flip(folder / "sub" / "weights.bin"),
    "bytes instead of": lambda folder: (folder / "sub" / "weights.bin").write_text("w"),
    "weights.bin is missing": lambda folder: (folder / "sub" / "weights.bin").unlink(),
    "spec.json": lambda folder: flip(folder / "spec.json"),
    "checksums.json is missing": lambda folder: (folder / "checksums.json").unlink(),
    "checksums.json cannot be read": lambda folder: (folder / "checksums.json").write_text("{"),
}


@pytest.mark.parametrize("wrong", DAMAGES)
def test_damage_is_noticed_and_the_value_made_again(store: Store, wrong: str) -> None:
    folder = put(store)
    DAMAGES[wrong](folder)
    again = Store(store.home)
    assert again.get("organism", SPEC, "c0de") is None
    assert [wrong in event.message for event in again.events] == [True]
    aside = list((store.home / "damaged").iterdir())
    assert len(aside) == 1
    assert wrong in json.loads((aside[0] / "damage.json").read_text())["wrong"]
    put(again)
    assert Store(store.home).get("organism", SPEC, "c0de") == folder


def test_the_same_process_notices_a_changed_file_and_hashes_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = put(store)
    with monkeypatch.context() as patch:
        patch.setattr(files, "checksum", lambda path: pytest.fail("hashed twice"))
        assert store.get("organism", SPEC, "c0de") == folder
    (folder / "sub" / "weights.bin").write_text("WEIGHTS")
    os.utime(folder / "sub" / "weights.bin", (1, 1))
    assert store.get("organism", SPEC, "c0de") is None


def test_a_foreign_value_under_the_key_is_refused(store: Store) -> None:
    folder = put(store)
    other = {"recipe": {"phases": [{"steps": 3, "lr": 0.001}]}, "seed": 1}
    key = store.key(other, "c0de")
    target = store.path("organism", key)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)
    with pytest.raises(StoreError, match=r"spec\.recipe\.phases\[0\]\.lr is 0\.001 .* and 0\.003"):
        store.get("organism", other, "c0de")


def test_difference_sentences() -> None:
    assert difference(SPEC, json.loads(json.dumps(SPEC))) == ""
    assert difference({"a": (1, 2)}, {"a": [1, 2]}) == "", "a tuple is a list in a key"
    told = difference({"a": 1, "b": True, "d": [1]}, {"b": 1, "c": "x", "d": [1, 2]})
    assert told == (
        "a is only in the first (1); b is true in the first and 1 in the second; "
        'c is only in the second ("x"); d[1] is only in the second (2)'
    )
    many = difference({str(i): 0 for i in range(8)}, {str(i): 1 for i in range(8)}, most=2)
    assert many.endswith("; and 6 more")


WRITE_SLOWLY = """
store = Store(Path(sys.argv[1]))
spec = {"seed": 7}
with store.lock("organism", store.key(spec, "")), store.write("organism", spec, "") as folder:
    (folder / "weights").write_text("half")
    print("half", flush=True)
    time.sleep(60)
"""


def test_kill_in_the_middle_of_a_write(store: Store) -> None:
    process = child(WRITE_SLOWLY, store.home)
    assert said(process) == "half"
    put(Store(store.home), {"seed": 8})  # tidies up on its first write, and leaves the living be
    assert len(left_over(store)) == 2
    process.kill()
    process.wait()
    assert store.get("organism", {"seed": 7}, "") is None
    started = time.monotonic()
    with store.lock("organism", store.key({"seed": 7}, "")):
        assert time.monotonic() - started < 5, "the lock of a killed process is free"
    put(store, {"seed": 7})
    assert left_over(store) == []


ONE_OF_TWO = """
store, spec = Store(Path(sys.argv[1])), {"seed": 9}
print("ready", flush=True)
while not Path(sys.argv[2]).exists():
    time.sleep(0.005)
def make(folder):
    (folder / str(os.getpid())).write_text("me")
    time.sleep(0.6)
found = store.obtain("organism", spec, "", make)
print(os.getpid(), *[path.name for path in found.iterdir() if path.name.isdigit()], flush=True)
"""


def test_two_processes_one_value(store: Store, tmp_path: Path) -> None:
    go = tmp_path / "go"
    both = [child(ONE_OF_TWO, store.home, str(go)) for _ in range(2)]
    assert [said(process) for process in both] == ["ready", "ready"]
    go.touch()
    answers = [said(process).split() for process in both]
    assert [process.wait() for process in both] == [0, 0]
    assert answers[0][0] != answers[1][0]
    assert answers[0][1:] == answers[1][1:], "one made it, the other found it"
    assert len(answers[0]) == 2


def test_without_a_lock_the_first_to_finish_is_kept(store: Store) -> None:
    with store.write("rows", SPEC, "") as slow:
        (slow / "a").write_text("slow")
        with Store(store.home).write("rows", SPEC, "") as fast:
            (fast / "a").write_text("fast")
    found = store.get("rows", SPEC, "")
    assert found is not None
    assert (found / "a").read_text() == "fast"
    assert left_over(store) == []


def test_waiting_is_told_and_asking_need_not_wait(store: Store) -> None:
    process = child(WRITE_SLOWLY, store.home)
    assert said(process) == "half"
    key = store.key({"seed": 7}, "")
    with store.lock("organism", key, blocking=False) as held:
        assert not held
    waits: list[float] = []

    def waiting(seconds: float) -> None:
        waits.append(seconds)
        process.kill()

    with store.lock("organism", key, waiting=waiting) as held:
        assert held
    process.wait()
    assert len(waits) >= 1
    assert waits[0] >= 1.0


def test_full_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store)
    with pytest.raises(StoreError, match="free some space"), store.write("rows", SPEC, ""):
        Path("/dev/full").write_text("x")
    with pytest.raises(StoreError, match="disk is full"), store.write("rows", SPEC, ""):
        raise RuntimeError("I/O error: No space left on device (os error 28)")  # as safetensors

    def full_disk(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(StoreError, match="disk is full"), store.write("rows", SPEC, ""):
            pass
        with pytest.raises(StoreError, match="disk is full"):
            save_checkpoint(store.scratch("rows", "k"), "state", {"a": b"1"})
    assert left_over(store) == []
    assert store.get("rows", SPEC, "") is None
    assert list(store.scratch("rows", "k").iterdir()) == []
    assert store.get("organism", SPEC, "c0de") is not None


def test_errors_that_are_not_the_disk_pass(store: Store, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    with pytest.raises(FileExistsError), store.write("rows", SPEC, ""):
        mine.mkdir()
    with pytest.raises(ValueError, match="no kind of value"):
        store.path("../evil", "k")


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="set TERRARIUM_HOME"):
        Store(tmp_path / "file").check_writable()
    with pytest.raises(StoreError, match="set TERRARIUM_HOME"):
        Store(tmp_path / "file" / "below").check_writable()
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    # Root may write anywhere on a disk, but nobody makes folders in /sys.
    home = Path("/sys/terrarium") if os.geteuid() == 0 else locked / "home"
    with pytest.raises(StoreError, match=r"permission is denied|read-only"):
        Store(home).check_writable()
    with pytest.raises(StoreError), Store(home).lock("rows", "k"):
        pass
    assert Store(home).get("rows", SPEC, "") is None


def test_a_read_only_home_can_be_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = put(store)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(store.home))

    for name in ("mkdir", "rename", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    again = Store(store.home)
    assert again.get("organism", SPEC, "c0de") == folder
    with pytest.raises(StoreError, match="read-only"):
        again.check_writable()
    flip(folder / "sub" / "weights.bin")
    third = Store(store.home)
    assert third.get("organism", SPEC, "c0de") is None
    assert "cannot be moved aside" in third.events[0].message


def test_checkpoints_fall_back(store: Store) -> None:
    folder = store.scratch("organism", store.key(SPEC, "c0de"))
    assert load_checkpoint(folder, "state") is None
    for step in range(1, 5):
        save_checkpoint(folder, "state", {"step": str(step).encode(), "more": b"x"})
    save_checkpoint(folder, "other", lambda at: at.joinpath("step").write_text("99") and None)
    assert len(list(folder.iterdir())) == 3, "two generations of one, one of the other"

    def step_of(name: str) -> str | None:
        found = load_checkpoint(folder, name)
        return (found / "step").read_text() if found else None

    assert step_of("state") == "4"
    flip(folder / "state.00000004" / "step")
    assert step_of("state") == "3"
    save_checkpoint(folder, "state", {"step": b"4"})
    assert step_of("state") == "4"
    for made in folder.glob("state.*"):
        (made / "step").unlink()
    assert step_of("state") is None
    assert step_of("other") == "99"
    put(store)
    assert not folder.exists(), "the scratch folder goes when the value is written"


CHECKPOINTS_FOREVER = """
folder = Store(Path(sys.argv[1])).scratch("organism", "k")
for step in range(1000000):
    save_checkpoint(folder, "state", {"step": str(step).encode() * 2000, "more": b"x" * step})
    print(step, flush=True)
"""


def test_kill_in_the_middle_of_a_checkpoint(store: Store) -> None:
    process = child(CHECKPOINTS_FOREVER, store.home)
    last = -1
    while last < 20:
        last = int(said(process))
    process.kill()
    process.wait()
    found = load_checkpoint(store.scratch("organism", "k"), "state")
    assert found is not None
    assert int(found.name.split(".")[1]) >= last
    save_checkpoint(found.parent, "state", {"step": b"end"})
    assert not list(found.parent.glob(".*")), "what the killed writer left is gone"


def test_facts_are_merged_and_may_be_lost(store: Store) -> None:
    assert store.recall("durations") == {}
    store.remember("durations", {"a": 1.5, "b": 2})
    store.remember("durations", {"b": None, "c": 3})
    assert store.recall("durations") == {"a": 1.5, "c": 3}
    (store.home / ".facts" / "durations.json").write_text("{broken")
    assert store.recall("durations") == {}
