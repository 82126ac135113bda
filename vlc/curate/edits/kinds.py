"""Words of one kind that exclude each other, so that a caption with one in place of another is wrong.

Each kind is a row of groups parted by `|`; the words of a group, parted by commas, may be true of the same thing and
never replace each other. Nouns are given in the singular, verbs by their four forms.
"""


def words_of(text: str) -> frozenset[str]:
    """Words with spaces between, as a set."""
    return frozenset(text.split())


ATTRIBUTES = {
    "colour": (
        "red, maroon | orange | yellow, golden, gold | green | blue, navy, turquoise, teal | purple, violet | pink | "
        "brown, tan, beige | black | white | gray, grey, silver"
    ),
    "size": "small, tiny | big, large, huge, giant",
    "length": "long | short",
    "age": "young | old, elderly",
    "material": "wooden | metal | brick | plastic | glass",
    "wetness": "wet | dry",
    "fullness": "empty | full, crowded",
    "state": "open | closed",
    "dirt": "dirty, muddy | clean",
    "mood": "happy, smiling | sad, crying",
    "number": "two | three | four | five | six | seven | eight",
}
OBJECTS = {
    "animal": (
        "dog, puppy | cat, kitten | horse, pony | cow, bull | sheep, lamb | bird | elephant | giraffe | zebra | bear "
        "| monkey | rabbit | pig | goat | lion | tiger"
    ),
    "adult": "man, guy, gentleman | woman, lady",
    "child": "boy | girl",
    "parent": "father, dad | mother, mom",
    "vehicle": (
        "bike, bicycle, motorcycle, motorbike, scooter | car | truck | bus | train | boat, canoe, kayak, ship | "
        "plane, airplane | tractor"
    ),
    "furniture": "chair | table | couch, sofa | bed | bench | desk",
    "toy": "ball | frisbee | stick | surfboard | skateboard | snowboard | kite | rope | hoop | balloon",
    "sport": "soccer, football | basketball | baseball | tennis | volleyball | hockey | golf",
    "clothing": "shirt, tshirt | jacket, coat | dress | skirt | swimsuit | sweater | vest",
    "headwear": "hat, cap | helmet | hood",
    "place": (
        "beach, shore | street, road | forest | kitchen | bathroom | bedroom | office | desert | library | church"
    ),
    "ground": "grass | sand | snow | ice | mud",
    "building": "house | church | tower | castle | barn",
    "food": "apple | banana | pizza | sandwich | cake | carrot | broccoli",
    "tool": "camera | guitar | umbrella | book | phone | microphone | hammer | knife",
}
ACTIONS = {
    "posture": (
        "sit sits sitting sat | stand stands standing stood | lie lies lying lay | run runs running ran, jump jumps "
        "jumping jumped, leap leaps leaping leapt, dance dances dancing danced | walk walks walking walked | swim "
        "swims swimming swam | sleep sleeps sleeping slept | climb climbs climbing climbed | crawl crawls crawling "
        "crawled | kneel kneels kneeling knelt"
    ),
    "handling": (
        "throw throws throwing threw, toss tosses tossing tossed | catch catches catching caught | "
        "kick kicks kicking kicked | carry carries carrying carried, hold holds holding held, pull pulls pulling "
        "pulled, push pushes pushing pushed | drop drops dropping dropped"
    ),
    "face": "smile smiles smiling smiled, laugh laughs laughing laughed | cry cries crying cried",
}
# Each stands for the one at its place in the other group.
RELATIONS = {
    "height": "on, over, above, onto, on top of, atop | under, under, below, beneath, underneath, beneath",
    "depth": "in front of | behind",
    "way": "up | down",
    "inside": "into, inside | out of, outside",
    "having": "with | without",
}
# Between two things that may be exchanged: "near" and "and" say the same both ways.
DIRECTED = words_of(
    "on onto in into inside outside over under underneath beneath above below behind through off at toward "
    "towards up down atop"
)
# Verbs that say the same both ways, and those that join a thing with a name for it.
SYMMETRIC = words_of(
    "be become look seem meet face touch kiss hug embrace fight wrestle resemble marry race match join play dance "
    "talk compete box have"
)
# After "on", "over" and the like: not a place where a thing is.
NO_PLACES = words_of(
    "day night side phone left right way top fire back leash foot leg knee television tv tour team trip date "
    "vacation break background foreground air middle front edge end corner evening morning afternoon time face "
    "head ground stomach other hand direction distance something anything nothing someone anyone everyone "
    "shoulder weather street road field court stage"
)
_IRREGULAR = {
    "man": "men", "woman": "women", "child": "children", "sheep": "sheep", "knife": "knives", "grass": "", "sand": "",
    "snow": "", "ice": "", "mud": "", "broccoli": "", "soccer": "", "football": "", "basketball": "", "baseball": "",
    "tennis": "", "volleyball": "", "hockey": "", "golf": "", "bus": "buses", "gentleman": "gentlemen",
}  # fmt: skip


def plural(noun: str) -> str:
    """Of a singular noun; empty where it has none."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith(("s", "sh", "ch", "x")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"
