"""`vlc caption`: captions for images, and for whole data sets."""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from vlc.commands.distributed import add_start, command_fingerprint, distributed
from vlc.commands.shared import (
    add_columns,
    add_command,
    add_step,
    columns_of,
    load_here,
    model_path,
    open_some,
    read_numbers,
)
from vlc.errors import ConfigError


def add_caption(commands) -> None:
    """Adds the command."""
    command = add_command(commands, "caption", _caption, "write captions for images, or for a whole data set")
    command.add_argument("--workdir", required=True, metavar="MODEL", help="a training workdir, or any other model")
    command.set_defaults(model="")
    add_step(command)
    command.add_argument("images", nargs="*", help="image files; several scales and samples are printed a line each")
    command.add_argument("--guidance-scale", default="1", help="1 is the likeliest caption; above 1 more specific")
    add_decoding(command)
    command.add_argument(
        "--num-return-sequences", type=int, default=1, help="captions an image; with --data, 0 scores the old ones"
    )
    command.add_argument(
        "--reranker", default="", help="the dual encoder that ranks and scores them (the model itself)"
    )
    several = command.add_argument_group("a whole data set")
    several.add_argument("--data", default="", help="a data set to caption, in place of image files")
    several.add_argument("--out", default="", help="with --data: the folder of the new one")
    add_columns(several)
    several.add_argument("--name", default="longVLC", help="the caption source of the new captions (longVLC)")
    several.add_argument("--keep", type=int, default=0, help="keep at most this many captions an image, the best (all)")
    several.add_argument("--min-score", type=float, default=float("-inf"), help="drop captions of a lower cosine")
    several.add_argument("--drop-originals", action="store_true", help="leave the captions that are there out")
    several.add_argument("--records", type=int, default=0, help="only this many images, evenly spaced (all)")
    several.add_argument("--shard-records", type=int, default=4096, help="images in a shard (4096)")
    several.add_argument("--part", default="1/1", help="only a part of the shards, for jobs apart: 1/4, 2/4, ...")
    add_start(command)


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Decoding options, as in `vlc.generate.DecodingOptions`, and what a caption should be."""
    command = parser.add_argument_group("how captions are written")
    command.add_argument("--num-beams", type=int, default=1, help="hypotheses of beam search (1: greedy)")
    command.add_argument(
        "--length-penalty", type=float, default=1.0, help="of beam search (1: the mean log-probability of a token)"
    )
    command.add_argument("--temperature", type=float, default=1.0, help="of sampling; below 1 favours likely tokens")
    command.add_argument("--top-k", type=int, default=0, help="sample among this many of the likeliest tokens (all)")
    command.add_argument(
        "--top-p", type=float, default=1.0, help="sample among the likeliest tokens of this total probability"
    )
    command.add_argument("--seed", type=int, default=0, help="of sampling")
    command.add_argument(
        "--max-new-tokens", type=int, default=0, help="the most tokens of a caption (the model's limit)"
    )
    command.add_argument("--prompt", default="", help="the beginning of each caption")
    command.add_argument("--control", default="", help="what is asked for, e.g. length=8,alignment=best,source=long")
    command.add_argument("--language-model", default="", help="guidance by this model's captioner without an image")
    command.add_argument("--language-weights", default="1,1", help="its a,b in log q + a log p(x|y) - b log p(x)")


def read_request(options: argparse.Namespace, model, num_return_sequences: int = 1):
    """The caption request of the options, without the guidance scale."""
    from vlc.data.controls import parse_control
    from vlc.generate import DecodingOptions
    from vlc.inference.captioning import CaptionRequest

    decoding = DecodingOptions(
        options.num_beams,
        options.length_penalty,
        num_return_sequences,
        options.temperature,
        options.top_k,
        options.top_p,
        options.seed,
        options.max_new_tokens,
    )
    weights = read_numbers(options.language_weights, "--language-weights")
    if len(weights) != 2:
        raise ConfigError(f'--language-weights is "{options.language_weights}"; write two numbers, as in 2,1.')
    path = options.language_model
    other = (model if path == model_path(options) else load_here(path)) if path else None
    request = CaptionRequest(
        1.0, decoding, options.prompt, parse_control(options.control), other, (weights[0], weights[1])
    )
    if model.config.model.decoder.layers:
        request.check(model)
    return request


def _caption(options: argparse.Namespace) -> int:
    from vlc.evaluate.tasks.captioning import at_scales

    if bool(options.images) == bool(options.data):
        raise ConfigError("Give image files, or a data set with --data PATH --out DIR.")
    scales = read_numbers(options.guidance_scale)
    if options.data:
        return _recaption(options, scales)
    model, reranker = _load_both(options)
    requests = at_scales(read_request(options, model, options.num_return_sequences), scales)
    sampled = options.num_return_sequences > 1 and options.num_beams == 1  # beam search has an order of its own
    ranked_by = reranker if options.reranker or sampled else None
    columns = [model.generate(options.images, request, reranker=ranked_by) for request in requests]
    for image, *found in zip(options.images, *columns, strict=True):
        for scale, captions in zip(scales, found, strict=True):
            for caption in captions:
                print(f"{image}\t{scale:g}\t{caption.text}")
    return 0


def _load_both(options: argparse.Namespace):
    """The captioner, and the dual encoder that ranks its captions: `None` where there is none."""
    model = load_here(options.workdir, options.step)
    return model, load_here(options.reranker) if options.reranker else model if model.compares else None


def _recaption(options: argparse.Namespace, scales: Sequence[float]) -> int:
    if not options.out:
        raise ConfigError("--data needs --out DIR, the folder of the new data set.")
    if len(scales) > 1:
        raise ConfigError("A data set is captioned at one --guidance-scale; give each its own --name and --out.")
    part, _, parts = options.part.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise ConfigError(f'--part is "{options.part}"; write 1/4 for the first of four.')
    with distributed(options, command=command_fingerprint(options)):
        _write_dataset(options, scales[0], int(part) - 1, int(parts))
    return 0


def _write_dataset(options: argparse.Namespace, scale: float, part: int, parts: int) -> None:
    """The shards of one of several jobs, whose processes share them."""
    from vlc.data.record import WORDS, describe_skipped
    from vlc.inference.recaption import Recaption, recaption
    from vlc.parallel import check_shared, print_once
    from vlc.storage import place

    check_shared(place(options.out), "--out")
    model, reranker = _load_both(options)
    request = (
        replace(read_request(options, model, options.num_return_sequences), guidance_scale=scale)
        if options.num_return_sequences
        else None
    )
    settings = Recaption(
        options.data,
        columns_of(options),
        options.name,
        request,
        options.keep,
        options.min_score,
        not options.drop_originals,
        options.shard_records,
    )
    source = open_some(options.data, options)
    manifest = recaption(model, source, settings, options.out, reranker=reranker, part=part, parts=parts)
    if manifest is None:
        print_once(f"{options.out}: this part is done; the others are not yet.")
        return
    print_once(f"{options.out}: {manifest['captions']:,} captions of {manifest['records']:,} images")
    for line in describe_skipped(source):
        print_once(f"  {line}")
    for reason, count in manifest["left out"]["records"].items():
        print_once(f"  {count:,} left out: {WORDS.get(reason, reason)}")
