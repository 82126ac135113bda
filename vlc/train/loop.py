"""Training, from a config to the last checkpoint, in one readable function."""

import contextlib
import functools
import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from vlc.config import Config, check_config, config_warnings, resolve_auto
from vlc.data.pipeline import describe_batch, train_batches
from vlc.data.record import describe_skipped
from vlc.data.tokenizers import Tokenizer
from vlc.errors import DataError, TrainingDiverged
from vlc.parallel import (
    EXIT_PREEMPTED,
    Share,
    batch_sharding,
    check_batch,
    check_shared,
    chip_of,
    compiler_options,
    describe_mesh,
    is_primary,
    make_mesh,
    primary_first,
    print_once,
    replicated,
    state_sharding,
)
from vlc.rewards import Judge
from vlc.storage import Place, place, refuse_hub, write_whole, writing
from vlc.train.checkpoint import has_checkpoints, newest_meta, open_checkpoints
from vlc.train.compile_ahead import compile_ahead
from vlc.train.data_identity import change_of_data, check_same_data, data_identity
from vlc.train.divergence import ONCE, first_divergence
from vlc.train.examples_seen import ExamplesSeen
from vlc.train.feed import Feed, Interrupted
from vlc.train.flops import step_flops
from vlc.train.goodput import Goodput
from vlc.train.initial import Initial, inherit_architecture, load_start, resumed_start, start_from
from vlc.train.inputs import (
    bags_of,
    data_warnings,
    find_controls,
    first_steps,
    get_tokenizer,
    make_example_maker,
    open_split,
)
from vlc.train.logging import MetricLog, Progress
from vlc.train.lowering import batch_shapes, rollout_shapes, writes
from vlc.train.optimizer import make_optimizer, updates_of
from vlc.train.restoring import Restoring, make_meta
from vlc.train.resume import changes_of, check_same_model, next_batch
from vlc.train.rollout import Rollout
from vlc.train.rollout import load_judge as load_judge_of
from vlc.train.save_clock import SaveClock
from vlc.train.state import count_parameters, eval_params, init_state, make_graph
from vlc.train.step import make_train_step
from vlc.train.stop import StopOnSigterm
from vlc.train.teacher import load_teacher
from vlc.train.trace import Trace
from vlc.train.workdir_lock import workdir_lock

log = logging.getLogger("vlc")

# (graph, parameters, tokenizer) to metrics, and PNGs by name; "score" decides which checkpoint is the best.
DevEvaluation = Callable[[Any, Any, Tokenizer], Mapping[str, float | bytes]]


def train(
    config: Config,
    workdir: str | Path,
    *,
    make_evaluation: Callable[[Config], DevEvaluation | None] = lambda config: None,
    load_initial: Callable[[str], Initial] | None = None,
    load_judge: Callable[[str], Judge] | None = None,
    profile: tuple[int, int] | None = None,
) -> int:
    """Trains, or goes on from the newest checkpoint in the workdir.

    Killed at any moment and started again with the same arguments on the same machine shape, a run ends with the same
    parameters bit for bit: the state holds everything, and the data pipeline is a function of the step. On another mesh
    or another number of processes it goes on with the same examples, and the same parameters up to rounding.

    Several processes (`vlc.parallel.start_processes`) call this alike, with a workdir on a disk that all of them share.

    Args:
        config: See `vlc.config.default_config`.
        workdir: Checkpoints, metrics, tokenizer and config are kept here.
        make_evaluation: Makes what is called every `config.eval.every` steps, e.g.
            `vlc.evaluate.dev.make_dev_evaluation`.
        load_initial: Loads the models of `config.init` and `objectives.distill.teacher`: `vlc.inference.load_initial`.
        load_judge: Loads the dual encoder of `config.reward.judge`: `vlc.load`.
        profile: The first and the last of the steps that are traced to `workdir/profile`.

    Returns:
        0 when all steps are done, `EXIT_PREEMPTED` after a SIGTERM to any of the processes.

    Raises:
        ConfigError, DataError: Before anything is compiled.
        CheckpointError: The workdir's checkpoints do not fit the config, or cannot be written.
        TrainingDiverged: A loss or the gradient is no longer finite.
    """
    refuse_hub(workdir, "--workdir")
    goodput, home = Goodput(), place(workdir)
    check_shared(home, "--workdir")  # before any process reads what the others may not have
    # What a run once started from, its checkpoint has: the model and the tokenizer's file need not be there any more.
    earlier = newest_meta(home)
    begun = resumed_start(earlier, str(home)) if earlier is not None else None
    initial = begun if begun is not None and config.init else load_start(config, load_initial)
    if initial is not None:
        config = inherit_architecture(config, initial)
    check_config(config)
    mesh = make_mesh(config.mesh)
    check_batch(mesh, config.batch_size, config.accumulate)
    with writing(home, "--workdir"), workdir_lock(home):
        return _train(config, home, mesh, goodput, initial, begun, make_evaluation, load_initial, load_judge, profile)


