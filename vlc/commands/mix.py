"""`vlc mix`: the mean of the weights of several models."""

import argparse
from typing import Any

from vlc.commands.shared import add_columns, add_command, columns_of, load_model, read_numbers
from vlc.errors import ConfigError


def add_mix(commands: Any) -> None:
    """Adds the command."""
    mix = add_command(commands, "mix", _mix, "write the mean of the weights of models that were fine-tuned from one")
    mix.add_argument("models", nargs="+", help="workdirs, or any other models that vlc loads, of one architecture")
    mix.add_argument("--weights", default="", help="one for each, as in 0.4,0.6 (all alike)")
    mix.add_argument("--greedy", default="", metavar="DATA", help="keep those that help retrieval on this data")
    mix.add_argument("--examples", type=int, default=1000, help="with --greedy: the most images")
    mix.add_argument("--out", required=True, help="the folder to write, which vlc.load reads")
    add_columns(mix)
    mix.set_defaults(computes=True)


def _mix(options: argparse.Namespace) -> int:
    from vlc.interop import greedy_soup, mix, write_native
    from vlc.storage import made_for

    if options.greedy and options.weights:
        raise ConfigError("--greedy chooses the weights itself; leave --weights out.")
    weights = read_numbers(options.weights, "--weights") if options.weights else ()
    models = [load_model(path, "last").as_imported() for path in options.models]
    with made_for(options.out, new=True) as folder:
        if options.greedy:
            mixed, kept = greedy_soup(models, _scorer(options))
            print(f"Kept: {', '.join(options.models[number] for number in kept)}")
        else:
            mixed = mix(models, weights)
        write_native(mixed, folder)
    print(f"Written: {options.out}")
    return 0


def _scorer(options: argparse.Namespace):
    from vlc.data.sources import open_source
    from vlc.evaluate.dev import retrieval_score
    from vlc.inference import Model

    source = open_source(options.greedy, columns=columns_of(options))

    def score(model: Any) -> float:
        found = retrieval_score(Model.of(model), source, options.examples)
        print(f"mean R@1 {found:.4f}", flush=True)
        return found

    return score
