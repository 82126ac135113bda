"""The table of forms that were run with several seeds, for the benchmarks beside it."""

import numpy as np


def show(results: dict[str, dict[str, dict[str, float]]]) -> None:
    """Means over the seeds, and their deviations: a row a figure, a column a form."""
    names = list(dict.fromkeys(name for seeds in results.values() for row in seeds.values() for name in row))
    print("| | " + " | ".join(results) + " |")
    for name in names:
        cells = ([row[name] for row in seeds.values() if name in row] for seeds in results.values())
        print(f"| {name} | " + " | ".join(f"{np.mean(c):.3f} ± {np.std(c):.3f}" if c else "-" for c in cells) + " |")
