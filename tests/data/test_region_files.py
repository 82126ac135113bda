"""Regions in the layouts that data sets are published in: small files of their schemas, and what is wrong in them."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from tests.data.damage import picture
from vlc.data.record import describe_skipped
from vlc.data.regions import IMAGE
from vlc.data.sources import RegionFile, open_source
from vlc.data.sources.kind import Location
from vlc.data.sources.region_files.coco import BOXES, SEGMENTS, kind_of
from vlc.errors import DataError

SIZES = {1: (100, 80), 2: (60, 60)}  # width and height


def write_images(folder, names=None):
    folder.mkdir(parents=True, exist_ok=True)
    for number, (width, height) in SIZES.items():
        name = (names or {}).get(number, f"{number:012d}.jpg")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(folder / name)


def images(**more):
    return [
        {"id": number, "file_name": f"{number:012d}.jpg", "width": width, "height": height} | more
        for number, (width, height) in SIZES.items()
    ]


CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 9, "name": "traffic_light"}]


def annotation(number, image=1, box=(10, 20, 30, 40), category=7, **more):
    return {"id": number, "image_id": image, "bbox": list(box), "category_id": category, "iscrowd": 0} | more


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


@pytest.fixture
def instances(tmp_path):
    """COCO's folders: images in val2017, files in annotations."""
    write_images(tmp_path / "val2017")
    polygon = [[10.0, 20.0, 40.0, 20.0, 40.0, 60.0, 10.0, 60.0]]
    crowd = {"size": [80, 100], "counts": [0, 8000]}
    found = [
        annotation(1, segmentation=polygon),
        annotation(2, box=(50, 0, 50, 80), category=9),
        annotation(3, iscrowd=1, segmentation=crowd),
        annotation(4, box=(5, 5, 0, 10)),
        annotation(5, box=(90, 5, 30, 10)),
        annotation(6, image=2, box=(0, 0, 60, 30)),
    ]
    said = [{"image_id": 1, "caption": "A dog by a light."}, {"image_id": 1, "caption": "A dog."}]
    write(tmp_path / "annotations/captions_val2017.json", {"images": images(), "annotations": said})
    whole = {"images": images(), "annotations": found, "categories": CATEGORIES}
    return write(tmp_path / "annotations/instances_val2017.json", whole)


def test_instances_of_coco(instances):
    source = open_source(str(instances))
    assert isinstance(source, RegionFile) and len(source) == 2
    first, second = source[0], source[1]
    assert first.captions == {"caption": ("A dog by a light.", "A dog.")} and second.captions == {"labels": ("dog",)}
    assert [one.label for one in first.regions] == ["dog", "traffic light"] and len(second.regions) == 1
    assert first.regions[0].box == pytest.approx((0.1, 0.25, 0.4, 0.75))
    polygon = coco.decode(coco.merge(coco.frPyObjects([[10.0, 20, 40, 20, 40, 60, 10, 60]], 80, 100)))
    assert np.array_equal(first.regions[0].mask.pixels(), polygon.astype(bool))
    assert source.skipped == {"crowd": 1, "no area": 1, "region": 1}
    assert "1 left out: boxes without an area" in describe_skipped(source) and "annotation 3" in source.problems[0]
    assert open_source(str(instances))[0].regions == first.regions  # as the kept table has it


def test_captions_that_come_later_are_read(instances):
    beside = instances.parent / "captions_val2017.json"
    said = beside.read_text()
    beside.unlink()
    assert "labels" in open_source(str(instances))[0].captions
    beside.write_text(said.replace("A dog by a light.", "A dog beside a light."))
    assert open_source(str(instances))[0].captions["caption"][0] == "A dog beside a light."


def test_a_layout_is_known_by_its_keys_wherever_they_stand(tmp_path):
    long = {"info": "x" * (3 << 20), "annotations": [annotation(1)], "images": images(), "categories": CATEGORIES}
    assert kind_of(Location(str(write(tmp_path / "long.json", long)))) == BOXES
    segmented = {"annotations": [{"segments_info": segments([1])}], "images": []}
    assert kind_of(Location(str(write(tmp_path / "segmented.json", segmented)))) == SEGMENTS
    assert kind_of(Location(str(write(tmp_path / "listed.json", [long])))) == b""
    for cut in range((1 << 20) - 10, (1 << 20) + 3):  # a name that lies on two of the parts that are read
        head = '{"images": [], "annotations": [{'
        path = tmp_path / f"cut{cut}.json"
        path.write_text(head + " " * (cut - len(head)) + '"bbox": []}]}')
        assert kind_of(Location(str(path))) == BOXES, cut


