"""Whether a run that diverged has done so before: a step gives the same bits each time, unless the hardware erred."""

import contextlib
import json

from vlc.parallel import allgather_objects, is_primary
from vlc.storage import Place, write_json

_NAME = "diverged.json"
ONCE = (
    "Where that was an error of the hardware, another start goes on; where it ends at this step again, lower "
    "config.optimizer.lr, warm up longer, or check the data of this step."
)


def first_divergence(workdir: Place, step: int) -> bool:
    """Whether no earlier start has ended at this step; it is noted in the workdir. All processes call this alike."""
    path, known = workdir / _NAME, -1
    if is_primary() and path.exists():
        try:
            known = json.loads(path.read_bytes())["step"]
        except (ValueError, KeyError, TypeError):
            known = -1
    first = allgather_objects(known != step)[0]
    if is_primary():
        with contextlib.suppress(OSError):  # a full disk is not what ended the run
            write_json(path, {"step": step})
    return first
