"""`vlc eval`: zero-shot, retrieval, captions, ..., and a report."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vlc.commands.captioning import add_decoding, read_request
from vlc.commands.distributed import add_start, command_fingerprint, distributed
from vlc.commands.shared import add_columns, add_command, add_step, columns_of, load_here, model_path, read_numbers
from vlc.errors import ConfigError


def add_eval(commands) -> None:
    """Adds the command."""
    _add_arguments(add_command(commands, "eval", _evaluate, "zero-shot, retrieval, probes, captions, ...; a report"))


def _add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", nargs="?", default="", help="a workdir, or any other model that vlc loads")
    command.add_argument("--workdir", default="", help="the same")
    add_step(command)
    command.add_argument(
        "--task", default="", help="classification, retrieval, caption, sugarcrepe, winoground, aro, "
        "wrong_texts, choices, judgements, segmentation, regions, region_captions, bags, linear, knn; "
        "several with commas; without, all that can be measured on held-out training data",
    )  # fmt: skip
    command.add_argument("--data", action="append", default=[], help="PATH, or TASK=PATH; again for more tasks")
    command.add_argument("--images", default="", help="where images are, when not with the files that name them")
    command.add_argument("--split", default="", help="of labelled images or captions (the one for evaluation)")
    command.add_argument("--classes", default="", help="a file with the names of classes")
    command.add_argument("--templates", default="clip", help="prompts: clip (80), simple (1), or a file (clip)")
    command.add_argument("--score", default="auto", help="embed, tokens or both (what the model was trained for)")
    add_columns(command)
    command.add_argument("--examples", type=int, default=None, help="the most images (all; without --task 512)")
    command.add_argument("--guidance-scale", default="1,1.5,2,3", help="of the captions (1,1.5,2,3)")
    add_decoding(command)
    command.add_argument(
        "--scorer", default="", help="captions: the dual encoder of CLIPScore and retrieval (the model itself)"
    )
    command.add_argument("--references", default="", help="captions: the sources they are compared with (all)")
    command.add_argument(
        "--metrics", default="", help="captions in detail: units, capture, dnli, events, entities, chair, text, or all"
    )
    command.add_argument("--claims", default="auto", help="what reads claims: scenes, rules, package.module.function")
    command.add_argument("--judge", default="auto", help="who judges them: references, package.module.function")
    command.add_argument("--judge-seconds", type=float, default=60.0, help="how long it may think of a caption (60)")
    command.add_argument("--objects", default="", help="chair: a file of names of objects, a line for each")
    command.add_argument("--soft", default="", metavar="MODEL", help="a text encoder, for words that are nearly alike")
    command.add_argument("--compare", action="append", default=[], help="captions: an earlier sweep, for the picture")
    command.add_argument(
        "--crops", action="store_true", help="regions: look at each as at a picture of its own (OVSeg)"
    )
    command.add_argument("--bags", default="", help="bags: a file of vlc data bags (mined from the images)")
    command.add_argument("--windows", type=int, default=0, help="segmentation: windows slide over this short side")
    command.add_argument("--proposals", default="", help="segmentation: masks of another model, as COCO's results are")
    command.add_argument("--ensemble", type=float, default=0.7, help="how much their crops have to say (OVSeg: 0.7)")
    command.add_argument(
        "--zoom", type=int, default=0, help="look again at the box of so many patches that stand out (GLSim)"
    )
    command.add_argument(
        "--parts", default="", help="look at parts of pictures again; 2,3: at four and nine (Dragonfly)"
    )
    command.add_argument("--keep", type=int, default=0, help="patches of parts that are kept (as many as of the whole)")
    command.add_argument("--closer-by", default="likeness", help="what patches are chosen by: likeness or oddness")
    command.add_argument(
        "--unique", type=int, default=0, help="region_captions: of so many, the one that fits no other region as well"
    )
    command.add_argument("--out", default="", help="folder of the results (the workdir, or eval/NAME)")
    command.add_argument("--cache", default="", help="folder of embeddings ($VLC_CACHE, or ~/.cache/vlc)")
    command.add_argument("--tokenizer", default="", help="of a model whose tokenizer does not lie beside the weights")
    add_start(command)


def _evaluate(options: argparse.Namespace) -> int:
    from vlc.storage import is_hub, made_for, place

    path = model_path(options)
    is_run = not is_hub(path) and (place(path) / "checkpoints").is_dir()
    default = path if is_run else Path("eval") / place(path).stem
    out = place(options.out or default)
    if not options.task and len(options.data) > 1:
        raise ConfigError("Several --data go with --task; without it one source is evaluated.")
    scales = read_numbers(options.guidance_scale)
    with distributed(options, command=command_fingerprint(options)):
        from vlc.parallel import print_once

        run = _evaluate_tasks if options.task else _evaluate_run
        with made_for(out, first=("metrics.jsonl",)) as folder:
            said = run(options, path, folder, scales)
        print_once("\n\n".join([*said, f"Written: {out / 'eval.json'} and {out / 'report.html'}"]))
    return 0


def _closer(options: argparse.Namespace):
    """How pictures are looked at again; `None`: they are not."""
    from vlc.inference.closer import Closer

    if not (options.zoom or options.parts):
        return None
    parts = tuple(map(int, read_numbers(options.parts, "--parts"))) if options.parts else ()
    return Closer(options.zoom, parts, options.keep, options.closer_by)


def _detail(options: argparse.Namespace):
    """What is asked of captions in detail."""
    from vlc.evaluate.tasks.detail import DetailOptions, check_metrics

    metrics = check_metrics([name.strip() for name in options.metrics.split(",") if name.strip()])
    further = {"--claims": options.claims != "auto", "--judge": options.judge != "auto", "--objects": options.objects,
               "--soft": options.soft}  # fmt: skip
    if not metrics and any(further.values()):
        given = ", ".join(name for name, value in further.items() if value)
        raise ConfigError(f"{given}: goes with --metrics, which says what is asked of captions.")
    soft = load_here(options.soft) if options.soft else None
    return DetailOptions(
        metrics, options.claims, options.judge, options.judge_seconds, options.objects,
        (lambda texts: soft.encode_text(texts).embed) if soft else None, options.soft,
    )  # fmt: skip


def _evaluate_run(options: argparse.Namespace, path: str, out: Path, scales: Sequence[float]) -> list[str]:
    from vlc.evaluate.overview import evaluate, summary

    model = load_here(path, options.step, options.tokenizer)
    out.mkdir(parents=True, exist_ok=True)
    examples = 512 if options.examples is None else options.examples
    return [summary(evaluate(model, out, data=next(iter(options.data), ""), examples=examples, scales=scales))]


def _evaluate_tasks(options: argparse.Namespace, path: str, out: Path, scales: Sequence[float]) -> list[str]:
    from vlc.evaluate.run import TASKS, as_table, evaluate_tasks
    from vlc.evaluate.tasks.base import Options
    from vlc.storage import cache_folder, place

    data = {}
    for given in options.data:
        name, _, path_of_task = given.partition("=")
        data |= {name: path_of_task} if path_of_task and name in TASKS else {"": given}
    chosen = Options(
        data,
        images=options.images,
        split=options.split,
        classes=options.classes,
        templates=options.templates,
        score=options.score,
        examples=options.examples or 0,
        columns=columns_of(options),
    )
    tasks = [task.strip() for task in options.task.split(",") if task.strip()]
    model = load_here(path, options.step, options.tokenizer)
    chosen = replace(
        chosen, scales=scales, request=read_request(options, model, max(options.unique, 1)), scorer_name=options.scorer,
        scorer=load_here(options.scorer) if options.scorer else None, references=options.references,
        compare=options.compare, crops=options.crops, unique=options.unique > 0, closer=_closer(options),
        bags=options.bags, detail=_detail(options),
        windows=options.windows, proposals=options.proposals, ensemble=options.ensemble,
    )  # fmt: skip
    cache = place(options.cache) if options.cache else cache_folder()
    results = evaluate_tasks(model, tasks, chosen, out, cache=cache, name=path)
    return [as_table(results), *results["texts"]]