def test_lvis_has_addresses_and_objects365_has_no_masks(tmp_path):
    write_images(tmp_path / "train2017")
    listed = [
        {k: v for k, v in image.items() if k != "file_name"}
        | {"coco_url": f"http://images.cocodataset.org/train2017/{image['file_name']}"}
        for image in images()
    ]
    found = {"images": listed, "annotations": [annotation(1)], "categories": CATEGORIES}
    source = open_source(str(write(tmp_path / "lvis_v1_val.json", found)))
    assert len(source) == 1 and source[0].key.endswith("train2017/000000000001.jpg")
    assert source[0].regions[0].mask is None and source.skipped == {"captions": 1}  # the other has no class, no caption


def segments(numbers, described=True):
    said = {"description": "A brown dog, asleep."} if described else {}
    return [
        {"id": number, "category_id": 7, "bbox": [0, 0, 50, 40], "area": 2000, "iscrowd": 0} | said
        for number in numbers
    ]


def write_numbers(path, size, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:40, :50] = [number % 256, number // 256 % 256, number // 256**2]
    Image.fromarray(pixels).save(path)


def test_segments_of_pix2cap(tmp_path):
    write_images(tmp_path / "val2017")
    number = 3 + 5 * 256 + 2 * 256**2
    write_numbers(tmp_path / "annotations/panoptic_val2017/000000000001.png", SIZES[1], number)
    found = {
        "images": images(),
        "annotations": [
            {"image_id": 1, "file_name": "000000000001.png", "segments_info": segments([number, number + 1])}
        ],
        "categories": CATEGORIES,
    }
    path = write(tmp_path / "annotations/pix2cap_coco_val.json", found)
    source = open_source(str(path))
    assert len(source) == 1 and len(source[0].regions) == 1 and source.skipped == {"region": 1}
    one = source[0].regions[0]
    assert one.captions == {"region": ("A brown dog, asleep.",)} and one.label == "dog"
    assert one.mask.area == 2000 and one.mask.box == pytest.approx(one.box)
    write_numbers(tmp_path / "annotations/panoptic_val2017/000000000001.png", (10, 90), number)
    path.write_text(json.dumps(found) + " ")  # another file, which is read again
    with pytest.raises(DataError, match="10 x 90, and its picture 100 x 80"):
        open_source(str(path))
    write_numbers(tmp_path / "annotations/panoptic_val2017/000000000001.png", SIZES[1], number)
    assert len(open_source(str(path))) == 1
    (tmp_path / "annotations/panoptic_val2017/000000000001.png").unlink()  # the kept table is not taken for it
    with pytest.raises(DataError, match="masks are not beside it"):
        open_source(str(path))


def refs():
    def sentences(*texts):
        return [{"sent": text, "raw": text, "tokens": text.split(), "sent_id": 0} for text in texts]

    return [
        {"ref_id": 0, "ann_id": 1, "image_id": 1, "split": "testA", "sentences": sentences("left dog", "the  dog")},
        {"ref_id": 1, "ann_id": 2, "image_id": 1, "split": "testA", "sentences": sentences("light")},
        {"ref_id": 2, "ann_id": 6, "image_id": 2, "split": "train", "sentences": sentences("top")},
    ]


@pytest.mark.parametrize("form", ["refs(unc).p", "refs(unc).json"])
def test_expressions_of_refcoco(tmp_path, form):
    write_images(tmp_path / "mscoco")
    boxes = [annotation(1), annotation(2, box=(50, 0, 50, 80), category=9), annotation(6, image=2, box=(0, 0, 60, 30))]
    write(tmp_path / "instances.json", {"images": images(), "annotations": boxes, "categories": CATEGORIES})
    path = tmp_path / form
    path.write_bytes(pickle.dumps(refs(), protocol=0) if form.endswith(".p") else json.dumps(refs()).encode())
    source = open_source(f"{tmp_path}#testA")
    assert len(source) == 1 and len(open_source(str(path))) == 2
    dog, light = source[0].regions
    assert dog.captions == {"expression": ("left dog", "the dog")} and light.label == "traffic light"
    assert source[0].captions == {"expression": ("left dog", "the dog", "light")}
    with pytest.raises(DataError, match=r"split 'testB'; it has testA, train"):
        open_source(f"{path}#testB")


class _Evil:
    def __reduce__(self):
        return print, ("the file has run code",)


@pytest.mark.parametrize("value", [_Evil(), [{"split": np.float64(1)}], {"a": 1}])
def test_a_pickle_of_more_than_plain_values_is_refused(tmp_path, value, capsys):
    write(tmp_path / "instances.json", {"images": images(), "annotations": [], "categories": CATEGORIES})
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(value))
    with pytest.raises(DataError, match="list of expressions"):
        open_source(str(tmp_path))
    assert not capsys.readouterr().out


