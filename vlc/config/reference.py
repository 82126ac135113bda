"""docs/config.md, made from the declarations: `python -m vlc.config.reference > docs/config.md`."""

from typing import Any

from vlc.config.sections import Settings
from vlc.settings import sections, settings_of

_HEAD = """# Settings

Every setting of a run with its default and what it may be, made by `python -m vlc.config.reference` from
[vlc/config/sections.py](../vlc/config/sections.py) and the files of [vlc/objectives](../vlc/objectives). A config file
changes what its experiment needs, and the command line the rest: `--config.optimizer.lr=1e-3`.
"""


def reference_page() -> str:
    """The page: a table for each section."""
    parts = [_HEAD]
    for key, section in sections(Settings):
        settings = settings_of(section)
        title = f"`config.{key}`" if key else "`config`"
        parts.append(f"## {title}\n\n{_first_line(section)}\n")
        if settings:
            rows = [
                f"| `{name}` | {_written(item.default)} | {item.range} | {_cell(item.help)} |"
                for name, item in settings.items()
            ]
            parts.append("\n".join(["| setting | default | values | |", "|---|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _first_line(section: type) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]


def _written(value: Any) -> str:
    return f"`{value:.6g}`" if isinstance(value, float) else f"`{value!r}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(reference_page(), end="")
