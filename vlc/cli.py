"""The command `vlc`: each subcommand parses its arguments and calls one public function.

Heavy modules are imported inside the commands: data workers import this file too.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
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
    caption.set_defaults(model="")
    _add_step(caption)
    caption.add_argument("images", nargs="*", help="image files; several scales and samples are printed a line each")
    _add_captioning(caption)

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
        "--task", default="", help="classification, retrieval, caption, sugarcrepe, winoground, aro, segmentation, "
        "linear, knn; "
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
    command.add_argument("--guidance-scale", default="1,1.5,2,3", help="of the captions (1,1.5,2,3)")
    _add_search(command)
    command.add_argument("--judge", default="", help="captions: the dual encoder that judges them (the model itself)")
    command.add_argument("--references", default="", help="captions: the sources they are compared with (all)")
    command.add_argument("--compare", action="append", default=[], help="captions: an earlier sweep, for the picture")
    command.add_argument("--out", default="", help="folder of the results (the workdir, or eval/NAME)")
    command.add_argument("--cache", default="", help="folder of embeddings ($VLC_CACHE, or ~/.cache/vlc)")
    command.add_argument("--tokenizer", default="", help="of a model whose tokenizer does not lie beside the weights")


def _add_captioning(command: argparse.ArgumentParser) -> None:
    command.add_argument("--guidance-scale", default="1", help="1 is the likeliest caption; above 1 more specific")
    _add_search(command)
    command.add_argument("--samples", type=int, default=1, help="captions an image; with --data 0 scores the old ones")
    command.add_argument("--judge", default="", help="the dual encoder that ranks and scores them (the model itself)")
    command.add_argument("--data", default="", help="a data set to caption, in place of image files")
    command.add_argument("--out", default="", help="with --data: the folder of the new one")
    command.add_argument("--columns", default="", help="which columns are what, e.g. image=file,alt=title")
    command.add_argument("--name", default="longVLC", help="the caption source of the new captions (longVLC)")
    command.add_argument("--keep", type=int, default=0, help="at the most so many captions an image, the best (all)")
    command.add_argument("--min-score", type=float, default=float("-inf"), help="drop captions of a lower cosine")
    command.add_argument("--drop-originals", action="store_true", help="leave the captions that are there out")
    command.add_argument("--records", type=int, default=0, help="only so many images, evenly spaced (all)")
    command.add_argument("--shard-records", type=int, default=4096, help="images in a shard (4096)")
    command.add_argument("--process", default="1/1", help="which of several processes this is: 1/4, 2/4, ...")


def _add_search(command: argparse.ArgumentParser) -> None:
    """How captions are searched for, as in `vlc.generate.Search`, and what is asked of them."""
    command.add_argument("--beams", type=int, default=1, help="beam search with so many hypotheses (1: greedy)")
    command.add_argument("--length-penalty", type=float, default=1.0, help="of beam search (1: the mean by token)")
    command.add_argument("--temperature", type=float, default=1.0, help="of drawing; below 1 likelier")
    command.add_argument("--top-k", type=int, default=0, help="draw among so many words (all)")
    command.add_argument("--top-p", type=float, default=1.0, help="draw among the likeliest words of this probability")
    command.add_argument("--seed", type=int, default=0, help="of drawing")
    command.add_argument("--max-length", type=int, default=0, help="tokens at the most (what the model can write)")
    command.add_argument("--prompt", default="", help="words that each caption begins with")
    command.add_argument("--control", default="", help="what is asked for, e.g. length=8,alignment=best,source=long")
    command.add_argument("--language-model", default="", help="guidance by this model's captioner without an image")
    command.add_argument("--language-weights", default="1,1", help="its a,b in log q + a log p(x|y) - b log p(x)")


def _asked(options: argparse.Namespace, model, samples: int = 1):
    """What captions are asked for, but the guidance scale."""
    from vlc.evaluate.captioning import parse_control
    from vlc.generate import Search
    from vlc.inference.captioning import Asked

    search = Search(
        options.beams, options.length_penalty, samples, options.temperature, options.top_k, options.top_p,
        options.seed, options.max_length,
    )  # fmt: skip
    weights = _scales(options.language_weights, "--language-weights")
    if len(weights) != 2:
        raise ConfigError(f'--language-weights is "{options.language_weights}"; write two numbers, as in 2,1.')
    path = options.language_model
    other = (model if path == _model_path(options) else _load(path, "last")) if path else None
    asked = Asked(1.0, search, options.prompt, parse_control(options.control), other, (weights[0], weights[1]))
    if model.config.model.decoder.layers:
        asked.check(model)
    return asked


def _scales(text: str, name: str = "--guidance-scale") -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f'{name} is "{text}"; write numbers, as in 1,1.5,2.') from None


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


def _model_path(options: argparse.Namespace) -> str:
    """MODEL, or what --workdir names."""
    if bool(options.model) == bool(options.workdir):
        raise ConfigError("Name one model: vlc eval MODEL. It is a workdir, or a folder of another library.")
    return options.model or options.workdir


def _evaluate(options: argparse.Namespace) -> int:
    path = _model_path(options)
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
    asked = replace(
        asked, scales=_scales(options.guidance_scale), asked=_asked(options, model), judge_name=options.judge,
        judge=_load(options.judge, "last") if options.judge else None, references=options.references,
        compare=options.compare,
    )  # fmt: skip
    cache = Path(options.cache) if options.cache else cache_folder()
    results = evaluate_tasks(model, tasks, asked, out, cache=cache, name=path)
    print("\n\n".join([as_table(results), *results["texts"]]))
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
    from vlc.evaluate.captioning import at_scales

    if bool(options.images) == bool(options.data):
        raise ConfigError("Give image files, or a data set with --data PATH --out DIR.")
    model = _load(options.workdir, options.step)
    judge = _load(options.judge, "last") if options.judge else model if model.compares else None
    scales = _scales(options.guidance_scale)
    if options.data:
        return _recaption(options, model, judge, scales)
    asked = at_scales(_asked(options, model, options.samples), scales)
    ranked_by = judge if options.samples > 1 and options.beams == 1 else None
    columns = [model.write(options.images, one, judge=ranked_by) for one in asked]
    for image, *found in zip(options.images, *columns, strict=True):
        for scale, captions in zip(scales, found, strict=True):
            for caption in captions:
                print(f"{image}\t{scale:g}\t{caption.text}")
    return 0


def _recaption(options: argparse.Namespace, model, judge, scales: Sequence[float]) -> int:
    from vlc.inference.recaption import Recaption, recaption

    if not options.out:
        raise ConfigError("--data needs --out DIR, the folder of the new data set.")
    if len(scales) > 1:
        raise ConfigError("A data set is captioned at one --guidance-scale; give each its own --name and --out.")
    part, _, parts = options.process.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise ConfigError(f'--process is "{options.process}"; write 1/4 for the first of four.')
    asked = replace(_asked(options, model, options.samples), guidance_scale=scales[0]) if options.samples else None
    wanted = Recaption(
        options.data, options.columns, options.name, asked, options.keep, options.min_score, not options.drop_originals,
        options.shard_records,
    )  # fmt: skip
    manifest = recaption(
        model, _open_some(options.data, options), wanted, options.out, judge=judge, part=int(part) - 1, parts=int(parts)
    )
    if manifest is None:
        print(f"{options.out}: this process is done; the others are not yet.")
        return 0
    print(f"{options.out}: {manifest['captions']:,} captions of {manifest['records']:,} images")
    for reason, count in manifest["left out"]["records"].items():
        print(f"  {count:,} left out: {reason}")
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
    source = _open_some(options.source, options)
    manifest = build(source, plan, options.out, workers=options.workers or cores())
    print(f"{options.out}: {manifest['records']:,} records in {len(manifest['shards'])} shards")
    for line in _left_out(manifest):
        print(f"  {line}")
    return 0


def _open_some(spec: str, options: argparse.Namespace):
    from vlc.data.sources import Sample, open_source

    source = open_source(spec, columns=options.columns)
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
    from vlc.data.build import verify
    from vlc.data.shards import read_manifest

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

    source = _open_some(options.source, options)
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
