"""The rivals of `benchmarks/data.py`: open_clip's WebDataset loader and tf.data, measured by the same clock.

Run by `benchmarks/data.py` in an environment that has them; it prints one JSON line. Each makes training batches of
`size` pixels with tokens from the same shards: a random crop of 90 to 100% of the area, resized, normalised, and the
caption as ids. open_clip's loader, transform and tokenizer are its own; tf.data has the usual way of JAX trainers:
decode, crop and resize in the graph (bilinear, as big_vision does; bicubic as well), SentencePiece called on each text.
"""

import argparse
import contextlib
import glob
import json
import tarfile
import time
import types


def rate(batches, warm: int, count: int, size: int) -> float:
    """Images a second over `count` batches, after `warm` that are not counted."""
    for _ in range(warm):
        next(batches)
    begun = time.perf_counter()
    for _ in range(count):
        next(batches)
    return count * size / (time.perf_counter() - begun)


def open_clip_batches(options):
    with contextlib.suppress(ImportError):
        import torchvision_cpu  # noqa: F401 - lets a CUDA build of torchvision import beside a CPU build of torch
    import open_clip
    from open_clip.transform import AugmentationCfg, image_transform
    from open_clip_train.data import get_wds_dataset

    arguments = types.SimpleNamespace(
        train_data=options.shards.replace("*", f"{{00000..{len(glob.glob(options.shards)) - 1:05d}}}"),
        train_num_samples=1_000_000, train_data_upsampling_factors=None, dataset_resampled=True, seed=0,
        batch_size=options.batch, world_size=1, workers=options.workers,
    )  # fmt: skip
    transform = image_transform(
        options.size, is_train=True, mean=None, std=None, aug_cfg=AugmentationCfg(scale=(0.9, 1.0))
    )
    data = get_wds_dataset(arguments, transform, is_train=True, tokenizer=open_clip.get_tokenizer("ViT-B-32"))
    return iter(data.dataloader)


def tf_data_batches(options):
    import sentencepiece
    import tensorflow as tf

    pieces = sentencepiece.SentencePieceProcessor(model_file=options.tokenizer)

    def num_return_sequences():
        while True:
            for shard in sorted(glob.glob(options.shards)):
                parts = {}
                with tarfile.open(shard) as tar:
                    for member in tar:
                        key, suffix = member.name.rsplit(".", 1)
                        parts.setdefault(key, {})[suffix] = tar.extractfile(member).read()
                        if {"jpg", "txt"} <= parts[key].keys():
                            sample = parts.pop(key)
                            yield sample["jpg"], sample["txt"]

    def encode(text):
        ids = [1, *pieces.encode(text.decode())[:30], 2]
        return (ids + [0] * 32)[:32]

    def make(image, text):
        shape = tf.cast(tf.io.extract_jpeg_shape(image), tf.float32)
        area = tf.random.uniform([], 0.9, 1.0)
        ratio = tf.exp(tf.random.uniform([], -0.2877, 0.2877))
        width = tf.minimum(tf.sqrt(area * shape[0] * shape[1] * ratio), shape[1])
        height = tf.minimum(tf.sqrt(area * shape[0] * shape[1] / ratio), shape[0])
        top = tf.random.uniform([]) * (shape[0] - height)
        left = tf.random.uniform([]) * (shape[1] - width)
        window = tf.cast(tf.stack([top, left, height, width]), tf.int32)
        pixels = tf.io.decode_and_crop_jpeg(image, window, channels=3)
        pixels = tf.image.resize(pixels, (options.size, options.size), options.method, antialias=options.antialias)
        ids = tf.numpy_function(lambda t: __import__("numpy").array(encode(t), "int32"), [text], tf.int32)
        return pixels / 127.5 - 1.0, tf.ensure_shape(ids, [32])

    data = tf.data.Dataset.from_generator(
        num_return_sequences, output_signature=(tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.string))
    )
    data = data.shuffle(1000).map(make, num_parallel_calls=options.workers).batch(options.batch).prefetch(2)
    return data.as_numpy_iterator()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rival", choices=["open_clip", "tf.data"])
    parser.add_argument("shards")
    parser.add_argument("--tokenizer")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--warm", type=int, default=6)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--method", default="bilinear")
    parser.add_argument("--antialias", action="store_true")
    options = parser.parse_args()
    batches = (open_clip_batches if options.rival == "open_clip" else tf_data_batches)(options)
    found = rate(batches, options.warm, options.count, options.batch)
    print(json.dumps({"images_per_second": found}), flush=True)
    import os

    os._exit(0)  # workers and threads of the rivals need not be waited for


if __name__ == "__main__":
    main()
