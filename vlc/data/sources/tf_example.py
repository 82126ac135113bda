"""`tf.train.Example` records, written and read without TensorFlow.

The message is declared here (its field numbers are TensorFlow's) in a descriptor pool of its own, so that it does not
meet another package's declaration of the same name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from vlc.errors import DataError

_Field = descriptor_pb2.FieldDescriptorProto


def _declare() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, bool, str]) -> Any:
        declared = file.message_type.add(name=name)
        for field, number, kind, repeated, type_name in fields:
            label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            added = declared.field.add(name=field, number=number, type=kind, label=label)
            if type_name:
                added.type_name = f".tensorflow.{type_name}"
        return declared

    message("BytesList", ("value", 1, _Field.TYPE_BYTES, True, ""))
    message("FloatList", ("value", 1, _Field.TYPE_FLOAT, True, ""))
    message("Int64List", ("value", 1, _Field.TYPE_INT64, True, ""))
    kinds = ("bytes_list", "float_list", "int64_list")
    names = ("BytesList", "FloatList", "Int64List")
    feature = message(
        "Feature",
        *(
            (kind, i + 1, _Field.TYPE_MESSAGE, False, name)
            for i, (kind, name) in enumerate(zip(kinds, names, strict=True))
        ),
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = message("Features", ("feature", 1, _Field.TYPE_MESSAGE, True, "Features.FeatureEntry"))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=_Field.TYPE_MESSAGE, label=_Field.LABEL_OPTIONAL, type_name=".tensorflow.Feature"
    )
    message("Example", ("features", 1, _Field.TYPE_MESSAGE, False, "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


_Example = _declare()


def write_example(features: Mapping[str, Sequence[bytes] | Sequence[float]]) -> bytes:
    """Serialises lists of bytes or of floats; equal features give equal bytes."""
    example = _Example()
    for name, values in features.items():
        feature = example.features.feature[name]
        target = feature.bytes_list if not values or isinstance(values[0], bytes) else feature.float_list
        target.value.extend(values)
        target.SetInParent()
    return example.SerializeToString(deterministic=True)


def read_example(data: bytes, where: str) -> dict[str, list]:
    """Features by name, each a list of bytes, floats or integers.

    Raises:
        DataError: The record is no `tf.train.Example`.
    """
    try:
        example = _Example.FromString(data)
    except DecodeError as error:
        raise DataError(f"{where}: not a tf.train.Example ({len(data)} bytes).", "row") from error
    found = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        found[name] = list(getattr(feature, kind).value) if kind else []
    return found