def _train(
    config: Config, workdir: Place, mesh: Mesh, goodput: Goodput, initial: Initial | None, begun: Initial | None,
    make_evaluation: Callable[[Config], DevEvaluation | None], load_initial: Callable[[str], Initial] | None,
    load_judge: Callable[[str], Judge] | None, profile: tuple[int, int] | None,
) -> int:  # fmt: skip
    # -- what is trained on. All that can be wrong with data and config is found here, before compilation.
    with primary_first("data"):  # the others then find indices, filtered records and the tokenizer on the shared disk
        source = open_split(config, "train", workdir)
        assert source is not None
        tokenizer = (initial and initial.tokenizer) or get_tokenizer(
            config, source, workdir, begun.tokenizer if begun is not None else None
        )
        find_controls(config, source, begun.config if begun is not None else None)
        make_example = make_example_maker(config, source, tokenizer)
        bags = bags_of(config, source)
        evaluate = make_evaluation(config)
    identity = data_identity(source, tokenizer)
    check_same_data(identity)
    saved_config = json.loads(config.to_json_best_effort())

    # -- the state: shapes first, then shardings, so that every array is born where it will live.
    run = resolve_auto(config, jax.default_backend())
    optimizer = make_optimizer(run.optimizer, run.steps * updates_of(run), lora=bool(run.model.lora.rank))
    graph = make_graph(run, tokenizer.vocab_size)

    def fresh(key: jax.Array) -> Any:
        return init_state(run, tokenizer.vocab_size, optimizer, key)

    shapes = jax.eval_shape(fresh, jax.random.key(run.seed))
    sharding = state_sharding(shapes, mesh)
    teacher = load_teacher(run, load_initial, tokenizer, mesh)
    taught = () if teacher is None else (teacher.params,)
    judge, share = load_judge_of(run, load_judge), Share(mesh, run.batch_size)
    rollout = None
    if writes(run):
        rollout = Rollout(run, graph, mesh, share, tokenizer, source, judge, sharding["params"], bags)
    step_function = jax.jit(
        make_train_step(graph, optimizer, run, teacher),
        in_shardings=(sharding, batch_sharding(mesh), *(() if teacher is None else (teacher.sharding,))),
        out_shardings=(sharding, replicated(mesh)),
        donate_argnums=0,
        compiler_options=compiler_options("step"),
    )

    @functools.cache
    def compiled_step(first: bool) -> Future[Any]:
        """Of the first part of training, or later: compiled in the background, while all else is made ready."""
        return compile_ahead(step_function, mesh, shapes, batch_shapes(run, first=first), *taught)

    # -- restore order: the newest sound checkpoint of this workdir, else fresh parameters.
    if not has_checkpoints(workdir):
        compiled_step(first_steps(run) > 0)
    keep = run.checkpoint
    checkpoints = open_checkpoints(
        workdir, keep_last=keep.keep_last, keep_best=keep.keep_best, keep_every=keep.keep_every, copies=keep.copies
    )
    meta = make_meta(saved_config, tokenizer, make_example.preprocess) | {"data": identity}

    def abstract(saved_meta: dict) -> Any:
        check_same_model(saved_meta, meta, str(workdir))
        if saved_meta["step"] < run.steps:
            compiled_step(saved_meta["step"] < first_steps(run))
        return jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, sharding)

    restored = checkpoints.restore(abstract)
    if restored:
        state, saved_meta = restored
        first_step, digest = saved_meta["step"], saved_meta["digest"]
        first_batch = next_batch(saved_meta, run.batch_size)
        print_once(f"Resuming from step {first_step} in {workdir}.")
        for line in changes_of(saved_meta["config"], saved_config, first_step, first_batch * run.batch_size):
            print_once(f"  {line}")
        for line in change_of_data(saved_meta.get("data"), identity):
            print_once(f"  {line}")
    else:
        compiled_step(first_steps(run) > 0)
        with jax.set_mesh(mesh):
            make_state = jax.jit(fresh, out_shardings=sharding, compiler_options=compiler_options("once"))
            state = make_state(jax.random.key(run.seed))
        if initial is not None:
            state = start_from(state, initial, sharding)
        first_step = first_batch = digest = 0

    # -- input and logs.
    for warning in [*config_warnings(config), *data_warnings(config, source, tokenizer)]:
        print_once(f"Warning: {warning}")
    host_batches = train_batches(
        make_example, batch_size=run.batch_size, seed=run.seed, start_step=first_batch, rows=share.rows.tolist(),
        threads=run.data.threads, workers=run.data.workers, twins=run.data.twins,
        twins_from=round(run.data.twins_from * run.steps), bags=bags,
    )  # fmt: skip
    if is_primary():  # every check has passed
        write_whole(workdir / "config.json", (json.dumps(saved_config, indent=1) + "\n").encode())
    metric_log = MetricLog(workdir, first_step, run.track, saved_config)
    _describe_run(run, mesh, source, state, first_step)
    progress = Progress(run.steps, first_step, run.batch_size)
    chip = chip_of(jax.devices()[0].device_kind)
    flops = functools.cache(functools.partial(step_flops, run, tokenizer.vocab_size))

    read_here = {name: x.shape for name, x in batch_shapes(run).items() if name not in rollout_shapes(run)}

    def is_first(batch: dict[str, jax.Array]) -> bool:
        """By what it holds: with another batch size, a run that is resumed is at another place of its data."""
        return any(batch[name].shape != shape for name, shape in read_here.items())

    unread: deque[tuple[int, dict[str, jax.Array]]] = deque()

    def read(leave: int) -> dict[str, float]:
        """Fetches the metrics of all but the newest `leave` steps and checks them; returns the last ones."""
        numbers: dict[str, float] = {}
        while len(unread) > leave:
            of_step, metrics = unread.popleft()
            numbers = {name: float(value) for name, value in jax.device_get(metrics).items()}
            _check_finite(of_step, numbers, checkpoints, workdir)
        return numbers

    def save(step: int, score: float | None = None, *, copy: bool = False) -> None:
        with goodput.spent("checkpoint"):
            seen = {"digest": examples_seen.total()[0], "examples": (first_batch + step - first_step) * run.batch_size}
            if copy:
                checkpoints.copy(step, state, meta | seen)
            else:
                checkpoints.save(step, state, meta | seen, score=score)
                clock.restart()
        copy_clock.restart()

    # -- the loop. From here on SIGTERM asks for a save.
    stop, trace, examples_seen = StopOnSigterm(), Trace(workdir, profile), ExamplesSeen(share, digest)
    feed = Feed(host_batches, share.to_devices, set(read_here), interrupted=lambda: stop.alone_and_asked)
    clock, copy_clock = SaveClock(keep.every_minutes), SaveClock(keep.copies_every_minutes)
    step, shown_at, best = first_step, first_step, checkpoints.best_score()
    since, stopping = time.perf_counter(), False
    goodput.started()
    try:
        while step < run.steps and not stopping:
            try:
                host_batch, batch = next(feed)
            except Interrupted:  # the data do not come, and a stop was asked for
                read(leave=0)
                save(step)
                stopping = True
                continue
            except DataError as error:  # the data are gone
                if jax.process_count() > 1 or step == first_step:
                    raise
                read(leave=0)
                save(step)
                checkpoints.wait()
                raise DataError(f"{error}\nSaved at step {step}; the same command goes on from here.") from error
            if step == first_step:
                print_once(f"The first captions, as the model sees them:\n{describe_batch(host_batch, tokenizer)}")
            examples_seen.add(step, host_batch)
            trace.before(step + 1)
            first = is_first(batch)
            if rollout is not None:
                batch |= rollout(first_batch + step - first_step, state["params"], host_batch, batch)
            waits = step == first_step or not compiled_step(first).done()
            compiling = goodput.spent("compilation") if waits else contextlib.nullcontext()
            named = jax.profiler.StepTraceAnnotation("train", step_num=step + 1)
            with compiling, named, jax.set_mesh(mesh), jax.transfer_guard("disallow"):
                state, metrics = compiled_step(first).result()(state, batch, *taught)
            compiled_step(False)  # long before it is needed
            step += 1
            trace.after(step, metrics)

            last, stopping = step == run.steps, stop.asked(step)
            shown = step % run.log_every == 0 or last or step == first_step + 1
            saving = step % run.checkpoint.every == 0 or last or stopping or (shown and clock.due())
            copying = (keep.copies_every and step % keep.copies_every == 0) or (shown and copy_clock.due())
            evaluating = evaluate is not None and (step % run.eval.every == 0 or last)
            # Read one step late, so that the devices are never idle, but before anything is shown or saved.
            unread.append((step, metrics))
            numbers = read(leave=0 if shown or saving or copying or evaluating else 1)
            if shown:
                elapsed = time.perf_counter() - since
                if chip:
                    numbers["mfu"] = flops(first=first) * (step - shown_at) / elapsed / chip.flops / mesh.size
                goodput.add("input", feed.waited)
                numbers |= feed.report()
                numbers |= {} if rollout is None else rollout.report(elapsed)
                numbers |= progress.update(step, numbers)
                numbers |= {f"time/{part}": share for part, share in goodput.shares().items()}
                numbers["seen"], skipped = examples_seen.total()
                numbers |= {f"skipped/{reason}": float(count) for reason, count in skipped.items()}
                metric_log.write(step, numbers)
                since, shown_at = time.perf_counter(), step
            score = None
            if evaluating and evaluate is not None:
                with goodput.spent("evaluation"):
                    found = evaluate(graph, eval_params(state), tokenizer)
                dev = {name: value for name, value in found.items() if not isinstance(value, bytes)}
                score = dev.get("score")
                metric_log.write(step, {f"dev/{name}": value for name, value in dev.items()})
                metric_log.pictures(step, {f"dev/{k}": png for k, png in found.items() if isinstance(png, bytes)})
                print_once("dev  " + "  ".join(f"{k} {v:.3f}" for k, v in dev.items() if k != "score"))
                if run.checkpoint.keep_best and score is not None and score > best:
                    saving, best = True, score
                since = time.perf_counter()
                feed.pause()
            if saving or copying:
                save(step, score, copy=not saving)
        with goodput.spent("checkpoint"):
            checkpoints.wait()
        if step > first_step:
            print_once(f"Time of this run: {goodput.line()}.")
    finally:
        progress.close()
        metric_log.close()
        checkpoints.close()
        feed.close()
        trace.close()
        stop.restore()
    if stopping and step < run.steps:
        print_once(f"Asked to stop: saved at step {step}. The same command goes on from here.")
        return EXIT_PREEMPTED
    return 0


