"""`vlc data ...`: look at data, build a dataset, train a tokenizer."""

import argparse
import sys
from pathlib import Path

from vlc.commands.shared import EXIT_BAD_INPUT, add_columns, add_command, columns_of, load_here, open_some
from vlc.errors import ConfigError


def add_data_commands(data) -> None:
    build = add_command(data, "build", _data_build, "write any source as ArrayRecord shards; stopped, it goes on")
    _add_source(build)
    build.add_argument("--out", required=True, help="the folder of the dataset")
    build.add_argument(
        "--filter", action="append", default=[], help="a step, e.g. 'words(min=3, max=20)'; again for more"
    )
    build.add_argument("--shard-records", type=int, default=4096, help="records in a shard (4096)")
    build.add_argument("--shorter-side", type=int, default=0, help="scale larger images down to this shorter side")
    build.add_argument("--split", default="train", help="what tfds calls the records (train)")
    build.add_argument("--negatives", type=int, default=0, help="wrong texts made for each caption, at most (0)")
    build.add_argument("--rule", action="append", default=[], help="that makes them; again for more (the usual ones)")

    verify = add_command(data, "verify", _data_verify, "read a built dataset again: sizes, checksums, every record")
    verify.add_argument("folder")

    bags = add_command(data, "bags", _data_bags, "mine bags of images that look alike, by a model's embeddings")
    bags.add_argument("source", help="the data that will be trained on, as config.data.train names it")
    add_columns(bags)
    bags.add_argument("--model", required=True, help="the dual encoder that compares them")
    bags.add_argument("--size", type=int, default=7, help="images of a bag (7)")
    bags.add_argument("--neighbours", type=int, default=64, help="the nearest of an image that are looked at (64)")
    bags.add_argument("--records", type=int, default=0, help="only this many records, evenly spaced (all)")
    bags.add_argument("--out", required=True, help="the file, for config.data.bags and vlc eval --task bags")
    bags.set_defaults(computes=True)

    pairs = add_command(
        data, "preferences", _data_preferences, "the best and the worst of an image's captions, in pairs"
    )
    pairs.add_argument("source", help="data with several captions of an image, as vlc caption --data writes it")
    add_columns(pairs)
    pairs.add_argument("--captions", default="longVLC", help="the caption source that has them (longVLC)")
    pairs.add_argument("--by", required=True, help='rewards that decide and their weights, "precision:1,recall:0.5"')
    pairs.add_argument("--judge", default="", help="the dual encoder of rewards that need one")
    pairs.add_argument("--references", default="", help="caption sources that rewards compare with (all others)")
    pairs.add_argument("--name", default="preferred", help="the caption source of those that are preferred (preferred)")
    pairs.add_argument("--margin", type=float, default=0.0, help="by which a pair differs at least (0)")
    pairs.add_argument("--records", type=int, default=0, help="only this many records, evenly spaced (all)")
    pairs.add_argument("--shard-records", type=int, default=4096, help="images in a shard (4096)")
    pairs.add_argument("--out", required=True, help="the folder of the data set that is written")
    pairs.set_defaults(computes=True)

    stats = add_command(data, "stats", _data_stats, "captions, scripts, image sizes, duplicates: a table and a picture")
    _add_source(stats)
    stats.add_argument("--out", default="stats.png", help="the picture; the numbers go beside it as .json (stats.png)")

    show = add_command(data, "show", _data_show, "print and draw samples as the model will see them")
    show.add_argument("source", nargs="?", default="", help="a source; by default config.data.train")
    show.add_argument("--config", default="", help="a config file whose preprocessing and caption choice are used")
    show.add_argument("--count", type=int, default=12)
    show.add_argument("--out", default="samples.png", help="the picture to write (samples.png)")
    show.set_defaults(takes_overrides=True)
    tokenizer = add_command(data, "tokenizer", _data_tokenizer, "train a SentencePiece tokenizer from the captions")
    tokenizer.add_argument("source")
    tokenizer.add_argument("--out", required=True, help="the .model file to write")
    add_columns(tokenizer)
    tokenizer.add_argument("--vocab-size", type=int, default=8192)
    tokenizer.add_argument("--records", type=int, default=100_000, help="the most records to read (100000)")


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", help="a folder, shards, a captions file, tfds:NAME, ...: docs/data.md")
    add_columns(command)
    command.add_argument("--records", type=int, default=0, help="only this many records, evenly spaced (all)")
    command.add_argument("--join", default="", help="a file with more captions for the same images")
    command.add_argument("--workers", type=int, default=0, help="processes (all cores)")


def _data_show(options: argparse.Namespace) -> int:
    from vlc.config import default_config
    from vlc.config.file import load_config
    from vlc.evaluate.report.samples import show_samples
    from vlc.storage import made_for, place

    config = load_config(options.config, options.overrides) if options.config else default_config()
    if options.source:
        config.data.train = options.source
    with made_for(place(options.out).parent) as folder:
        print(show_samples(config, options.count, folder / place(options.out).name))
    print(f"Drawn: {options.out}")
    return 0


def _data_build(options: argparse.Namespace) -> int:
    from vlc.curate.build import Plan, build
    from vlc.data.workers import cores

    if options.negatives < 0:
        raise ConfigError(f"--negatives is {options.negatives}; it is the most wrong texts for a caption, 0 or more.")
    if options.rule and not options.negatives:
        raise ConfigError("--rule says how wrong texts are made; say how many for a caption with --negatives.")
    if options.shard_records < 1:
        raise ConfigError(f"--shard-records is {options.shard_records}; a shard holds at least one record.")
    plan = Plan(
        options.source,
        filters=tuple(options.filter),
        join=options.join,
        columns=columns_of(options),
        records=options.records,
        shard_records=options.shard_records,
        shorter_side=options.shorter_side,
        split=options.split,
        negatives=options.negatives,
        rules=tuple(options.rule),
    )
    source = open_some(options.source, options)
    manifest = build(source, plan, options.out, workers=options.workers or cores())
    print(f"{options.out}: {manifest['records']:,} records in {len(manifest['shards'])} shards")
    for line in [*_left_out(manifest), *_made(manifest)]:
        print(f"  {line}")
    return 0


