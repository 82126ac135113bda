"""`report.html`: one file with the numbers and the pictures of an evaluation."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlc.evaluate.report.figures import data_uri
from vlc.parallel import is_primary
from vlc.storage import write_whole

_STYLE = """
:root { --ink:#22303c; --soft:#5a6b7b; --line:#e2e8f0; --accent:#2b6cb0; --paper:#ffffff; --ground:#f5f7fa; }
* { box-sizing:border-box }
body { margin:0; background:var(--ground); color:var(--ink); font:15px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif }
main { max-width:1040px; margin:0 auto; padding:2.2rem 1.2rem 4rem }
h1 { font-size:1.7rem; margin:0 0 .2rem; letter-spacing:-.01em } h2 { font-size:1.15rem; margin:0 0 .3rem }
p.sub, p.note { color:var(--soft); margin:.1rem 0 1rem } p.note { font-size:.88rem; max-width:72ch }
section { background:var(--paper); border:1px solid var(--line); border-radius:12px; padding:1.2rem 1.4rem; margin:1.1rem 0 }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); gap:.8rem; margin:1.2rem 0 }
.tile { background:var(--paper); border:1px solid var(--line); border-radius:12px; padding:.8rem 1rem }
.tile b { display:block; font-size:1.55rem; color:var(--accent); line-height:1.2 } .tile span { color:var(--soft); font-size:.82rem }
img.figure { max-width:100%; display:block; margin:.4rem auto }
.scroll { overflow-x:auto } table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums }
th,td { text-align:right; padding:.32rem .55rem; border-bottom:1px solid var(--line); white-space:nowrap }
th:first-child,td:first-child { text-align:left } thead th { color:var(--soft); font-weight:600; font-size:.82rem }
table.texts th { text-align:left }
td.wrap { white-space:normal; text-align:left; min-width:150px; font-size:.88rem; vertical-align:top }
img.thumb { width:92px; height:92px; object-fit:cover; border-radius:6px; image-rendering:pixelated }
"""


@dataclass
class Report:
    """Sections in order; `render` makes the page."""

    title: str
    subtitle: str
    tiles: list[tuple[str, str]] = field(default_factory=list)
    sections: list[str] = field(default_factory=list)

    def tile(self, value: str, label: str) -> None:
        """A headline number."""
        self.tiles.append((value, label))

    def figure(self, title: str, note: str, png: bytes) -> None:
        """A picture with a line of explanation."""
        self.sections.append(
            f'{_head(title, note)}<img class="figure" src="{data_uri(png)}" alt="{html.escape(title)}"></section>'
        )

    def text(self, title: str, note: str) -> None:
        """A line of explanation alone."""
        self.sections.append(f"{_head(title, note)}</section>")

    def table(self, title: str, note: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table; numbers between 0 and 1 given as floats are shown as percentages."""
        head = "".join(f"<th>{html.escape(str(c))}</th>" for c in columns)
        body = "".join("<tr>" + "".join(f"<td>{_cell(c)}</td>" for c in row) + "</tr>" for row in rows)
        self.sections.append(
            f'{_head(title, note)}<div class="scroll"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div></section>"
        )

    def captions(
        self, title: str, note: str, columns: Sequence[str], rows: Sequence[tuple[bytes, Sequence[str]]]
    ) -> None:
        """Thumbnails with several texts each."""
        head = "<th></th>" + "".join(f"<th>{html.escape(c)}</th>" for c in columns)
        body = "".join(
            f'<tr><td><img class="thumb" src="{data_uri(png)}" alt=""></td>'
            + "".join(f'<td class="wrap">{html.escape(text)}</td>' for text in texts)
            + "</tr>"
            for png, texts in rows
        )
        self.sections.append(
            f'{_head(title, note)}<div class="scroll"><table class="texts"><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div></section>"
        )

    def render(self) -> str:
        tiles = "".join(
            f'<div class="tile"><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>'
            for value, label in self.tiles
        )
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><style>{_STYLE}</style></head><body><main>"
            f'<h1>{html.escape(self.title)}</h1><p class="sub">{html.escape(self.subtitle)}</p>'
            f'<div class="tiles">{tiles}</div>{"".join(self.sections)}</main></body></html>\n'
        )


def _head(title: str, note: str) -> str:
    return f'<section><h2>{html.escape(title)}</h2><p class="note">{html.escape(note)}</p>'


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{100 * value:.1f}%"
    return html.escape(str(value))


def write_results(
    folder: Path, results: Mapping[str, Any], report: Report, files: Mapping[str, str] | None = None
) -> None:
    """`eval.json`, `report.html` and further files, by one of the processes."""
    if is_primary():
        for name, text in (files or {}).items():
            write_whole(folder / name, text.encode())
        write_whole(folder / "eval.json", (json.dumps(results, indent=1, ensure_ascii=False) + "\n").encode())
        write_whole(folder / "report.html", report.render().encode())