def test_regions_and_attributes_of_visual_genome(tmp_path):
    write_images(tmp_path, {1: "VG_100K/1.jpg", 2: "VG_100K_2/2.jpg"})
    address = "https://cs.stanford.edu/people/rak248/VG_100K{}/{}.jpg"
    sizes = [
        {"image_id": i, "width": width, "height": height, "url": address.format("_2" * (i == 2), i)}
        for i, (width, height) in SIZES.items()
    ]
    write(tmp_path / "image_data.json", sizes)
    one = {"region_id": 5, "image_id": 1, "phrase": "a  dog asleep", "x": 10, "y": 20, "width": 30, "height": 40}
    described = [{"id": 1, "regions": [one, one | {"region_id": 6, "width": -4}]}, {"id": 2, "regions": []}]
    write(tmp_path / "region_descriptions.json", described)
    light = {"object_id": 8, "names": ["light"], "attributes": ["Red ", "red"], "x": 50, "y": 0, "w": 50, "h": 80}
    write(tmp_path / "attributes.json", [{"image_id": 1, "attributes": [light]}, {"image_id": 2, "attributes": [
        light | {"x": 0, "w": 60, "h": 60}]}])  # fmt: skip
    source = open_source(str(tmp_path))
    assert len(source) == 2 and source.skipped == {"no area": 1}
    dog, found = source[0].regions
    assert dog.captions == {"region": ("a dog asleep",)} and dog.box == pytest.approx((0.1, 0.25, 0.4, 0.75))
    assert found.label == "light" and found.attributes == ("red",)
    assert source[1].key == "VG_100K_2/2.jpg" and source[1].captions == {"region": ("light",)}


def vertex(name, label, box, texts, out=()):
    (left, top, right, bottom), sure = box, None if label == "image" else 0.5
    return {
        "vertex_id": name,
        "label": label,
        "bbox": {"left": left, "top": top, "right": right, "bottom": bottom, "confidence": sure},
        "descs": [{"text": text, "label": kind, "full_label": f"{kind}-{label}"} for kind, text in texts],
        "in_edges": [],
        "out_edges": [{"source": name, "text": text, "target": target} for text, target in out],
    }


def graph():
    return {
        "img_path": "0.jpg",
        "img_url": None,
        "original_caption": "IMG 0",
        "vertices": [
            vertex("", "image", (0, 0, 1, 1), [("detail", "Two horses in snow."), ("short", "Horses.")],
                   [("horses", "horses"), ("snow", "snow"), ("sky", "[horses|snow]")]),
            vertex("horses", "composition", (0.1, 0.2, 0.9, 0.8), [("composition", "horse 1 is left of horse 2")],
                   [("horse 1", "horses_0")]),
            vertex("horses_0", "entity", (0.1, 0.2, 0.4, 0.8), [("detail", "A brown horse.")]),
            vertex("snow", "entity", (0, 0.5, 1, 1), [("detail", "Snow.")]),
            vertex("[horses|snow]", "relation", (0, 0.2, 1, 1), [("relation", "Horses stand in snow.")],
                   [("snow", "snow")]),
        ],
    }  # fmt: skip


def test_graphs_of_gbc(tmp_path):
    (tmp_path / "0.jpg").write_bytes(picture(0))
    write(tmp_path / "captions.jsonl", graph())
    record = open_source(str(tmp_path))[0]
    assert record.captions == {"long": ("Two horses in snow.",), "short": ("Horses.",), "alt": ("IMG 0",)}
    assert [one.kind for one in record.regions] == ["composition", "entity", "entity", "relation"]
    assert [one.parent for one in record.regions] == [IMAGE, 0, IMAGE, IMAGE] and record.regions[1].score == 0.5
    edges = {(edge.parent, edge.child): edge for edge in record.graph}
    assert len(record.graph) == 5 and set(edges) == {(-1, 0), (-1, 2), (-1, 3), (0, 1), (3, 2)}
    assert edges[-1, 0][2:] == ("horses", "long", 0, 4) and edges[0, 1][2:] == ("horse 1", "composition", 0, 0)
    assert edges[-1, 3][2:] == ("sky", "", 0, -1)  # no caption has the word