def _made(manifest: dict) -> list[str]:
    """Of the wrong texts that a build made: how many, for which share of it, by which rules."""
    made = manifest.get("negatives")
    if not made:
        return []
    texts = sorted(made["texts"].items(), key=lambda pair: -pair[1])
    total = sum(made["texts"].values())
    return [
        f"{total:,} wrong texts for {made['captions']:,} of {manifest['captions']:,} captions, of "
        f"{made['records'] / manifest['records']:.1%} of the records, read by {manifest['plan']['reader']}: "
        + ", ".join(f"{rule} {count:,}" for rule, count in texts)
    ]


def _left_out(manifest: dict) -> list[str]:
    """What a build left out, a line a reason."""
    out, joined = manifest["left out"], manifest["joined"]
    from vlc.data.record import WORDS

    lines = [f"{count:,} left out of the index: {WORDS.get(reason, reason)}" for reason, count in out["index"].items()]
    lines += [f"{count:,} cannot be used: {WORDS.get(reason, reason)}" for reason, count in out["records"].items()]
    lines += [f"{s['step']} dropped {s['images']:,} images, {s['captions']:,} captions" for s in out["filters"]]
    if joined:
        lines.append(
            f"joined {joined['file']}: captions for {joined['images with captions']:,} images, none for "
            f"{joined['images without']:,}; {joined['rows without image']:,} rows belong to no image"
        )
    return lines


def _data_verify(options: argparse.Namespace) -> int:
    from vlc.curate.build import verify
    from vlc.curate.shards import read_manifest
    from vlc.storage import local_copy

    problems = verify(options.folder)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        manifest = read_manifest(local_copy(options.folder))
        print(f"{options.folder}: {manifest['records']:,} records in {len(manifest['shards'])} shards, all as written")
    return EXIT_BAD_INPUT if problems else 0


def _data_bags(options: argparse.Namespace) -> int:
    import json

    from vlc.data.sources import open_source
    from vlc.errors import DataError
    from vlc.evaluate.tasks.scenes import open_test_scenes
    from vlc.inference.bags import embedded, mine_bags
    from vlc.storage import place, write_whole

    model = load_here(options.model)
    if options.source == "scenes":
        source = open_test_scenes(model, 1_000_000).subset(split="train")
    else:
        source = open_source(options.source, columns=columns_of(options))
    numbers, embed, skipped = embedded(model, source, options.records)
    bags = numbers[mine_bags(embed, options.size, neighbours=options.neighbours)]
    if not len(bags):
        raise DataError(f"{options.source}: no bag of {options.size} images; more --neighbours, or a smaller --size.")
    found = {"records": len(source), "size": options.size, "bags": bags.tolist()}
    write_whole(place(options.out), (json.dumps(found) + "\n").encode())
    print(f"{options.out}: {len(bags):,} bags of {options.size}, of {len(embed):,} images")
    for reason, count in skipped.items():
        print(f"  {count:,} left out: {reason}")
    return 0


def _data_stats(options: argparse.Namespace) -> int:
    import json
    import tempfile

    from vlc.curate.join import join_captions
    from vlc.curate.stats import as_table, summarise
    from vlc.curate.survey import survey
    from vlc.data.sources import Columns
    from vlc.data.workers import cores
    from vlc.evaluate.report.data_figures import stats_figure
    from vlc.storage import place, write_whole

    source = open_some(options.source, options)
    with tempfile.TemporaryDirectory() as folder:
        if options.join:
            source = join_captions(source, options.join, Path(folder), columns=Columns.parse(columns_of(options)))
        seen = survey(source, Path(folder), workers=options.workers or cores())
        found = summarise(seen, source)
        picture = stats_figure(seen, found)
    out = place(options.out)
    write_whole(out, picture)
    write_whole(out.with_suffix(".json"), (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())
    print(as_table(found))
    print(f"Drawn: {out}; the numbers: {out.with_suffix('.json')}")
    return 0


def _data_tokenizer(options: argparse.Namespace) -> int:
    from vlc.data.sources import open_source
    from vlc.train.inputs import train_tokenizer

    source = open_source(options.source, columns=columns_of(options))
    tokenizer = train_tokenizer(source, records=options.records, vocab_size=options.vocab_size, where=options.source)
    tokenizer.save(options.out)
    print(f"{options.out}: {tokenizer.vocab_size} pieces")
    return 0


def _data_preferences(options: argparse.Namespace) -> int:
    from vlc.config.checks import parse_weights
    from vlc.inference.preferences import Preferences, write_preferences

    columns = columns_of(options)
    settings = Preferences(
        options.source, options.captions, parse_weights(options.by, "--by", signed=True), columns, options.references,
        options.name, options.margin, options.shard_records,
    )  # fmt: skip
    judge = load_here(options.judge) if options.judge else None
    manifest = write_preferences(open_some(options.source, options), settings, judge, options.out)
    print(f"{options.out}: {manifest['records']:,} pairs in {len(manifest['shards'])} shards")
    for reason, count in manifest["left out"]["records"].items():
        print(f"  {count:,} left out: {reason}")
    return 0
