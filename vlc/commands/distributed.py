"""Commands that several processes run as one: their flags, their start, and how each of them ends."""

import argparse
import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Iterator

from vlc.commands.shared import exit_status
from vlc.errors import VlcError

_FAILED = 1
_VERDICT = 15.0  # seconds in which the watch finds out whose death an error of JAX's is about


def add_start(command: argparse.ArgumentParser) -> None:
    """Flags of a command that computes, on one process or on several."""
    command.set_defaults(computes=True)
    group = command.add_argument_group(
        "several processes", "Told by SLURM, Cloud TPU or VLC_COORDINATOR where nothing is given; see docs/pods.md."
    )
    group.add_argument("--coordinator", default="", metavar="HOST:PORT", help="process 0, as the others reach it")
    group.add_argument("--processes", type=int, default=0, metavar="N", help="how many processes there are")
    group.add_argument("--process", type=int, default=-1, metavar="I", help="which of them this is, from 0")
    group.add_argument("--start-timeout", type=float, default=300, metavar="S", help="seconds to wait for all (300)")
    group.add_argument("--heartbeat-timeout", type=float, default=60, metavar="S", help="seconds (60)")


def command_fingerprint(options: argparse.Namespace) -> str:
    """The options of a command, without those that differ between its processes."""
    apart = ("run", "computes", "coordinator", "processes", "process", "start_timeout", "heartbeat_timeout")
    return repr(sorted((name, value) for name, value in vars(options).items() if name not in apart))


@contextlib.contextmanager
def distributed(options: argparse.Namespace, *, stops: bool = False, **must_agree: str) -> Iterator[None]:
    """Runs the block on all processes, or on none: one that fails takes the others with it, and each says why.

    Args:
        options: With the flags of `add_start`.
        stops: Whether the block agrees with the other processes to stop on SIGTERM.
        **must_agree: What must be the same on all of them, besides the versions of vlc and JAX.
    """
    import jax

    from vlc import __version__
    from vlc.parallel import find_process_info, set_flags, start_processes

    set_flags()
    process = find_process_info(options.coordinator, options.processes, options.process)
    digests = {name: hashlib.sha256(text.encode()).hexdigest()[:12] for name, text in must_agree.items()}
    digests |= {"version of vlc": __version__, "version of jax": jax.__version__}
    watch = start_processes(
        process, digests, timeout=options.start_timeout, heartbeat_timeout=options.heartbeat_timeout, stops=stops
    )
    if watch is None:
        yield
        return
    try:
        yield
        jax.distributed.shutdown()  # waits for all
    except VlcError as error:
        watch.fail(str(error), exit_status(error))
        _leave(f"vlc: process {process.index}: {error}", exit_status(error))
    except BaseException as error:
        if isinstance(error, jax.errors.JaxRuntimeError):
            time.sleep(_VERDICT)  # where another process is gone, the watch leaves meanwhile and names it
        watch.fail(f"{type(error).__name__}: {error}", _FAILED)
        sys.excepthook(type(error), error, error.__traceback__)
        _leave("", _FAILED)
    finally:
        watch.close()


def _leave(message: str, status: int) -> None:
    """Ends this process now: JAX's shutdown would wait for the other processes, which are ending too."""
    if message:
        print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
