"""From a config to what feeds training: source, tokenizer, preprocessing, caption choice."""

import contextlib
import itertools
import math
import tempfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vlc.config import Config, parse_steps, parse_weights
from vlc.curate.join import join_captions
from vlc.curate.selection import select
from vlc.data.attributes import Attributes
from vlc.data.bags import Bags, read_bags
from vlc.data.captions import OF_REGION, CaptionChoice, Mix, matching
from vlc.data.controls import LEARNT_CONTROLS, Controls, even_bins, sources_of
from vlc.data.images import Preprocess
from vlc.data.pipeline import FirstPart, Lengths, MakeExample, check_source, pair_of, twin_of
from vlc.data.places import FIRST_PLACE, place_words
from vlc.data.record import Source, coming
from vlc.data.region_choice import RegionChoice, class_number
from vlc.data.sides import names_a_side
from vlc.data.sources import Columns, open_mixture, open_source
from vlc.data.tokenizers import SentencePiece, Tokenizer, load_tokenizer
from vlc.data.workers import cores
from vlc.errors import ConfigError, DataError
from vlc.objectives import parts_used
from vlc.storage import Place, exists, version_of, working_folder

_CUT = 0.05  # share of captions that are cut, from which on it is said
_LOOKED_AT = 200  # records whose caption sources are compared with those that the config names


def open_split(config: Config, split: str, workdir: Place | None = None) -> Source | None:
    """The `train` or `dev` records of a config; `None` when no dev data was named.

    What is joined and filtered is kept in `workdir/data`, so that a run has the same records to its end.
    """
    data = config.data
    scenes = {"side": data.image.size, "split": split, **data.scenes.to_dict()}
    scenes["negatives"] = split == "train" and data.captions.negatives > 0
    scenes["region_negatives"] = split == "train" and data.regions.negatives > 0
    scenes["regions"] = data.regions.count > 0 or OF_REGION in data.captions.sub_sources + data.captions.slots
    if split == "train":
        return _open_train(data, scenes, workdir)
    spec = "scenes" if data.train == "scenes" else data.dev
    return open_source(spec, columns=data.columns, **scenes) if spec else None


def _open_train(data: Any, scenes: dict[str, Any], workdir: Place | None) -> Source:
    """One source or a mixture, with the captions joined to it and without what the filters leave out."""
    if data.mixture and data.train:
        raise ConfigError("Both config.data.train and config.data.mixture are set; name one of them.")
    if not data.mixture:
        return _join_and_filter(open_source(data.train, columns=data.columns, **scenes), data, data.train, workdir)
    mixture = open_mixture(
        data.sources.to_dict(), data.mixture.to_dict(), data.mixture_rule, columns=data.columns, **scenes
    )
    parts = {
        name: _join_and_filter(source, data, data.sources[name], workdir) for name, source in mixture.sources.items()
    }
    return replace(mixture, sources=parts)


def _join_and_filter(source: Source, data: Any, spec: str, workdir: Place | None) -> Source:
    if not (data.join or data.filters):
        return source
    joined = version_of(data.join) if data.join else ""  # with another file all is selected again
    place = zlib.crc32(repr((spec, data.columns, data.join, joined)).encode())
    folder = (working_folder(workdir) if workdir else Path(tempfile.mkdtemp(prefix="vlc-"))) / "data" / f"{place:08x}"
    if data.join:
        source = join_captions(source, data.join, folder, columns=Columns.parse(data.columns))
    return select(source, data.filters, folder, workers=cores()) if data.filters else source


def train_name(config: Config) -> str:
    """What the training data is called in messages."""
    return config.data.train or ", ".join(config.data.mixture)


def make_preprocess(config: Config, size: int = 0) -> Preprocess:
    """From `config.data.image`; with a `size`, for images of another one."""
    image = config.data.image.to_dict()
    image["patch"] = (image["patch"] or config.model.image.patch) if image["resize"] == "naflex" else 0
    return Preprocess(**image | ({"size": size} if size else {}))


