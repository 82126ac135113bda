"""`vlc map-regions`: gives regions the attributes that captions of their images name."""

import argparse
from typing import Any

from vlc.commands.shared import add_columns, add_command, add_step, columns_of, load_model


def add_map_regions(commands: Any) -> None:
    """Adds the command."""
    command = add_command(commands, "map-regions", _map, "give regions the attributes that captions name (ViLLA)")
    command.add_argument("model", help="a model that was trained by objectives.attribute_mil")
    command.add_argument("--data", required=True, help="images with captions and regions")
    command.add_argument("--out", required=True, help="the folder of the data set that is written")
    command.add_argument("--margin", type=float, default=0.2, help="below the best region of the image (0.2)")
    command.add_argument("--captions", default="", help="the caption source that names attributes (all)")
    command.add_argument("--name", default="mapped", help="the caption source of the regions' texts (mapped)")
    command.add_argument("--records", type=int, default=0, help="only this many records, evenly spaced (all)")
    command.add_argument("--shard-records", type=int, default=4096, help="images in a shard (4096)")
    add_columns(command)
    add_step(command)
    command.set_defaults(computes=True)


def _map(options: argparse.Namespace) -> int:
    from vlc.data.sources import Sample, open_source
    from vlc.evaluate.tasks.scenes import open_test_scenes
    from vlc.inference.region_mapping import RegionMapping, map_regions

    model, columns = load_model(options.model, options.step), columns_of(options)
    if options.data == "scenes":
        source = open_test_scenes(model, options.records or 4096).subset(split="train")
    else:
        source = open_source(options.data, columns=columns)
    if options.records and len(source) > options.records:
        source = Sample(source, options.records)
    settings = RegionMapping(
        options.data, columns, options.name, options.captions, options.margin, options.shard_records
    )
    manifest = map_regions(model, source, settings, options.out)
    print(f"{options.out}: {manifest['records']:,} records in {len(manifest['shards'])} shards")
    for reason, count in manifest["left out"]["records"].items():
        print(f"  {count:,} left out: {reason}")
    return 0
