"""What several commands share."""

import argparse
from collections.abc import Callable
from typing import Literal

from vlc.errors import ConfigError, StoreAway, TrainingDiverged, VlcError

EXIT_BAD_INPUT, EXIT_DIVERGED, EXIT_DIVERGED_ONCE = 2, 3, 77
EXIT_STORE_AWAY = 74  # EX_IOERR of sysexits.h


def exit_status(error: VlcError) -> int:
    if isinstance(error, TrainingDiverged):
        return EXIT_DIVERGED_ONCE if error.again else EXIT_DIVERGED
    return EXIT_STORE_AWAY if isinstance(error, StoreAway) else EXIT_BAD_INPUT


def add_command(commands, name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text.capitalize() + ".", allow_abbrev=False)
    command.set_defaults(run=run, takes_overrides=False, computes=False)
    return command


def add_step(command: argparse.ArgumentParser) -> None:
    command.add_argument("--step", default="last", help="checkpoint of a workdir: last, best, or a step")


def read_numbers(text: str, name: str = "--guidance-scale") -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f'{name} is "{text}"; write numbers, as in 1,1.5,2.') from None


def load_model(path: str, step: str, tokenizer: str = ""):
    from vlc.inference import load

    return load(path, step=read_step(step), tokenizer=tokenizer)


def read_step(text: str) -> int | Literal["last", "best"]:
    """The value of --step."""
    if text == "last" or text == "best":
        return text
    if not text.isdigit():
        raise ConfigError(f'--step is "{text}"; it must be last, best, or a number.')
    return int(text)


def load_here(path: str, step: str = "last", tokenizer: str = ""):
    """The model on all devices of this process."""
    return load_model(path, step, tokenizer).spread_here()


def add_columns(command) -> None:
    command.add_argument(
        "--columns", default="", help="which columns are what, e.g. image=file,alt=title or image=1,alt=2"
    )
    command.add_argument("--encoding", default="", help="of text files, e.g. latin-1 (utf-8)")


def columns_of(options: argparse.Namespace) -> str:
    """How columns are read, the encoding included."""
    return ",".join(filter(None, (options.columns, options.encoding and f"encoding={options.encoding}")))


def open_some(spec: str, options: argparse.Namespace):
    from vlc.data.sources import Sample, open_source

    source = open_source(spec, columns=columns_of(options))
    return Sample(source, options.records) if options.records > 0 else source


def model_path(options: argparse.Namespace) -> str:
    """The positional MODEL, or the value of --workdir."""
    if bool(options.model) == bool(options.workdir):
        raise ConfigError("Name one model: vlc eval MODEL. It is a workdir, or a folder of another library.")
    return options.model or options.workdir
