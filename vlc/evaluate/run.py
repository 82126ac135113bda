"""`vlc eval MODEL --task ...`: the field's evaluations of a dual encoder, over embeddings that are computed once."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlc.errors import ConfigError, did_you_mean
from vlc.evaluate.embeddings import Cache
from vlc.evaluate.report.page import Report, write_results
from vlc.evaluate.tasks.bags import run_bags
from vlc.evaluate.tasks.base import Options, Outcome
from vlc.evaluate.tasks.captioning import run_captioning
from vlc.evaluate.tasks.choices import run_choices
from vlc.evaluate.tasks.classification import run_classification
from vlc.evaluate.tasks.compositionality import SUITES, run_compositionality
from vlc.evaluate.tasks.judgements import run_judgements
from vlc.evaluate.tasks.probing import run_probe
from vlc.evaluate.tasks.region_captions import run_region_captions
from vlc.evaluate.tasks.regions import run_regions
from vlc.evaluate.tasks.retrieval import run_retrieval
from vlc.evaluate.tasks.segmentation import run_segmentation
from vlc.evaluate.tasks.wrong_texts import run_wrong_texts
from vlc.inference import Model
from vlc.inference.comparison import compared_by
from vlc.parallel import check_shared
from vlc.storage import Place

SCORES = ("auto", "embed", "tokens", "both")

# A task is given the cache of embeddings, the options, its own name, and by what is compared.
TASKS: dict[str, Callable[[Cache, Options, str, Sequence[str]], Outcome]] = {
    "classification": run_classification,
    "retrieval": run_retrieval,
    **dict.fromkeys(SUITES, run_compositionality),
    "wrong_texts": run_wrong_texts,
    "choices": run_choices,
    "judgements": run_judgements,
    "segmentation": run_segmentation,
    "linear": run_probe,
    "knn": run_probe,
    "caption": run_captioning,
    "bags": run_bags,
    "regions": run_regions,
    "region_captions": run_region_captions,
}


_CLOSER = ("classification", "retrieval", *SUITES, "wrong_texts", "choices", "linear", "knn")  # whole pictures
# Tasks of models that compare nothing, too.
_WITHOUT_TEXTS = ("caption", "judgements", "bags", "region_captions", "linear", "knn")


def evaluate_tasks(
    model: Model, tasks: Sequence[str], options: Options, out: Path, *, cache: Place, name: str, quiet: bool = False
) -> dict[str, Any]:
    """Runs tasks, and writes `eval.json` and `report.html`. Several processes share the images, texts and captions.

    Args:
        model: The model.
        tasks: Names of `TASKS`.
        options: Their data, and how they are scored.
        out: The folder for the results.
        cache: The folder in which embeddings are kept; where there are several processes, they share it.
        name: What the model is called in the report.
        quiet: No progress bars.

    Returns:
        What `eval.json` holds.

    Raises:
        ConfigError: A task is not known, or has no data, or the processes do not share the cache.
        DataError: Its data is missing or damaged.
    """
    for task in tasks:
        if task not in TASKS:
            raise ConfigError(f'--task "{task}" is not known.{did_you_mean(task, TASKS)}')
        options.path(task)
        if options.closer and task not in _CLOSER:
            raise ConfigError(f"--zoom and --parts are for {', '.join(_CLOSER)}; --task {task} has no use for them.")
        if task not in _WITHOUT_TEXTS:
            compared_by(model)
    by = compared(model, options.score)
    check_shared(cache, "--cache")
    kept = Cache(cache, model, quiet=quiet, closer=options.closer)
    results: dict[str, Any] = {"model": name, "step": model.step, "tasks": {}}
    report = Report("vlc evaluation", name)
    table: list[list[Any]] = []
    parts = []
    for task in tasks:
        started = time.perf_counter()
        outcome = TASKS[task](kept, options, task, by)
        seconds = round(time.perf_counter() - started, 1)
        results["tasks"][task] = outcome.figures | {"data": options.path(task), "seconds": seconds}
        table += [[task, *row] for row in outcome.rows]
        parts.append((task, outcome))
        report.tile(f"{100 * outcome.rows[0][2]:.1f}%", f"{task}: {outcome.rows[0][1]}")
    report.table(
        "All tasks", "Ties count as wrong everywhere.", ["task", "scored by", "figure", "value"],
        [[task, how, figure, float(value)] for task, how, figure, value in table],
    )  # fmt: skip
    for task, outcome in parts:
        report.text(task, outcome.note)
        outcome.more(report)
    write_results(out, results, report, {name: text for _, done in parts for name, text in done.files.items()})
    results["table"] = table
    results["texts"] = [outcome.text for _, outcome in parts if outcome.text]
    return results


def compared(model: Model, score: str) -> tuple[str, ...]:
    """What is compared: `embed`, `tokens`, or both; by default what the model was trained to compare.

    Raises:
        ConfigError: The name is not known, or the model was not trained to compare so.
    """
    if score not in SCORES:
        raise ConfigError(f'--score is "{score}".{did_you_mean(score, SCORES)}')
    if score == "auto":
        return model.compares
    return tuple(compared_by(model, how) for how in (("embed", "tokens") if score == "both" else (score,)))


def as_table(results: Mapping[str, Any]) -> str:
    """The figures, for the terminal."""
    rows = [("task", "scored by", "figure", "value")]
    rows += [(task, how, figure, f"{100 * value:6.2f}%") for task, how, figure, value in results["table"]]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