def make_region_choice(config: Config) -> RegionChoice | None:
    """From `config.data.regions`; `None` where none are wanted. Where nothing but the places of regions is used, they
    need no text."""
    regions, used = config.data.regions, parts_used(config.objectives)
    texts = bool(used & {"region_texts", "region_captions"}) or regions.crop or config.data.captions.places
    if not regions.count:
        return None
    silent = "attributes" in used and not texts
    return RegionChoice(regions.count, _names(regions.sources), regions.visible, regions.masks, silent)


def make_caption_choice(captions: Any) -> CaptionChoice:
    """From `config.data.captions`."""
    return CaptionChoice(
        mix=Mix(
            parse_weights(captions.mix, "data.captions.mix"),
            parse_weights(captions.mix_end, "data.captions.mix_end"),
            tuple(captions.mix_schedule),
        ),
        sub_captions=captions.sub_captions,
        negatives=captions.negatives,
        negatives_share=captions.negatives_share,
        sub_sources=_names(captions.sub_sources),
        slots=_names(captions.slots),
        first=captions.first,
        merge=captions.merge,
        split=captions.split,
        target=Mix(parse_weights(captions.target, "data.captions.target")) if captions.target else None,
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in text.split(","))))


def sample_captions(source: Source, records: int) -> Iterator[str]:
    """The captions of evenly spaced records, as a stream; damaged records are passed over."""
    for index in coming(source, evenly(source, records), images=False):
        with contextlib.suppress(DataError):
            yield from itertools.chain.from_iterable(source.captions(index).values())


def sample_scores(source: Source, records: int) -> Iterator[float]:
    """The known scores of the captions of evenly spaced records; damaged records are passed over."""
    for index in coming(source, evenly(source, records)):
        with contextlib.suppress(DataError):
            yield from filter(math.isfinite, source[index].flat_scores())


