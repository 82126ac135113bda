"""`vlc caption`: captions for images, and for whole data sets."""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from vlc.commands.shared import add_command, add_step, load_here, model_path, open_some, read_numbers
from vlc.commands.together import add_start, same_command, together
from vlc.errors import ConfigError


def add_caption(commands) -> None:
    """The command, below `commands`."""
    command = add_command(commands, "caption", _caption, "write captions for images, or for a whole data set")
    command.add_argument("--workdir", required=True, metavar="MODEL", help="a training workdir, or any other model")
    command.set_defaults(model="")
    add_step(command)
    command.add_argument("images", nargs="*", help="image files; several scales and samples are printed a line each")
    command.add_argument("--guidance-scale", default="1", help="1 is the likeliest caption; above 1 more specific")
    add_search(command)
    command.add_argument("--samples", type=int, default=1, help="captions an image; with --data 0 scores the old ones")
    command.add_argument("--judge", default="", help="the dual encoder that ranks and scores them (the model itself)")
    several = command.add_argument_group("a whole data set")
    several.add_argument("--data", default="", help="a data set to caption, in place of image files")
    several.add_argument("--out", default="", help="with --data: the folder of the new one")
    several.add_argument("--columns", default="", help="which columns are what, e.g. image=file,alt=title")
    several.add_argument("--name", default="longVLC", help="the caption source of the new captions (longVLC)")
    several.add_argument("--keep", type=int, default=0, help="at the most so many captions an image, the best (all)")
    several.add_argument("--min-score", type=float, default=float("-inf"), help="drop captions of a lower cosine")
    several.add_argument("--drop-originals", action="store_true", help="leave the captions that are there out")
    several.add_argument("--records", type=int, default=0, help="only so many images, evenly spaced (all)")
    several.add_argument("--shard-records", type=int, default=4096, help="images in a shard (4096)")
    several.add_argument("--part", default="1/1", help="only a part of the shards, for jobs apart: 1/4, 2/4, ...")
    add_start(command)


def add_search(parser: argparse.ArgumentParser) -> None:
    """How captions are searched for, as in `vlc.generate.Search`, and what is asked of them."""
    command = parser.add_argument_group("how captions are written")
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


def read_asked(options: argparse.Namespace, model, samples: int = 1):
    """What captions are asked for, but the guidance scale."""
    from vlc.data.controls import parse_control
    from vlc.generate import Search
    from vlc.inference.captioning import Asked

    search = Search(
        options.beams, options.length_penalty, samples, options.temperature, options.top_k, options.top_p,
        options.seed, options.max_length,
    )  # fmt: skip
    weights = read_numbers(options.language_weights, "--language-weights")
    if len(weights) != 2:
        raise ConfigError(f'--language-weights is "{options.language_weights}"; write two numbers, as in 2,1.')
    path = options.language_model
    other = (model if path == model_path(options) else load_here(path)) if path else None
    asked = Asked(1.0, search, options.prompt, parse_control(options.control), other, (weights[0], weights[1]))
    if model.config.model.decoder.layers:
        asked.check(model)
    return asked


def _caption(options: argparse.Namespace) -> int:
    from vlc.evaluate.captioning import at_scales

    if bool(options.images) == bool(options.data):
        raise ConfigError("Give image files, or a data set with --data PATH --out DIR.")
    scales = read_numbers(options.guidance_scale)
    if options.data:
        return _recaption(options, scales)
    model, judge = _load_both(options)
    asked = at_scales(read_asked(options, model, options.samples), scales)
    ranked_by = judge if options.samples > 1 and options.beams == 1 else None
    columns = [model.write(options.images, one, judge=ranked_by) for one in asked]
    for image, *found in zip(options.images, *columns, strict=True):
        for scale, captions in zip(scales, found, strict=True):
            for caption in captions:
                print(f"{image}\t{scale:g}\t{caption.text}")
    return 0


def _load_both(options: argparse.Namespace):
    """The captioner, and who judges its captions: `None` where nobody can."""
    model = load_here(options.workdir, options.step)
    return model, load_here(options.judge) if options.judge else model if model.compares else None


def _recaption(options: argparse.Namespace, scales: Sequence[float]) -> int:
    if not options.out:
        raise ConfigError("--data needs --out DIR, the folder of the new data set.")
    if len(scales) > 1:
        raise ConfigError("A data set is captioned at one --guidance-scale; give each its own --name and --out.")
    part, _, parts = options.part.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise ConfigError(f'--part is "{options.part}"; write 1/4 for the first of four.')
    with together(options, command=same_command(options)):
        _write_dataset(options, scales[0], int(part) - 1, int(parts))
    return 0


def _write_dataset(options: argparse.Namespace, scale: float, part: int, parts: int) -> None:
    """The shards of one of several jobs, whose processes share them."""
    from vlc.data.files import local_folder
    from vlc.inference.recaption import Recaption, recaption
    from vlc.parallel import check_shared, say

    check_shared(local_folder(options.out, "--out"), "--out")
    model, judge = _load_both(options)
    asked = replace(read_asked(options, model, options.samples), guidance_scale=scale) if options.samples else None
    wanted = Recaption(
        options.data, options.columns, options.name, asked, options.keep, options.min_score, not options.drop_originals,
        options.shard_records,
    )  # fmt: skip
    source = open_some(options.data, options)
    manifest = recaption(model, source, wanted, options.out, judge=judge, part=part, parts=parts)
    if manifest is None:
        say(f"{options.out}: this part is done; the others are not yet.")
        return
    say(f"{options.out}: {manifest['captions']:,} captions of {manifest['records']:,} images")
    for reason, count in manifest["left out"]["records"].items():
        say(f"  {count:,} left out: {reason}")