def _check_finite(step: int, numbers: dict[str, float], checkpoints: Restoring, workdir: Place) -> None:
    bad = [name for name, value in numbers.items() if not math.isfinite(value)]
    if bad:
        checkpoints.wait()
        good = checkpoints.steps()
        kept = f"The last good checkpoint is step {good[-1]} in {workdir}." if good else "There is no checkpoint yet."
        again = first_divergence(workdir, step)
        raise TrainingDiverged(
            f"Step {step}: {', '.join(bad)} is no longer finite. {kept} "
            + (ONCE if again else "Lower config.optimizer.lr, warm up longer, or check the data of this step."),
            again=again,
        )


def _describe_run(run: Config, mesh: Any, source: Any, state: Any, first_step: int) -> None:
    kind = jax.devices()[0].device_kind
    processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    shards = f" in {len(source.shards):,} shards" if hasattr(source, "shards") else ""
    print_once(
        f"{count_parameters(state['params']):,} parameters on {mesh.size} {kind}{processes} "
        f"({describe_mesh(mesh.shape)}), {len(source):,} records{shards}, batch {run.batch_size}, "
        f"steps {first_step} to {run.steps}"
    )
    for line in describe_skipped(source):
        print_once(f"  {line}")
    for dropped in source.dropped:
        print_once(f"  {dropped['step']} dropped {dropped['images']:,} images, {dropped['captions']:,} captions")