def evenly(source: Source, records: int) -> Iterator[int]:
    """Numbers of evenly spaced records, no more than `records`."""
    count = min(records, len(source))
    return (i * len(source) // count for i in range(count))


def train_tokenizer(
    source: Source, *, records: int, vocab_size: int, where: str, words: Sequence[str] = ()
) -> SentencePiece:
    """A tokenizer trained from the captions of a source, with some words that are never cut.

    Raises:
        DataError: The captions hold no text.
    """
    texts = sample_captions(source, records)
    first = next(texts, None)
    if first is None:
        raise DataError(f"{where}: no captions to train a tokenizer from.")
    return SentencePiece.train(itertools.chain([first], texts), vocab_size, words)


def get_tokenizer(config: Config, source: Source, workdir: Place | None, earlier: Tokenizer | None = None) -> Tokenizer:
    """The tokenizer named by the config, or that of the workdir, trained from the captions at the first start.

    A run that is resumed does not need the file any more: `earlier`, its checkpoint's, is taken where none is there.

    Raises:
        DataError: The named file is missing or damaged, or the captions hold no text.
    """
    data = config.data
    path = workdir / "tokenizer.model" if workdir else None
    named = data.tokenizer or (path if path and path.exists() else "")
    if earlier is not None and not (named and exists(named)):
        return earlier
    if named:
        return load_tokenizer(named)
    tokenizer = train_tokenizer(
        source, records=data.tokenizer_samples, vocab_size=data.vocab_size, where=train_name(config),
        words=place_words(data.captions.places),
    )  # fmt: skip
    if path:
        tokenizer.save(path)
    return tokenizer


def data_warnings(config: Config, source: Source, tokenizer: Tokenizer | None = None) -> list[str]:
    """What is allowed of the data but seldom meant: batches larger than they, caption sources that they lack, captions
    that are longer than what the model reads, flips of captions that speak of sides."""
    found = []
    if config.batch_size > len(source):
        found.append(
            f"config.batch_size={config.batch_size} is more than the {len(source):,} records of {train_name(config)}: "
            "an image stands several times in a batch, among its own negatives."
        )
    known: set[str] = set()
    sided = looked_at = cut = total = 0
    length = config.model.text.length
    for index in coming(source, evenly(source, _LOOKED_AT), images=False):
        with contextlib.suppress(DataError):
            captions = source.captions(index)
            known |= captions.keys()
            looked_at += 1
            sided += any(names_a_side(text) for texts in captions.values() for text in texts)
            if tokenizer is not None:
                texts = [text for some in captions.values() for text in some]
                total += len(texts)
                cut += int((tokenizer.encode(texts, length + 1)[:, -1] != tokenizer.pad_id).sum())
    if cut > _CUT * total:
        found.append(
            f"{cut} of {total} sampled captions are longer than config.model.text.length={length} tokens; what is "
            "beyond is not seen where they are read whole."
        )
    if config.data.image.flip and sided and not config.data.captions.swap_sides:
        found.append(
            f"config.data.image.flip mirrors half of the images, and the captions of {sided} of {looked_at} sampled "
            "records say left or right, which is then wrong. Set config.data.image.flip=False, or "
            "config.data.captions.swap_sides=True, which exchanges the words too."
        )
    captions = config.data.captions
    keys = ("mix", "mix_end", "target")
    named = {key: tuple(parse_weights(captions[key], f"data.captions.{key}")) for key in keys}
    named |= {key: _names(captions[key]) for key in ("sub_sources", "slots")}
    for key, patterns in named.items():
        missing = [name for name in dict.fromkeys(patterns) if OF_REGION not in name and not matching(known, name)]
        if missing and known:
            found.append(
                f"config.data.captions.{key} names {', '.join(missing)}, which none of the sampled records has; they "
                f"have {', '.join(sorted(known))}."
            )
    return found


def find_controls(config: Config, source: Source, begun: Config | None) -> None:
    """Fills in what the controls of captions learn from data, where the config leaves it empty.

    Args:
        config: Changed in place.
        source: The training data. What they show is added to what the config, or the model that it starts from, has.
        begun: Of the run's own checkpoint, whose values count instead, whatever the data are now.
    """
    control = config.model.decoder.control
    if begun is not None:
        learnt = begun.model.decoder.control
        control.update({key: learnt[key] for key in LEARNT_CONTROLS if not control[key]})
        return
    control.edges, control.best = alignment_bins(config, source)
    for key, shown in shown_controls(config, source).items():
        control[key] = tuple(sorted({*control[key], *shown}))


def alignment_bins(config: Config, source: Source) -> tuple[tuple[float, ...], int]:
    """The edges between the bins of alignment, and the best bin: those of the config, or `even_bins` of the scores.

    Raises:
        ConfigError: The captions have no scores, or too few different ones.
    """
    control = config.model.decoder.control
    if not control.alignment or control.edges:
        return tuple(control.edges), control.best
    edges, best = even_bins(list(sample_scores(source, config.data.tokenizer_samples)), control.alignment)
    return edges, control.best or best


def shown_controls(config: Config, source: Source) -> dict[str, tuple]:
    """Values of the controls that evenly spaced records show: those of lengths, of bins, and of sources."""
    control, captions = config.model.decoder.control, config.data.captions
    if not (control.length or control.alignment or control.sources):
        return {"lengths": (), "bins": (), "present": ()}
    target = make_caption_choice(captions).target or make_caption_choice(captions).mix
    lengths: set[int] = set()
    bins: set[int] = set()
    present: set[str] = set()
    regions = make_region_choice(config) if "region_captions" in parts_used(config.objectives) else None
    whole = bool(control.alignment or regions)
    for index in coming(source, evenly(source, config.data.tokenizer_samples), images=whole):
        with contextlib.suppress(DataError):
            record = source[index] if whole else None
            if record is not None and regions is not None:
                told = [pair for region in record.regions for pair in regions.texts_of(region)]
                lengths |= {len(text.split()) for _, text in told}
                present |= {name for name in sources_of(control) if any(matching([one], name) for one, _ in told)}
            found = record.captions if record is not None else source.captions(index)
            names = {name for pattern in target.names() for name in matching(found, pattern)} or set(found)
            for name in names:
                present |= {pattern for pattern in sources_of(control) if matching([name], pattern)}
                lengths |= {len(text.split()) for text in found[name]}
                scores = record.scores.get(name, ()) if record is not None else ()
                bins |= {1 + bisect_right(tuple(control.edges), score) for score in scores if math.isfinite(score)}
    return {
        "lengths": tuple(sorted(n for n in lengths if n <= control.length)) if control.length else (),
        "bins": tuple(sorted(bins)) if control.alignment else (),
        "present": tuple(name for name in sources_of(control) if name in present),
    }


def text_lengths(config: Config, *, first: bool = False) -> Lengths:
    """Tokens of texts; in the first part of training."""
    length = config.model.text.length
    sub, target = config.data.captions.sub_length or length, config.model.decoder.length or length
    most = config.data.first_length if first and config.data.first_length else length
    written = "region_captions" in parts_used(config.objectives)
    region = config.data.regions.length or (min(length, target) if written else length)
    return Lengths(min(length, most), min(sub, most), target, min(region, most))


def bags_of(config: Config, source: Source) -> Bags | None:
    """The bags of records that stand side by side; `None` where there are none."""
    if not config.data.bags:
        return None
    sizes = parse_steps(config.data.bag_sizes, "data.bag_sizes")
    return read_bags(config.data.bags, sizes, len(source), config.batch_size)


def first_steps(config: Config) -> int:
    """The steps whose images or texts are smaller (`data.first_size`, `data.first_length`)."""
    smaller = config.data.first_size or config.data.first_length
    return round(config.steps * config.data.first_share) if smaller else 0


def _first_part(config: Config) -> FirstPart | None:
    steps = first_steps(config)
    if not steps:
        return None
    preprocess = make_preprocess(config, config.data.first_size)
    return FirstPart(steps * config.batch_size, preprocess, text_lengths(config, first=True))


def make_example_maker(config: Config, source: Source, tokenizer: Tokenizer) -> MakeExample:
    """Everything between a record and an example; checked against the first records."""
    make = MakeExample(
        source,
        make_preprocess(config),
        make_caption_choice(config.data.captions),
        tokenizer,
        text_lengths(config),
        draws=config.steps * config.batch_size,
        controls=Controls.of(config),
        first=_first_part(config),
        regions=make_region_choice(config),
        attributes=Attributes.parse(config.data.regions.attributes),
        patch=config.model.image.patch,
        places=(config.data.captions.places, config.data.captions.place_share),
        crop=config.data.regions.crop,
        swap_sides=config.data.captions.swap_sides,
        class_source=config.data.captions.class_source,
        region_classes="region_classes" in parts_used(config.objectives),
        region_negatives=config.data.regions.negatives,
        preferred=config.data.captions.preferred,
        broken="grammar" in parts_used(config.objectives),
    )
    check_source(make, train_name(config))
    if config.data.captions.places:
        _check_places(tokenizer, config.data.captions.places)
    if make.regions is not None:
        _check_regions(source, make.regions, train_name(config))
    if "hard_texts" in parts_used(config.objectives):
        _check_negatives(source, train_name(config))
    if config.data.captions.preferred:
        _check_pairs(source, config.data.captions.preferred, train_name(config))
    if "region_hard" in parts_used(config.objectives):
        _check_region_negatives(source, train_name(config))
    if config.data.captions.class_source:
        _check_classes(source, config.data.captions.class_source, train_name(config))
    if config.data.twins:
        _check_twins(source, make.captions, train_name(config))
    return make


def _check_twins(source: Source, choice: CaptionChoice, name: str) -> None:
    """Raises `DataError` where no record that is looked at has a twin: batches would be as without."""
    rng = np.random.default_rng(0)
    for index in coming(source, evenly(source, _LOOKED_AT), images=False):
        with contextlib.suppress(DataError):
            if twin_of(source, index, choice, rng) is not None:
                return
    raise DataError(
        f"{name}: config.data.twins asks for records that differ in one thing, and none of "
        f"{min(_LOOKED_AT, len(source))} records has such a twin. Generated scenes do, and captions files "
        "whose column `twins` names them."
    )


def has_regions(source: Source, config: Config) -> bool:
    """Whether any record that is looked at has a region with a text."""
    choice = make_region_choice(config)
    assert choice is not None
    try:
        _check_regions(source, choice, train_name(config))
    except DataError:
        return False
    return True


def _check_places(tokenizer: Tokenizer, bins: int) -> None:
    """Raises `ConfigError` where a tokenizer that is there has no words for places, or others."""
    words = place_words(bins)
    ids = (FIRST_PLACE, FIRST_PLACE + len(words) - 1)
    if tokenizer.vocab_size <= ids[1] or tokenizer.pieces(ids) != [words[0], words[-1]]:
        raise ConfigError(
            f"config.data.captions.places={bins}: the tokenizer has no such words ({words[0]} to {words[-1]}). They "
            "are made where a tokenizer is trained: leave config.data.tokenizer empty, in a new workdir."
        )


def _check_regions(source: Source, choice: RegionChoice, name: str) -> None:
    """Raises `DataError` where no record that is looked at has a region with a text."""
    found: set[str] = set()
    for index in coming(source, evenly(source, _LOOKED_AT)):
        with contextlib.suppress(DataError):
            regions = source[index].regions
            if any(map(choice.texts_of, regions)):
                return
            found |= {name for region in regions for name in (*region.captions, *(["label"] if region.label else []))}
    named = f"Theirs are of the sources {', '.join(sorted(found))}" if found else "They have none (docs/data.md)"
    raise DataError(
        f"{name}: config.data.regions asks for regions with texts, and none of {min(_LOOKED_AT, len(source))} records "
        f"has one. {named}."
    )


def _check_pairs(source: Source, preferred: str, name: str) -> None:
    """Raises `ConfigError` where none of the first records has a caption that is preferred to another."""
    for index in range(min(_LOOKED_AT, len(source))):
        with contextlib.suppress(DataError):
            if any(pair_of(source[index], preferred)):
                return
    raise ConfigError(
        f'{name}: none of {min(_LOOKED_AT, len(source))} records has a caption of the source "{preferred}" with a '
        "wrong text that it is preferred to, as vlc data preferences writes them (docs/rewards.md)."
    )


def _check_region_negatives(source: Source, name: str) -> None:
    """Raises `DataError` where no region that is looked at has wrong texts."""
    for index in coming(source, evenly(source, _LOOKED_AT)):
        with contextlib.suppress(DataError):
            if any(region.negatives for region in source[index].regions):
                return
    raise DataError(
        f"{name}: no region of {min(_LOOKED_AT, len(source))} records has wrong texts (`negatives`, docs/regions.md), "
        "which config.objectives.region_hard compares its own with."
    )


def _check_classes(source: Source, of: str, name: str) -> None:
    """Raises `DataError` where no two of the records that are looked at are of one class: nothing would be gained."""
    seen: set[int] = set()
    for index in coming(source, evenly(source, _LOOKED_AT), images=False):
        with contextlib.suppress(DataError):
            number = class_number(next(iter(source.captions(index).get(of, ())), ""))
            if number in seen:
                return
            seen |= {number} if number >= 0 else set()
    raise DataError(
        f"{name}: config.data.captions.class_source={of}, and of {min(_LOOKED_AT, len(source))} records no two share a "
        f"text of that source ({len(seen)} have one)."
    )


def _check_negatives(source: Source, name: str) -> None:
    """Raises `DataError` where no record that is looked at has wrong texts: a loss of them would always be 0."""
    for index in coming(source, evenly(source, _LOOKED_AT)):
        with contextlib.suppress(DataError):
            if any(source[index].negatives.values()):
                return
    raise DataError(
        f"{name}: none of {min(_LOOKED_AT, len(source))} records has wrong texts (`negatives`, docs/data.md), which "
        "config.objectives.hard_clip, .hard_filip, .hard_margin and .hard_texts compare captions with."
    )
