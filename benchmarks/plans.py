"""Every config in configs/ planned for a TPU slice and for eight H100, and the table of docs/plans.md.

    python benchmarks/plans.py --out benchmarks/results/plans.json

All is compiled on the machine that runs this; nothing is run on a TPU or GPU. A config that does not fit is shown with
the first change that does.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
SMALL = ("quickstart", "own_images", "flickr8k", "captioner_frozen", "regions")
TOPOLOGIES = {
    "filip_l14": "v5e:16x16",
    "captioner_finetune": "v5e:4x4",
    "dreamlip_b16_cc3m": "v5e:4x8",
    "regions_b16": "v5e:4x8",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "plans.json")
    parser.add_argument("--configs", nargs="*", default=sorted(path.stem for path in (ROOT / "configs").glob("*.py")))
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    for name in options.configs:
        for topology in (TOPOLOGIES.get(name, "v5e:2x2" if name in SMALL else "v5e:16x16"), "h100:8"):
            rows = [row for row in rows if (row["config"], row["topology"]) != (name, topology)]
            rows += plans(name, topology)
            options.out.write_text(json.dumps(rows, indent=1) + "\n")
    print_table(rows)


def plans(name: str, topology: str) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "plan.json"
        command = [sys.executable, "-m", "vlc.cli", "plan", "--config", str(ROOT / "configs" / f"{name}.py")]
        subprocess.run([*command, "--topology", topology, "--out", str(out)], cwd=ROOT)
        return json.loads(out.read_text())


def print_table(rows: list[dict]) -> None:
    columns = ("config", "on", "batch", "change", "memory, GiB", "", "FLOPs a step", "ms, at best",
               "images/s a device", "limit", "compiled, s")  # fmt: skip
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    pairs = {(row["config"], row["topology"]) for row in rows if "config" in row}
    for name, topology in sorted(pairs, key=lambda pair: (pair[0], pair[1].startswith("h"))):
        of = [row for row in rows if (row.get("config"), row.get("topology")) == (name, topology)]
        for row in [of[0], *[row for row in of[1:] if row["fits"]][:1]]:
            change = " ".join(f"{key.split('.', 1)[-1]}={value}" for key, value in row["change"].items())
            share = f"{row['needed'] / row['capacity']:.0%}" + ("" if row["fits"] else ", does not fit")
            milliseconds = 1e3 * row["step_seconds_at_best"]
            best = f"{milliseconds:,.{0 if milliseconds > 100 else 2}f} | {row['images_per_second_at_best']:,.0f}"
            print(
                f"| {name} | {topology} | {row['batch_size']:,} | {change} | {row['needed'] / 2**30:.1f} | {share} | "
                f"{row['model_flops']:.2g} | {best} | {row['limit']} | {row['compile_seconds']:.0f} |"
            )


if __name__ == "__main__":
    main()
