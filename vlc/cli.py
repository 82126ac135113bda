"""The command `vlc`: each subcommand parses its arguments and calls one public function.

Heavy modules are imported inside the commands: data workers import this file too.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from vlc.errors import ConfigError, TrainingDiverged, VlcError

EXIT_BAD_INPUT, EXIT_DIVERGED = 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; an error of the user's is one message on stderr, not a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    parser = _make_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not options.takes_overrides:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.overrides = rest
    try:
        return options.run(options)
    except TrainingDiverged as error:
        print(f"vlc: {error}", file=sys.stderr)
        return EXIT_DIVERGED
    except VlcError as error:
        print(f"vlc: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vlc", description="Fine-grained vision-language pretraining in JAX.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = _command(commands, "train", _train, "train, or go on from the newest checkpoint in the workdir")
    train.add_argument("--config", required=True, help="a config file, e.g. configs/quickstart.py or FILE.py:smoke")
    train.add_argument("--workdir", required=True, help="where checkpoints, metrics and the tokenizer are kept")
    train.epilog = "Any setting can be changed: --config.optimizer.lr=1e-3"
    train.set_defaults(takes_overrides=True)

    _add_evaluation(_command(commands, "eval", _evaluate, "zero-shot, retrieval, probes, captions, ...; a report"))

    caption = _command(commands, "caption", _caption, "write captions for images")
    caption.add_argument("--workdir", required=True, metavar="MODEL", help="a training workdir, or any other model")
    _add_step(caption)
    caption.add_argument("images", nargs="+", help="image files")
    caption.add_argument("--guidance-scale", default="1", help="1 is the likeliest caption; above 1 more specific")

    bring = _command(commands, "import", _import, "read a model of transformers, open_clip or big_vision")
    bring.add_argument("model", help="its folder, or a .npz")
    bring.add_argument("--out", required=True, help="the folder to write, which vlc.load reads")
    bring.add_argument("--tokenizer", default="", help="its tokenizer's file, where it does not lie beside the weights")
    bring.add_argument("--image-size", type=int, default=0, help="resample the positions for images of this size")

    send = _command(commands, "export", _export, "write a model for transformers, open_clip, or as safetensors")
    send.add_argument("model", help="a training workdir, or any other model that vlc loads")
    send.add_argument("--format", required=True, help="huggingface, open_clip or safetensors")
    send.add_argument("--out", required=True, help="a folder that is new or empty")
    _add_step(send)

    data = commands.add_parser("data", help="look at data, build a dataset, train a tokenizer").add_subparsers(
        required=True, metavar="COMMAND"
    )
    _add_data_commands(data)
    return parser


def _add_data_commands(data) -> None:
    build = _command(data, "build", _data_build, "write any source as ArrayRecord shards; stopped, it goes on")
    _add_source(build)
    build.add_argument("--out", required=True, help="the folder of the dataset")
    build.add_argument(
        "--filter", action="append", default=[], help="a step, e.g. 'words(min=3, max=20)'; again for more"
    )
    build.add_argument("--shard-records", type=int, default=4096, help="records in a shard (4096)")
    build.add_argument("--shorter-side", type=int, default=0, help="scale larger images down to this shorter side")
    build.add_argument("--split", default="train", help="what tfds calls the records (train)")

    verify = _command(data, "verify", _data_verify, "read a built dataset again: sizes, checksums, every record")
    verify.add_argument("folder")

    stats = _command(data, "stats", _data_stats, "captions, scripts, image sizes, duplicates: a table and a picture")
    _add_source(stats)
    stats.add_argument("--out", default="stats.png", help="the picture; the numbers go beside it as .json (stats.png)")

    show = _command(data, "show", _data_show, "print and draw samples as the model will see them")
    show.add_argument("source", nargs="?", default="", help="a source; by default config.data.train")
    show.add_argument("--config", default="", help="a config file whose preprocessing and caption choice are used")
    show.add_argument("--count", type=int, default=12)
    show.add_argument("--out", default="samples.png", help="the picture to write (samples.png)")
    show.set_defaults(takes_overrides=True)
    tokenizer = _command(data, "tokenizer", _data_tokenizer, "train a SentencePiece tokenizer from the captions")
    tokenizer.add_argument("source")
    tokenizer.add_argument("--out", required=True, help="the .model file to write")
    tokenizer.add_argument("--columns", default="", help="which columns are what, e.g. image=file,alt=title")
    tokenizer.add_argument("--vocab-size", type=int, default=8192)
    tokenizer.add_argument("--records", type=int, default=100_000, help="records to read at the most")


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", help="a folder, shards, a captions file, tfds:NAME, ...: docs/data.md")
    command.add_argument("--columns", default="", help="which columns are what, e.g. image=file,alt=title")
    command.add_argument("--records", type=int, default=0, help="only so many records, evenly spaced (all)")
    command.add_argument("--join", default="", help="a file with more captions for the same images")
    command.add_argument("--workers", type=int, default=0, help="processes (all cores)")


def _command(commands, name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text.capitalize() + ".", allow_abbrev=False)
    command.set_defaults(run=run, takes_overrides=False)
    return command


def _add_step(command: argparse.ArgumentParser) -> None:
    command.add_argument("--step", default="last", help="checkpoint of a workdir: last, best, or a step")


def _add_evaluation(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", nargs="?", default="", help="a workdir, or any other model that vlc loads")
    command.add_argument("--workdir", default="", help="the same")
    _add_step(command)
    command.add_argument(
        "--task", default="", help="classification, retrieval, sugarcrepe, winoground, aro, segmentation, linear, knn; "
        "several with commas; without, all that can be measured on held-out training data",
    )  # fmt: skip
    command.add_argument("--data", action="append", default=[], help="PATH, or TASK=PATH; again for more tasks")
    command.add_argument("--images", default="", help="where images are, when not with the files that name them")
    command.add_argument("--split", default="", help="of labelled images or captions (the one for evaluation)")
    command.add_argument("--classes", default="", help="a file with the names of classes")
    command.add_argument("--templates", default="clip", help="prompts: clip (80), simple (1), or a file (clip)")
    command.add_argument("--score", default="auto", help="embed, tokens or both (what the model was trained for)")
    command.add_argument("--columns", default="", help="which columns are what, e.g. image=file,alt=title")
    command.add_argument("--examples", type=int, default=None, help="at the most (all; without --task 512)")
    command.add_argument("--guidance-scale", default="1,1.5,2,3", help="without --task: of the caption sweep")
    command.add_argument("--out", default="", help="folder of the results (the workdir, or eval/NAME)")
    command.add_argument("--cache", default="", help="folder of embeddings ($VLC_CACHE, or ~/.cache/vlc)")
    command.add_argument("--tokenizer", default="", help="of a model whose tokenizer does not lie beside the weights")


def _scales(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f'--guidance-scale is "{text}"; write numbers, as in 1,1.5,2.') from None


def _load(path: str, step: str, tokenizer: str = ""):
    from vlc.inference import load

    if step in ("last", "best"):
        return load(path, step=step, tokenizer=tokenizer)
    if not step.isdigit():
        raise ConfigError(f'--step is "{step}"; it must be last, best, or a number.')
    return load(path, step=int(step), tokenizer=tokenizer)


def _train(options: argparse.Namespace) -> int:
    from vlc.config_file import load_config
    from vlc.evaluate.dev import make_dev_evaluation
    from vlc.inference import load_initial
    from vlc.train.loop import train

    config = load_config(options.config, options.overrides)
    return train(config, options.workdir, make_evaluation=make_dev_evaluation, load_initial=load_initial)


def _evaluate(options: argparse.Namespace) -> int:
    path = options.model or options.workdir
    if not path or (options.model and options.workdir):
        raise ConfigError("Name one model: vlc eval MODEL. It is a workdir, or a folder of another library.")
    out = Path(options.out or (path if (Path(path) / "checkpoints").is_dir() else Path("eval") / Path(path).stem))
    if options.task:
        return _evaluate_tasks(options, path, out)
    from vlc.evaluate.run import evaluate, summary

    if len(options.data) > 1:
        raise ConfigError("Several --data go with --task; without it one source is evaluated.")
    scales = _scales(options.guidance_scale)
    model = _load(path, options.step, options.tokenizer)
    out.mkdir(parents=True, exist_ok=True)
    examples = 512 if options.examples is None else options.examples
    results = evaluate(model, out, data=next(iter(options.data), ""), examples=examples, scales=scales)
    print(summary(results))
    print(f"Written: {out / 'eval.json'} and {out / 'report.html'}")
    return 0


def _evaluate_tasks(options: argparse.Namespace, path: str, out: Path) -> int:
    from vlc.evaluate.embeddings import cache_folder
    from vlc.evaluate.tasks import TASKS, Options, as_table, evaluate_tasks

    data = {}
    for given in options.data:
        name, _, place = given.partition("=")
        data |= {name: place} if place and name in TASKS else {"": given}
    asked = Options(
        data,
        images=options.images,
        split=options.split,
        classes=options.classes,
        templates=options.templates,
        score=options.score,
        examples=options.examples or 0,
        columns=options.columns,
    )
    tasks = [task.strip() for task in options.task.split(",") if task.strip()]
    model = _load(path, options.step, options.tokenizer)
    cache = Path(options.cache) if options.cache else cache_folder()
    results = evaluate_tasks(model, tasks, asked, out, cache=cache, name=path)
    print(as_table(results))
    print(f"Written: {out / 'eval.json'} and {out / 'report.html'}")
    return 0


def _import(options: argparse.Namespace) -> int:
    from vlc.interop import at_size, describe, import_model, write_native

    model = import_model(options.model, tokenizer=options.tokenizer)
    if options.image_size:
        model = at_size(model, options.image_size)
    write_native(model, Path(options.out))
    print(describe(model))
    print(f"Written: {options.out}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from vlc.interop import export_model

    notes = export_model(_load(options.model, options.step).as_imported(), options.out, options.format)
    for note in notes:
        print(f"note: {note}")
    print(f"Written: {options.out}")
    return 0


def _caption(options: argparse.Namespace) -> int:
    model = _load(options.workdir, options.step)
    scales = _scales(options.guidance_scale)
    columns = [model.caption(options.images, guidance_scale=scale) for scale in scales]
    for image, *captions in zip(options.images, *columns, strict=True):
        for scale, caption in zip(scales, captions, strict=True):
            print(f"{image}\t{scale:g}\t{caption}")
    return 0


def _data_show(options: argparse.Namespace) -> int:
    from vlc.config import default_config
    from vlc.config_file import load_config
    from vlc.evaluate.samples import show_samples

    config = load_config(options.config, options.overrides) if options.config else default_config()
    if options.source:
        config.data.train = options.source
    print(show_samples(config, options.count, Path(options.out)))
    print(f"Drawn: {options.out}")
    return 0


def _data_build(options: argparse.Namespace) -> int:
    from vlc.data.build import Plan, build
    from vlc.data.workers import cores

    if options.shard_records < 1:
        raise ConfigError(f"--shard-records is {options.shard_records}; a shard holds at least one record.")
    plan = Plan(
        options.source,
        filters=tuple(options.filter),
        join=options.join,
        columns=options.columns,
        records=options.records,
        shard_records=options.shard_records,
        shorter_side=options.shorter_side,
        split=options.split,
    )
    source = _open_some(options)
    manifest = build(source, plan, options.out, workers=options.workers or cores())
    print(f"{options.out}: {manifest['records']:,} records in {len(manifest['shards'])} shards")
    for line in _left_out(manifest):
        print(f"  {line}")
    return 0


def _open_some(options: argparse.Namespace):
    from vlc.data.sources import Sample, open_source

    source = open_source(options.source, columns=options.columns)
    return Sample(source, options.records) if options.records > 0 else source


def _left_out(manifest: dict) -> list[str]:
    """What a build left out, a line a reason."""
    out, joined = manifest["left out"], manifest["joined"]
    lines = [f"{count:,} left out of the index: {reason}" for reason, count in out["index"].items()]
    lines += [f"{count:,} cannot be used: {reason}" for reason, count in out["records"].items()]
    lines += [f"{s['step']} dropped {s['images']:,} images, {s['captions']:,} captions" for s in out["filters"]]
    if joined:
        lines.append(
            f"joined {joined['file']}: captions for {joined['images with captions']:,} images, none for "
            f"{joined['images without']:,}; {joined['rows without image']:,} rows belong to no image"
        )
    return lines


def _data_verify(options: argparse.Namespace) -> int:
    from vlc.data.build import read_manifest, verify

    problems = verify(options.folder)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        manifest = read_manifest(Path(options.folder))
        print(f"{options.folder}: {manifest['records']:,} records in {len(manifest['shards'])} shards, all as written")
    return EXIT_BAD_INPUT if problems else 0


def _data_stats(options: argparse.Namespace) -> int:
    import json
    import tempfile

    from vlc.data.join import join_captions
    from vlc.data.sources import Columns
    from vlc.data.stats import as_table, summarise
    from vlc.data.survey import survey
    from vlc.data.workers import cores
    from vlc.evaluate.data_figures import stats_figure

    source = _open_some(options)
    with tempfile.TemporaryDirectory() as folder:
        if options.join:
            source = join_captions(source, options.join, Path(folder), columns=Columns.parse(options.columns))
        seen = survey(source, Path(folder), workers=options.workers or cores())
        found = summarise(seen)
        picture = stats_figure(seen, found)
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(picture)
    out.with_suffix(".json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(as_table(found))
    print(f"Drawn: {out}; the numbers: {out.with_suffix('.json')}")
    return 0


def _data_tokenizer(options: argparse.Namespace) -> int:
    from vlc.data.sources import open_source
    from vlc.train.inputs import train_tokenizer

    source = open_source(options.source, columns=options.columns)
    tokenizer = train_tokenizer(source, records=options.records, vocab_size=options.vocab_size, where=options.source)
    tokenizer.save(options.out)
    print(f"{options.out}: {tokenizer.vocab_size} pieces")
    return 0


if __name__ == "__main__":
    sys.exit(main())
