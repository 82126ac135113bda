"""Restores while the disk fails: EIO, EMFILE, ESTALE, time-outs, short reads, for a while or for good.

    python benchmarks/restore_errors.py [--trials 50] [--out benchmarks/results/restore_errors.json]

The errors come from beneath every library: a small C library that is loaded before libc's calls are found makes reads
and opens of files below `checkpoints/` fail. Each trial has a folder with two sound checkpoints; afterwards both must
be where they were, and the run must have restored the newer one, or ended with one error that says so.
"""

import argparse
import collections
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FAULTS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_int calls;
static _Atomic char ours[65536];

static int number(const char *name) { const char *text = getenv(name); return text ? atoi(text) : 0; }
static int due(const char *call) {
    const char *wanted = getenv("FAULT_CALL");
    if (!wanted || strcmp(wanted, call)) return 0;
    int now = atomic_fetch_add(&calls, 1), skip = number("FAULT_SKIP");
    return now >= skip && now < skip + number("FAULT_COUNT");
}
static int watched(const char *path) { return path && strstr(path, "/checkpoints/") != NULL; }
static int opened(int fd, const char *path) {
    if (fd >= 0 && fd < 65536) ours[fd] = watched(path);
    return fd;
}
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        static int (*next)(const char *, int, ...); \
        if (!next) next = dlsym(RTLD_NEXT, #name); \
        va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
        if (watched(path) && !(flags & (O_CREAT | O_DIRECTORY)) && due("open")) { \
            errno = number("FAULT_ERRNO"); return -1; } \
        return opened(next(path, flags, mode), path); }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        static int (*next)(int, const char *, int, ...); \
        if (!next) next = dlsym(RTLD_NEXT, #name); \
        va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
        if (watched(path) && !(flags & (O_CREAT | O_DIRECTORY)) && due("open")) { \
            errno = number("FAULT_ERRNO"); return -1; } \
        return opened(next(at, path, flags, mode), path); }
OPENAT(openat)
OPENAT(openat64)
static ssize_t failed(size_t *count) {
    if (number("FAULT_ERRNO")) { errno = number("FAULT_ERRNO"); return -1; }
    *count = *count / 2;  /* a short read; of one byte, the end of the file */
    return *count ? 1 : 0;
}
ssize_t read(int fd, void *data, size_t count) {
    static ssize_t (*next)(int, void *, size_t);
    if (!next) next = dlsym(RTLD_NEXT, "read");
    if (fd >= 0 && fd < 65536 && ours[fd] && due("read")) {
        ssize_t left = failed(&count); if (left <= 0) return left; }
    return next(fd, data, count);
}
#define PREAD(name) \
    ssize_t name(int fd, void *data, size_t count, off_t offset) { \
        static ssize_t (*next)(int, void *, size_t, off_t); \
        if (!next) next = dlsym(RTLD_NEXT, #name); \
        if (fd >= 0 && fd < 65536 && ours[fd] && due("read")) { \
            ssize_t left = failed(&count); if (left <= 0) return left; } \
        return next(fd, data, count, offset); }
PREAD(pread)
PREAD(pread64)
"""

RESTORE = """
import sys, jax, jax.numpy as jnp
from vlc.errors import CheckpointError
from vlc.train import damage
from vlc.train.checkpoint import Checkpoints
damage.PAUSES = (0.0, 0.05, 0.1, 0.2)
here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
shapes = {"params": {"w": jax.ShapeDtypeStruct((400, 300), jnp.float32, sharding=here)}}
try:
    checkpoints = Checkpoints(sys.argv[1])
    state, meta = checkpoints.restore(lambda meta: shapes)
    print("RESTORED", meta["step"], float(state["params"]["w"][0, 0]))
except CheckpointError as error:
    print("REPORTED", " ".join(str(error).split()))
"""

SAVE = """
import sys, jax.numpy as jnp
from vlc.train.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1])
for step in (1, 2):
    checkpoints.save(step, {"params": {"w": jnp.full((400, 300), float(step))}}, {})
checkpoints.wait()
checkpoints.close()
"""

KINDS = {  # the call that fails, and its errno; 0 is a short read
    "EIO in read": ("read", 5),
    "EIO in open": ("open", 5),
    "EMFILE in open": ("open", 24),
    "ESTALE in open": ("open", 116),
    "ESTALE in read": ("read", 116),
    "ETIMEDOUT in read": ("read", 110),
    "ENFILE in open": ("open", 23),
    "short reads": ("read", 0),
}


def trial(library: Path, sound: Path, folder: Path, kind: str, rng: random.Random) -> tuple[str, str]:
    """What came of one restore: `restored`, `reported`, or what went wrong."""
    shutil.copytree(sound, folder)
    call, number = KINDS[kind]
    count = rng.choice([1, 2, 5, 20, 1_000_000])
    env = os.environ | {
        "LD_PRELOAD": str(library), "FAULT_CALL": call, "FAULT_ERRNO": str(number), "FAULT_COUNT": str(count),
        "FAULT_SKIP": str(rng.randrange(12)), "JAX_PLATFORMS": "cpu",
    }  # fmt: skip
    run = subprocess.run([sys.executable, "-c", RESTORE, str(folder)], env=env, capture_output=True, text=True)
    steps = sorted(path.name for path in (folder / "checkpoints").glob("[0-9]*"))
    lines = [line for line in run.stdout.splitlines() if line.startswith(("RESTORED", "REPORTED"))]
    said = lines[-1] if lines else f"rc {run.returncode}: {run.stderr[-400:]}"
    if steps != ["1", "2"] or (folder / "damaged").exists():
        return "lost", f"{steps} are left; {said}"
    if said == "RESTORED 2 2.0":
        return "restored", said
    if said.startswith("REPORTED") and ("nothing was moved" in said or "cannot be read" in said):
        return "reported", said
    return "wrong", said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    rng = random.Random(0)
    found: dict[str, collections.Counter] = {kind: collections.Counter() for kind in KINDS}
    wrong = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "faults.c").write_text(FAULTS)
        library = root / "faults.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, root / "faults.c", "-ldl"], check=True)
        subprocess.run([sys.executable, "-c", SAVE, str(root / "sound")], check=True)
        for number in range(options.trials):
            kind = list(KINDS)[number % len(KINDS)]
            outcome, said = trial(library, root / "sound", root / str(number), kind, rng)
            found[kind][outcome] += 1
            if outcome not in ("restored", "reported"):
                wrong.append(f"{kind}: {outcome}: {said}")
            print(f"{number:3} {kind:18} {outcome:9} {said[:110]}", flush=True)
    lost = sum(counts["lost"] for counts in found.values())
    outcomes = {kind: {outcome: counts[outcome] for outcome in sorted(counts)} for kind, counts in found.items()}
    result = {"trials": options.trials, "outcomes": outcomes, "sound checkpoints moved or lost": lost, "wrong": wrong}
    print(json.dumps(result, indent=1))
    if options.out:
        Path(options.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