def edge(source, target):
    return {"text": "x", "source": source, "target": target}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g: g["vertices"][2]["out_edges"].append({"text": "x", "source": "horses_0", "target": "cow"}), "cow"),
        (
            lambda g: g["vertices"][2]["out_edges"].append({"text": "x", "source": "horses_0", "target": "horses"}),
            "cycle",
        ),
        (lambda g: g["vertices"][1].update(label="image"), "2 vertices have the label"),
        (lambda g: g["vertices"][2].pop("descs"), "descs"),
        (lambda g: g["vertices"][2]["bbox"].update(left=0.9), "inverted"),
        (lambda g: g["vertices"][2].update(vertex_id="snow"), "one vertex_id"),
    ],
)
def test_graphs_that_are_none_are_said(tmp_path, change, said):
    (tmp_path / "0.jpg").write_bytes(picture(0))
    damaged = graph()
    change(damaged)
    lines = [json.dumps(graph()), json.dumps(damaged | {"img_path": "1.jpg"})]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    source = open_source(str(tmp_path))
    assert len(source) == 1 and source.skipped == {"region": 1} and said in source.problems[0]


@pytest.mark.parametrize("name", ["instances_val2017.json", "pix2cap_coco_val.json"])
def test_a_file_that_lacks_a_part_is_said(tmp_path, name):
    key = "segments_info" if "pix2cap" in name else "bbox"
    path = write(tmp_path / name, {"images": images(), "annotations": [{key: []}]})
    with pytest.raises(DataError, match="lacks 'categories'"):
        RegionFile.open(str(path))
    path.write_text(path.read_text()[:-1])
    with pytest.raises(DataError, match="not JSON"):
        RegionFile.open(str(path))


def entities(folder):
    """Two images of Flickr30k Entities, of which the second has no box, and a third that is lost."""
    write_images(folder / "flickr30k-images", {1: "36979.jpg", 2: "65567.jpg"})
    (folder / "Sentences").mkdir()
    (folder / "Sentences" / "36979.txt").write_text(
        "[/EN#1/people A group of friends] looks at [/EN#4/other/scene the  sea] .\n"
        "[/EN#1/people Friends] and [/EN#2/animals/other a dog] near [/EN#0/notvisual it] .\n"
    )
    (folder / "Sentences" / "65567.txt").write_text("A man alone .\n")
    (folder / "Annotations").mkdir()
    size = "<size><width>{}</width><height>{}</height><depth>3</depth></size>"
    box = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
    objects = [
        f"<object><name>1</name>{box.format(11, 21, 40, 60)}</object>",
        f"<object><name>1</name><name>2</name>{box.format(1, 1, 20, 40)}</object>",
        "<object><name>4</name><scene>1</scene><nobndbox>0</nobndbox></object>",
        f"<object><name>2</name>{box.format(90, 70, 100, 80)}</object>",
    ]
    one = f"<annotation>{size.format(100, 80)}{''.join(objects)}</annotation>"
    (folder / "Annotations" / "36979.xml").write_text(one)
    (folder / "Annotations" / "65567.xml").write_text(f"<annotation>{size.format(60, 60)}</annotation>")
    (folder / "test.txt").write_text("36979\n65567\n")
    (folder / "val.txt").write_text("99999\n")
    return folder


def test_phrases_of_flickr30k_entities(tmp_path):
    source = open_source(str(entities(tmp_path)))
    assert len(source) == 2 and source.skipped == {"captions": 1}
    record = source[0]
    assert record.key == "36979.jpg" and record.captions["caption"] == (
        "A group of friends looks at the sea .", "Friends and a dog near it .",
    )  # fmt: skip
    people, dog = record.regions
    assert people.box == pytest.approx((0, 0, 0.4, 0.75)) and people.label == "people"  # around both boxes
    assert people.captions == {"phrase": ("A group of friends", "Friends")}
    assert dog.box == pytest.approx((0, 0, 1, 1)) and dog.label == "animals"
    for edge in record.graph:
        text = record.captions[edge.source][edge.place]
        assert text[edge.start : edge.start + len(edge.phrase)] == edge.phrase and edge.parent == IMAGE
    assert [(edge.child, edge.phrase) for edge in record.graph] == [
        (0, "A group of friends"), (0, "Friends"), (1, "a dog"),
    ]  # fmt: skip
    assert not source[1].regions and len(open_source(f"{tmp_path}#test")) == 2
    with pytest.raises(DataError, match="split 'dev'"):
        open_source(f"{tmp_path}#dev")


@pytest.mark.parametrize("wrong", ["<annotation>", "<annotation><size><width>3</width></size></annotation>", "no"])
def test_boxes_of_flickr30k_entities_that_cannot_be_read(tmp_path, wrong):
    entities(tmp_path)
    (tmp_path / "Annotations" / "36979.xml").write_text(wrong)
    (tmp_path / "val.txt").unlink()
    source = open_source(str(tmp_path))
    assert len(source) == 2 and source.skipped == {"region": 1} and not source[0].regions
    assert "36979.xml: no readable boxes" in " ".join(source.problems)
