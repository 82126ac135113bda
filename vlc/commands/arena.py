"""`vlc arena`: battles of captions, and who wins them."""

import argparse
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlc.commands.shared import add_command
from vlc.errors import ConfigError, DataError


def add_arena(commands: Any) -> None:
    """Adds the command."""
    command = add_command(commands, "arena", _arena, "let captions fight in pairs, and rate who wrote them")
    command.add_argument("battles", nargs="?", default="", help="a file of battles that were fought before")
    command.add_argument(
        "--captions", action="append", default=[], metavar="NAME=FILE[@SCALE]",
        help="a captions.jsonl of vlc eval --task caption; again for others",
    )  # fmt: skip
    command.add_argument("--by", default="", help="what decides: a figure of those files, or package.module.function")
    command.add_argument("--margin", type=float, default=0.0, help="figures that differ by no more are a draw (0)")
    command.add_argument("--baseline", default="", help="tell win rates against this one, of equal length as well")
    command.add_argument("--out", default="", help="a new file for the battles")


def _arena(options: argparse.Namespace) -> int:
    from vlc.evaluate.metrics.arena import bradley_terry, win_rates
    from vlc.storage import place, write_whole

    if bool(options.battles) == bool(options.captions):
        raise ConfigError("Name a file of battles, or --captions NAME=FILE twice or more and what decides: --by cider.")
    battles = read_battles(options.battles) if options.battles else _fight(options)
    if options.out:
        write_whole(place(options.out), "".join(json.dumps(_plain(one)) + "\n" for one in battles).encode())
    found = bradley_terry(battles)
    rates = win_rates(battles, options.baseline) if options.baseline else {}
    print(f"{'':24}  rating  95% from      to  battles" + ("     wins  of equal length" if rates else ""))
    for name, value, low, high, count in zip(
        found.names, found.ratings, found.low, found.high, found.battles, strict=True
    ):
        own = rates.get(name)
        said = f"  {100 * own['win_rate']:6.1f}%  {100 * own['length_controlled']:14.1f}%" if own else ""
        print(f"{name:24}  {value:6.0f}  {low:8.0f}  {high:6.0f}  {count:7d}{said}")
    return 0


def read_battles(path: str) -> list[Any]:
    """A JSON object a line: `image`, `a`, `b`, `winner` (`a`, `b` or `tie`), and where it is known `longer`.

    Raises:
        DataError: A line is of another form.
    """
    from vlc.evaluate.metrics.arena import Battle
    from vlc.evaluate.tasks.base import read_lines

    won = {"a": 1.0, "b": 0.0, "tie": 0.5}
    found = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            row = json.loads(line)
            found.append(Battle(str(row["a"]), str(row["b"]), won[row["winner"]], float(row.get("longer", 0)),
                                str(row.get("image", ""))))  # fmt: skip
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f'{path}, line {number}: {{"a": NAME, "b": NAME, "winner": "a", "b" or "tie"}} is meant ({error!r}).'
            ) from error
    return found


def _plain(battle: Any) -> dict[str, Any]:
    winner = {1.0: "a", 0.0: "b"}.get(battle.won, "tie")
    return {"image": battle.image, "a": battle.a, "b": battle.b, "winner": winner, "longer": battle.longer}


def _fight(options: argparse.Namespace) -> list[Any]:
    """All pairs of captions of each image that all have captions of."""
    from vlc.evaluate.metrics.arena import Battle

    if len(options.captions) < 2 or not options.by:
        raise ConfigError("A battle needs two --captions NAME=FILE and what decides: --by cider, --by units_f1, ...")
    sides = dict(_read_captions(given) for given in options.captions)
    if len(sides) < len(options.captions):
        raise ConfigError("Two of --captions have one name.")
    images = set.intersection(*(set(rows) for rows in sides.values()))
    if not images:
        raise DataError("No image has captions in all of the files.")
    decide = _judge(options.by, options.margin)
    turned = 0
    battles = []
    for image, (a, b) in itertools.product(sorted(images), itertools.combinations(sorted(sides), 2)):
        one, other = sides[a][image], sides[b][image]
        won, other_way = decide(image, one, other), 1 - decide(image, other, one)
        turned += won != other_way
        longer = len(one["caption"].split()) - len(other["caption"].split())
        battles.append(Battle(a, b, won if won == other_way else 0.5, float(longer), image))
    print(f"{len(battles)} battles of {len(images)} images by {options.by}; {turned} went by the order and are draws.")
    return battles


def _read_captions(given: str) -> tuple[str, dict[str, Mapping[str, Any]]]:
    from vlc.evaluate.tasks.base import read_lines

    name, _, path = given.partition("=")
    path, _, scale = path.partition("@")
    if not path:
        raise ConfigError(f'--captions is "{given}"; write NAME=FILE, or NAME=FILE@SCALE for one guidance scale.')
    rows: dict[str, Mapping[str, Any]] = {}
    try:
        for row in map(json.loads, read_lines(path)):
            if not scale or float(scale) == row.get("guidance_scale"):
                rows.setdefault(row["key"], row)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: is no captions.jsonl of vlc eval ({error!r}).") from error
    if not rows:
        raise DataError(f"{path}: has no captions of guidance scale {scale}.")
    return name, rows


def _judge(by: str, margin: float) -> Callable[[str, Mapping[str, Any], Mapping[str, Any]], float]:
    """1 where the first caption wins, 0 where the second does, 0.5 for a draw."""
    from vlc.units import own_function

    if "." in by:
        own = own_function(by, "a judge of battles")

        def asked(image: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
            answer = float(own(image, a["caption"], b["caption"]))
            if answer not in (0.0, 0.5, 1.0):
                raise DataError(f"{image}: {by} answered {answer}; 1, 0.5 or 0 is meant.")
            return answer

        return asked

    def by_figure(image: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
        if by not in a or by not in b:
            raise ConfigError(f"--by {by}: the captions of {image} have no such figure; they have {_figures(a)}.")
        one, other = a[by], b[by]
        if one is None or other is None or abs(one - other) <= margin:
            return 0.5
        return float(one > other)

    return by_figure


def _figures(row: Mapping[str, Any]) -> str:
    names: Sequence[str] = [name for name, value in row.items() if not isinstance(value, str)]
    return ", ".join(names)
