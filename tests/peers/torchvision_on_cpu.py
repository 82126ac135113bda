"""Imported before torchvision: its wheel is built for a PyTorch with GPU operators, and asks for them when imported.

The operators are declared without a body. The transforms, which are all that is used, need none of them.
"""

import importlib.util
import re
from pathlib import Path

import torch

_LIBRARY = torch.library.Library("torchvision", "DEF")  # kept: what it declared goes with it
_ROOT = Path(importlib.util.find_spec("torchvision").submodule_search_locations[0])
_SOURCES = [_ROOT / "_meta_registrations.py", *sorted((_ROOT / "ops").glob("*.py"))]
_NAMES = {
    name for file in _SOURCES for name in re.findall(r'register_meta\("(\w+)"\)|torchvision::(\w+)', file.read_text())
}
for _name in sorted({first or second for first, second in _NAMES}):
    _LIBRARY.define(f"{_name}(Tensor x) -> Tensor")
