"""Profiling of a few steps, in the form that TensorBoard and xprof open."""

import logging
import re
from typing import Any

import jax

from vlc.errors import ConfigError
from vlc.parallel import print_once
from vlc.storage import Place, upload, working_folder

log = logging.getLogger("vlc")


def parse_steps(text: str) -> tuple[int, int] | None:
    """`"10:15"` to (10, 15); empty is `None`.

    Raises:
        ConfigError: It is written otherwise.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if not found or not 0 < int(found[1]) <= int(found[2]):
        raise ConfigError(f'--profile is "{text}"; write the first and the last step, as in 10:15.')
    return int(found[1]), int(found[2])


class Trace:
    """Writes what devices and hosts do from the first to the last of some steps to `workdir/profile`."""

    def __init__(self, workdir: Place, steps: tuple[int, int] | None):
        self._folder, self._steps, self._running = workdir / "profile", steps, False
        self._here = working_folder(self._folder)

    def before(self, step: int) -> None:
        """To be called before a step is started."""
        if self._steps and self._steps[0] <= step <= self._steps[1] and not self._running:
            jax.profiler.start_trace(str(self._here))
            self._running = True

    def after(self, step: int, results: Any) -> None:
        """To be called when a step was started that gives these results."""
        if self._running and self._steps and step >= self._steps[1]:
            jax.block_until_ready(results)
            self.close()
            print_once(f"Profile of steps {self._steps[0]} to {self._steps[1]}: tensorboard --logdir {self._folder}")
            self._steps = None

    def close(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
            if self._here != self._folder:
                self._upload()

    def _upload(self) -> None:
        try:
            upload(self._here, self._folder)
        except OSError as error:  # no reason to end a run
            log.warning("%s cannot be written (%s); the profile is in %s.", self._folder, error.strerror, self._here)
