"""The measurements behind docs/decisions: `python -m benchmarks.decisions FILE`.

FILE is a large relation file of a real cluster, of which a quarter of a gigabyte is read.  CPU seconds are this
process's own: they hold on a busy machine, wall seconds do not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from random import Random

import msgspec
import numpy as np
import zstandard
from blake3 import blake3

from pgkeep.format.extents import ExtentMap, encode_extents
from pgkeep.format.keyed import HashKeys
from pgkeep.format.manifest import Entry, EntryType, Place, Unit
from pgkeep.pg.page import PageChecker
from pgkeep.values.ids import ObjectId

SAMPLE = 256 << 20
CHUNK = 2 << 20


@contextmanager
def figure(what: str, amount: float, unit: str) -> Iterator[None]:
    """Print what one `with` block did, in `unit` a CPU second."""
    began = time.process_time()
    yield
    seconds = time.process_time() - began
    print(f"  {what:<44} {seconds:8.3f} CPU s  {amount / max(seconds, 1e-9):12,.0f} {unit}/s")


def start_up() -> None:
    """0001: what importing a command line library costs a program that runs once a WAL segment."""
    print("0001 start-up: best of 15 runs of python -c 'import X'")
    for modules in ("sys", "argparse", "click", "click, rich.progress", "numpy", "psycopg"):
        best = min(_run_once(modules) for _ in range(15))
        print(f"  {modules:<44} {best * 1000:8.1f} ms")


def _run_once(modules: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
    return time.perf_counter() - began


def serializers() -> None:
    """0002: a chunk of paths, as msgspec writes it and as JSON would."""
    print("0002 records: 100,000 entries of a manifest")
    entries = [
        Entry(
            path=f"base/16384/{16384 + n}".encode(),
            type=EntryType.FILE,
            mode=0o600,
            size=8192 * (n % 90),
            unit=Unit.PAGES,
            place=Place.INLINE,
            pack=n % 40,
            at=n * 7,
        )
        for n in range(100_000)
    ]
    rows = [[entry.path.decode(), 0, entry.mode, entry.size, 1, 1, entry.pack, entry.at] for entry in entries]
    with figure("msgspec MessagePack, encode", len(entries), "entries"):
        packed = msgspec.msgpack.encode(entries)
    with figure("msgspec MessagePack, decode and validate", len(entries), "entries"):
        msgspec.msgpack.decode(packed, type=list[Entry])
    with figure("json, encode", len(rows), "entries"):
        text = json.dumps(rows)
    with figure("json, decode, nothing validated", len(rows), "entries"):
        json.loads(text)
    print(f"  bytes: MessagePack {len(packed):,}, JSON {len(text):,}")


def _work(path: str, offset: int) -> int:
    """What a worker does to 2 MiB of a file: checksums, page hashes, frames."""
    keys = HashKeys(bytes(32))
    with open(path, "rb") as file:
        data = os.pread(file.fileno(), CHUNK, offset)
    PageChecker().inspect(data, 0, checksums=True, start_lsn=1 << 63)
    keys.pages(memoryview(data), 8192)
    compressor = zstandard.ZstdCompressor(level=3)
    view = memoryview(data)
    return sum(len(compressor.compress(view[at : at + 131072])) for at in range(0, len(data), 131072))


def processes(path: str, size: int) -> None:
    """0003: the same work in two threads and in two processes; wall seconds, so only on a quiet machine."""
    print("0003 two workers on 2 MiB pieces: checksums, page hashes, zstd 3 (wall seconds)")
    offsets = range(0, size, CHUNK)
    pools: list[tuple[str, Callable[[], Executor]]] = [
        ("one thread", partial(ThreadPoolExecutor, 1)),
        ("two threads", partial(ThreadPoolExecutor, 2)),
        ("two processes", partial(ProcessPoolExecutor, 2, mp_context=get_context("spawn"))),
    ]
    for name, make in pools:
        with make() as pool:
            list(pool.map(_work, [path] * 4, offsets[:4]))
            began = time.perf_counter()
            list(pool.map(_work, [path] * len(offsets), offsets))
            seconds = time.perf_counter() - began
        print(f"  {name:<44} {seconds:8.2f} s     {size / seconds / 1e6:12,.0f} MB/s")


def hashes(data: bytes) -> None:
    """0004: BLAKE3 keyed over frames and pages, SHA-256 over headers."""
    import hashlib

    print("0004 hashes")
    view = memoryview(data)[: 64 << 20]
    key = bytes(range(32))
    for size, name in ((131072, "128 KiB frame"), (8192, "8 KiB page")):
        with figure(f"keyed BLAKE3, {name}", len(view) / 1e6, "MB"):
            for at in range(0, len(view), size):
                blake3(view[at : at + size], key=key).digest()
        with figure(f"SHA-256, {name}", len(view) / 1e6, "MB"):
            for at in range(0, len(view), size):
                hashlib.sha256(view[at : at + size]).digest()
        with figure(f"keyed BLAKE2b, {name}", len(view) / 1e6, "MB"):
            for at in range(0, len(view), size):
                hashlib.blake2b(view[at : at + size], key=key, digest_size=16).digest()


def frames(data: bytes) -> None:
    """0005: speed and ratio of zstd by level and piece."""
    print(f"0005 frames: {len(data) >> 20} MiB")
    view = memoryview(data)
    for level in (1, 2, 3, 5):
        for size in (32 << 10, 128 << 10, 1 << 20, 4 << 20):
            if level != 3 and size != 128 << 10:
                continue
            compressor = zstandard.ZstdCompressor(level=level)
            began = time.process_time()
            packed = [compressor.compress(view[at : at + size]) for at in range(0, len(view), size)]
            seconds = time.process_time() - began
            stored = sum(map(len, packed))
            decompressor = zstandard.ZstdDecompressor()
            began = time.process_time()
            for piece in packed:
                decompressor.decompress(piece)
            back = time.process_time() - began
            print(
                f"  level {level}, {size >> 10:>5} KiB: {len(data) / seconds / 1e6:6,.0f} MB/s in,"
                f" {len(data) / back / 1e6:6,.0f} MB/s out, ratio {len(data) / stored:5.2f}"
            )


def extents() -> None:
    """0006: a 1 GiB segment as one run of pages, and by frames of 16 pages; then 1 % of it changed at random."""
    print("0006 extent maps of a 1 GiB relation segment, encoded and compressed by zstd 3")
    random = Random(6)
    pack, newer = ObjectId(bytes(16)), ObjectId(bytes([1]) * 16)
    whole = ExtentMap((pack,), _u32([131072]), _u32([0]), np.array([0], np.int64))
    changed = sorted(random.sample(range(131072), 1311))
    rows: list[tuple[int, int, int]] = []
    at = 0
    for number, page in enumerate(changed):
        if page > at:
            rows.append((page - at, 0, at))
        rows.append((1, 1, number))
        at = page + 1
    rows.append((131072 - at, 0, at))
    mixed = ExtentMap(
        (pack, newer),
        _u32([row[0] for row in rows]),
        _u32([row[1] for row in rows]),
        np.array([row[2] for row in rows], np.int64),
    )
    for name, columns in (("full backup", whole), ("1 % of pages changed", mixed)):
        data = encode_extents(columns)
        packed = zstandard.ZstdCompressor(level=3).compress(data)
        print(f"  {name:<44} {len(columns.count):>6} extents, {len(data):>7} bytes, {len(packed):>6} compressed")
    print(f"  {'by frames of 16 pages (not used)':<44} {131072 // 16:>6} extents, {131072 // 16 * 16:>7} bytes")


def _u32(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.array(values, np.uint32)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    path = sys.argv[1]
    with open(path, "rb") as file:
        data = file.read(SAMPLE)
    data = data[: len(data) // CHUNK * CHUNK]
    start_up()
    serializers()
    processes(path, len(data))
    hashes(data)
    frames(data)
    extents()


if __name__ == "__main__":
    main()
