"""The command `vlc`.

Heavy modules are imported inside the commands: data workers import this file too.
"""

import argparse
import gc
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vlc.commands.arena import add_arena
from vlc.commands.captioning import add_caption
from vlc.commands.data import add_data_commands
from vlc.commands.distributed import add_start, distributed
from vlc.commands.evaluate import add_eval
from vlc.commands.huge_pages import use_huge_pages
from vlc.commands.mix import add_mix
from vlc.commands.plan import add_plan
from vlc.commands.regions import add_map_regions
from vlc.commands.shared import add_command, add_step, exit_status, load_model, read_step
from vlc.errors import ConfigError, VlcError

# Imports and tracing make millions of objects that live on; Python's own thresholds would look through them again and
# again, which is a tenth of the time until the first step.
_COLLECTION = (500_000, 20, 100)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; an error of the user's is one message on stderr, not a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    parser = _make_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not options.takes_overrides:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.overrides = rest
    if arguments is None and options.computes:  # typed as a command, not called from a program
        use_huge_pages()
        gc.set_threshold(*_COLLECTION)
    try:
        status = options.run(options)
    except VlcError as error:
        print(f"vlc: {error}", file=sys.stderr)
        status = exit_status(error)
    if arguments is None and options.computes and status:
        _leave_now(status)
    return status


def _leave_now(status: int) -> None:
    """Ends this process without waiting for threads that read, which a disk that is gone would hold for ever."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vlc", description="Fine-grained vision-language pretraining in JAX.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = add_command(commands, "train", _train, "train, or go on from the newest checkpoint in the workdir")
    train.add_argument("--config", required=True, help="a config file, e.g. configs/quickstart.py or FILE.py:smoke")
    train.add_argument("--workdir", required=True, help="where checkpoints, metrics and the tokenizer are kept")
    train.add_argument("--profile", default="", metavar="FIRST:LAST", help="steps to trace, into WORKDIR/profile")
    add_start(train)
    train.epilog = "Any setting can be changed: --config.optimizer.lr=1e-3"
    train.set_defaults(takes_overrides=True)

    add_plan(commands)
    add_eval(commands)
    add_caption(commands)
    add_arena(commands)

    bring = add_command(commands, "import", _import, "read a model of transformers, open_clip or big_vision")
    bring.add_argument("model", help="its folder, or a .npz")
    bring.add_argument("--out", required=True, help="the folder to write, which vlc.load reads")
    bring.add_argument("--tokenizer", default="", help="its tokenizer's file, where it does not lie beside the weights")
    bring.add_argument("--image-size", type=int, default=0, help="resample the positions for images of this size")
    bring.add_argument(
        "--text-length", type=int, default=0, help="stretch the text positions for texts of so many tokens"
    )
    bring.add_argument("--keep-positions", type=int, default=20, help="with --text-length: how many stay as they are")
    bring.add_argument("--role", default="", help="query or document, of a ColBERT or a model with prompts")

    send = add_command(commands, "export", _export, "write a model for transformers, open_clip, or as safetensors")
    send.add_argument("model", help="a training workdir, or any other model that vlc loads")
    send.add_argument("--format", required=True, help="huggingface, open_clip, safetensors, or lora")
    send.add_argument("--out", default="", help="a folder that is new or empty; not needed with --push")
    send.add_argument("--push", default="", metavar="hf://ORG/NAME[@BRANCH]", help="upload it to the hub as well")
    send.add_argument("--private", action="store_true", help="of a model that --push makes")
    add_step(send)

    add_mix(commands)
    add_map_regions(commands)
    data = commands.add_parser("data", help="look at data, build a dataset, train a tokenizer").add_subparsers(
        required=True, metavar="COMMAND"
    )
    add_data_commands(data)
    return parser


def _train(options: argparse.Namespace) -> int:
    from vlc.commands.compilation_cache import keep_compiled
    from vlc.config.file import load_config
    from vlc.evaluate.dev import make_dev_evaluation
    from vlc.inference import load, load_initial
    from vlc.interop import describe_exports
    from vlc.parallel import print_once
    from vlc.train.loop import train
    from vlc.train.trace import parse_steps

    config, profile = load_config(options.config, options.overrides), parse_steps(options.profile)
    keep_compiled(options.workdir)
    with distributed(options, stops=True, config=config.to_json_best_effort()):
        if not config.init:  # else the model decides
            print_once(describe_exports(config))
        return train(
            config,
            options.workdir,
            make_evaluation=make_dev_evaluation,
            load_initial=load_initial,
            load_judge=lambda path: load(path).spread_here(),
            profile=profile,
        )


def _import(options: argparse.Namespace) -> int:
    from vlc.interop import at_length, at_size, describe, import_model, write_native
    from vlc.storage import from_hub, local_copy, made_for

    words = local_copy(from_hub(options.tokenizer)) if options.tokenizer else ""
    model = import_model(local_copy(from_hub(options.model)), tokenizer=words, role=options.role)
    if options.image_size:
        model = at_size(model, options.image_size)
    if options.text_length:
        model = at_length(model, options.text_length, options.keep_positions)
    with made_for(options.out, new=True) as folder:
        write_native(model, folder)
    print(describe(model))
    print(f"Written: {options.out}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from vlc.storage import made_for, push_to_hub

    if not options.out and not options.push:
        raise ConfigError("Name where the model goes: --out FOLDER, or --push hf://ORG/NAME.")
    with tempfile.TemporaryDirectory() as scratch, made_for(options.out or f"{scratch}/model", new=True) as folder:
        notes = _write(options, folder)
        pushed = push_to_hub(folder, options.push, private=options.private) if options.push else ""
    for note in notes:
        print(f"note: {note}")
    print(f"Written: {' and '.join(filter(None, (options.out, pushed)))}")
    return 0


def _write(options: argparse.Namespace, folder: Path) -> tuple[str, ...]:
    """Writes the model in the form that is asked for; what the other side cannot use."""
    from vlc.inference import export_lora
    from vlc.interop import export_model

    if options.format == "lora":
        export_lora(options.model, read_step(options.step), folder)
        return ()
    return export_model(load_model(options.model, options.step).as_imported(), folder, options.format)


if __name__ == "__main__":
    sys.exit(main())
