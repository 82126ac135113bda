"""Every setting, section by section: its default, its range and what it is. docs/config.md is made from this file."""

from vlc.data import captions
from vlc.data.decoding import CONVERSIONS
from vlc.data.images import FILTERS, INTERPOLATIONS, RESIZE_RULES
from vlc.data.sources.mixture import RULES
from vlc.models.captioner import MEMORIES
from vlc.models.fused_attention import KERNELS
from vlc.models.layers import ACTIVATIONS, GATED, NORMS, REMAT_POLICIES
from vlc.objectives import OBJECTIVES
from vlc.settings import Section, choice, flag, integer, names, number, numbers, text

SCHEDULE_FREE = "schedule_free"
_PROJECTIONS = ("linear", "bias", "none")
_DTYPES = ("auto", "float32", "bfloat16")


class Mesh(Section):
    """Devices along each axis of the mesh; one axis may be -1, all devices that are left."""

    dcn = integer(0, "slices of a pod, over the data-centre network; 0: as many as there are", low=-1)
    data = integer(-1, "data parallel", low=-1)
    fsdp = integer(1, "data parallel, with the parameters sharded along the model's width", low=-1)
    tensor = integer(1, "heads and hidden units sharded", low=-1)


class Sources(Section):
    """Sources by a name of your own, in place of `data.train`."""

    free = True


class Mixture(Section):
    """The weight of each of `data.sources`."""

    free = True


class Image(Section):
    """From an image file to the pixels of the model."""

    size = integer(224, "pixels on a side", low=1)
    resize = choice("squash", RESIZE_RULES, "how a whole image becomes a square; see `Preprocess`")
    mean = numbers((0.5, 0.5, 0.5), "mean of each channel, subtracted on the device", length=3)
    std = numbers((0.5, 0.5, 0.5), "standard deviation of each channel, divided by", length=3, above=0)
    crop_scale = numbers(
        (1.0, 1.0), "random crops in training: least and most share of the area", length=2, above=0, high=1, rising=True
    )
    flip = flag(False, "mirror half of the images in training; wrong where captions say left and right")
    interpolation = choice("antialiased", INTERPOLATIONS, "of random crops; `bilinear` is faster, and aliased")
    resample = choice("bicubic", (*FILTERS, "aliased"), "of whole images")
    resize_to = integer(0, "the shorter side before the centre is cut, for resize=shortest; 0: `size`", low=0)
    centre = choice("floor", ("floor", "round"), "how the centre is rounded: transformers, or torchvision")
    patch = integer(0, "pixels on a side of a patch, for resize=naflex; 0: `model.image.patch`", low=0)
    convert = choice("upright", CONVERSIONS, "of turned, transparent and 16-bit pictures; `plain`: as other libraries")
    full_scale = flag(False, "decode large JPEGs whole, as other libraries do; slower")
    augment = text("", 'RandAugment, "rand" or "rand(ops=2, magnitude=9)", or AutoAugment, "auto"')


class Captions(Section):
    """Which captions of an image are trained on at a visit."""

    mix = text("", 'weights of the caption sources, "long*:0.7,short:0.3"; empty: all captions alike')
    mix_end = text("", "weights that the mix moves to during training; empty: it stays")
    mix_schedule = numbers(
        (0.0, 1.0), "shares of training between which the mix moves", length=2, low=0, high=1, rising=True
    )
    sub_captions = integer(
        0, "captions drawn from the sentences of all captions, for multi_positive and grouping", low=0
    )
    sub_sources = text("", 'caption sources that they are drawn from, "long,entity/*"; empty: all')
    slots = text("", 'the source of each sub-caption, "short,long,long"; empty: all from one pool')
    first = choice("main", captions.FIRST, "slot 0 is the main caption, or drawn from the sentences as well")
    split = choice("sentences", tuple(captions.SPLITS), "how captions are split; `stops`: at every full stop")
    sub_length = integer(0, "tokens of a sub-caption; 0: `model.text.length`", low=0)
    merge = integer(1, "consecutive sentences joined into one sub-caption", low=1)
    target = text("", "weights of the caption sources for the captioner's target; empty: the main caption")
    negatives = integer(0, "wrong texts of the main caption, for `hard_texts` and the objectives hard_*", low=0)
    preferred = text("", "the caption source that is preferred to its wrong texts: pairs for objectives.preference")
    class_source = text("", "the caption source whose text is the class of an image, for objectives.same_class")
    places = integer(0, "bins of an axis for words that are places, <x12><y03>, of a tokenizer that is trained", low=0)
    place_share = number(0.5, "share of the captioner's targets that are a region and its place", low=0, high=1)
    swap_sides = flag(False, "exchange left and right in the captions of images that `data.image.flip` mirrors")
    negatives_share = number(1.0, "share of the records, drawn anew at each visit, that have theirs", above=0, high=1)


class Regions(Section):
    """Regions of an image that are trained on at a visit (docs/regions.md)."""

    count = integer(0, "the most of an image; others are drawn at each visit where there are more; 0: none", low=0)
    sources = text("", 'caption sources of their texts, "region,label"; empty: all of a region, or its class')
    negatives = integer(0, "wrong texts of each region, for objectives.region_hard", low=0)
    attributes = text("", 'words that are attributes where captions name them, "red,blue,circle" (attribute_mil)')
    length = integer(0, "tokens of their texts; 0: `model.text.length`, or what the captioner writes", low=0)
    visible = number(0.2, "share of a region that a crop must leave, for it to count", above=0, high=1)
    masks = flag(True, "a region that has a mask covers that, not its box")
    crop = flag(False, "an image is the crop of one of its regions, without what is outside of a mask (OVSeg)")


class Scenes(Section):
    """The generated scenes of `data.train=scenes`."""

    seed = integer(0, "another seed is another world", low=0)
    objects = numbers((2, 5), "fewest and most objects of a scene", length=2, low=1, rising=True)
    first_objects = numbers((1, 1), "the same, for the first part of training", length=2, low=1, rising=True)
    first_share = number(0.0, "share of training that is that part; 0: none", low=0, high=1)
    overlap_rate = number(0.2, "chance that an object partly covers another", low=0, high=1)
    alt_generic_rate = number(0.5, "share of alt-texts that fit any scene", low=0, high=1)
    alt_wrong_rate = number(0.2, "share of the others that name an object which is not there", low=0, high=1)
    reference_generic_rate = number(0.8, "share of `reference` captions that are generic", low=0, high=1)
    place_rate = number(0.0, "chance that a `brief` caption says where its first object stands", low=0, high=1)
    edits = names((), "what wrong texts differ in: shape, swap_place, ... (docs/data.md); empty: anything")
    varied = flag(False, "captions of all lengths, and brief ones, as well: the sources `varied` and `brief`")


class Data(Section):
    """Data and preprocessing."""

    train = text("", '"scenes", a folder, shards, a captions file, ... (docs/data.md); several with commas')
    dev = text("", "held-out records for evaluation; scenes have a dev split of their own")
    sources = Sources
    mixture = Mixture
    mixture_rule = choice("weights", RULES, "weights are shares of the draws, or `epochs`: visits of a record an epoch")
    twins = number(0.0, "share of a batch that are twins of records beside them (docs/data.md)", low=0, high=0.5)
    twins_from = number(0.0, "share of training after which there are twins", low=0, high=1)
    bags = text("", "a file of vlc data bags, whose records stand side by side in a batch; empty: none do")
    bag_sizes = text("", 'records of a bag, by the step from which on, "0:3,500:5,2000:7"; empty: all')
    columns = text("", 'which columns are the image and which captions, "image=file,alt=title"')
    join = text("", "a file with more captions for the same images, by path or URL")
    filters = names((), 'steps that leave records out before training, ("align_image", "words(min=3)")')
    threads = integer(2, "threads that read, of each worker", low=1)
    workers = integer(0, "processes that read; 0: this one", low=0)
    first_share = number(0.5, "share of training whose inputs are smaller, where the next two say so", above=0, below=1)
    first_size = integer(0, "pixels on a side then; 0: `data.image.size` (CLIPA, arXiv 2305.07017)", low=0)
    first_length = integer(0, "tokens of a caption then; 0: as later", low=0)
    tokenizer = text("", "a SentencePiece model; empty: trained from the captions into the workdir")
    vocab_size = integer(8192, "of a tokenizer that is trained", low=16)
    tokenizer_samples = integer(20_000, "records whose captions it is trained on", low=1)
    image = Image
    captions = Captions
    regions = Regions
    scenes = Scenes


class Transformer(Section):
    """What every transformer of the model has."""

    width = integer(512, "of the features", low=1)
    heads = integer(8, "attention heads", low=1)
    mlp_ratio = number(4.0, "hidden units of the MLP, as a multiple of the width", above=0)
    activation = choice("gelu_tanh", (*ACTIVATIONS, GATED), "of the MLP; `swiglu` has a gate (arXiv 2002.05202)")
    norm = choice("layer", tuple(NORMS), "layer normalisation, or by the root mean square (arXiv 1910.07467)")
    eps = number(1e-6, "of the norms", above=0)
    qk_norm = flag(False, "normalise queries and keys of each head (arXiv 2302.05442)")


class ImageTower(Transformer):
    """The Vision Transformer."""

    patch = integer(16, "pixels on a side of a patch", low=1)
    width = integer(768, "of the features", low=1)
    layers = integer(12, "transformer blocks; 0: no such tower", low=0)
    heads = integer(12, "attention heads", low=1)
    pool = choice("cls", ("cls", "mean", "map", "queries"), "`map`: attention pooling (SigLIP); `queries`: CoCa's")
    positions = choice("learned", ("learned", "sines"), "of patches: a table, or fixed sines (arXiv 2205.01580)")
    grid = integer(0, "patches on a side of the table of positions; 0: those of `data.image.size`", low=0)
    registers = integer(0, "learned tokens beside the patches, dropped at the end (arXiv 2309.16588)", low=0)
    rotary = flag(False, "turn queries and keys by the place of their patch (arXiv 2403.13298)")
    drop_patches = number(0.0, "share of patches left out in training, others each time (FLIP)", low=0, below=1)
    prototypes = integer(0, "among which self-distillation chooses (objectives local_global, masked); 0: none", low=0)
    mask_prompt = integer(0, "blocks before which patches outside of a mask are learned vectors (OVSeg: 3)", low=0)
    pre_norm = flag(False, "a norm before the first block (CLIP)")
    stem = choice("patch", ("patch", "conv"), "a linear map of each patch, or convolutions (arXiv 2106.14881)")
    patch_bias = flag(True, "whether the linear map of patches has a bias")
    projection = choice("linear", _PROJECTIONS, "of the pooled feature to the shared space")
    queries = integer(256, "learned queries of pool=queries", low=1)
    pool_heads = integer(8, "their attention heads", low=1)


class TextTower(Transformer):
    """The text transformer."""

    layers = integer(12, "transformer blocks; 0: no such tower", low=0)
    length = integer(77, "tokens of a text, begin and end marks included", low=3)
    positions = integer(0, "rows of the position table, where more than `length`", low=0)
    prompts = integer(0, "learned vectors behind the begin mark, which take positions (CoOp, arXiv 2109.01134)", low=0)
    causal = flag(True, "whether a token sees only those before it")
    pool = choice(
        "last", ("last", "end", "mean", "first", "cls"),
        "`last`: the end mark; `end`: the last place, pads included; `cls`: CoCa's",
    )  # fmt: skip
    end = integer(-1, "what pool=last reads: -1: the last token; else the first of this id; -2: the highest id", low=-2)
    rotary = flag(False, "turn queries and keys by their place (arXiv 2104.09864)")
    grammar = flag(False, "a head that tells texts from broken ones, for objectives.grammar (docs/rewards.md)")
    post_norm = flag(False, "norms after attention and MLP (BERT) instead of before")
    projection = choice("linear", _PROJECTIONS, "of the pooled feature to the shared space")
    attend_pads = flag(False, "whether pads are attended to (SigLIP)")
    pad_row = integer(0, "row of the token table that a pad takes", low=0)
    compare_pads = flag(False, "whether pads count in late interaction (queries of ColBERT)")
    skip = numbers((), "ids that late interaction leaves out (punctuation in documents of ColBERT)", low=0, rising=True)


class Control(Section):
    """What a caption can be asked to be (docs/captioning.md)."""

    length = integer(0, "words, up to this many; 0: no such control", low=0)
    alignment = integer(0, "bins of the similarity of image and caption; 0: no such control", low=0)
    edges = numbers((), "between the bins; empty: from the training data's scores", rising=True)
    best = integer(0, "the bin that alignment=best asks for; 0: from those scores, or the highest", low=0)
    sources = text("", 'caption sources that are told apart, "alt,short,long*"')
    lengths = numbers((), "words of the captions that training shows; found in the data", low=0, rising=True)
    bins = numbers((), "bins that training shows; found in the data", low=0, rising=True)
    present = names((), "caption sources that training shows; found in the data")
    box = flag(False, "the box of what a caption is about (docs/regions.md)")
    mask = flag(False, "marks of the patches that a caption is about")


class Decoder(Transformer):
    """The captioner."""

    layers = integer(0, "decoder blocks; 0: no captioner", low=0)
    length = integer(0, "tokens of a caption, marks included; 0: `model.text.length`", low=0)
    memory = choice("tokens", MEMORIES, "what of the image is attended to")
    queries = integer(32, "learned queries of memory=pooled", low=1)
    reads = choice("ids", ("ids", "text"), "the token ids so far, or the text tower's features of them (CoCa)")
    localiser = flag(False, "looks words up in the image, for objectives.cycle")
    places = integer(0, "bins of `data.captions.places`, whose words share the image tower's positions; 0: none", low=0)
    parallel = number(0.0, "share of captions predicted without their tokens (CapPa: 0.75)", low=0, high=1)
    control = Control


class RegionQueries(Transformer):
    """Queries that look for regions in an image (GRAIN), and vectors of attributes."""

    queries = integer(0, "regions that are looked for; 0: none", low=0)
    layers = integer(6, "blocks, in which queries attend to each other and to the patches", low=1)
    attributes = integer(0, "vectors of `data.regions.attributes`, for objectives.attribute_mil; 0: none", low=0)


class Lora(Section):
    """Matrices of low rank beside those of the model, which alone are trained (docs/fine_tuning.md)."""

    rank = integer(0, "columns of the first; 0: none", low=0)
    alpha = number(16.0, "what they add counts `alpha / rank`", above=0)
    matrices = names(
        ("query", "key_value", "out", "up", "down"),
        'the maps that have them, ("text_tower/*/query",): a path or its end',
    )


class Model(Section):
    """The architecture."""

    embed_dim = integer(512, "width of the shared space", low=1)
    image = ImageTower
    text = TextTower
    decoder = Decoder
    regions = RegionQueries
    lora = Lora
    token_head = choice("own", ("own", "pooled"), "the projection of tokens: its own, or that of the pooled features")
    init_logit_scale = number(1 / 0.07, "the multiplier of similarities (1/temperature) at the start", above=0)
    init_logit_bias = number(-10.0, "the bias of the sigmoid loss at the start")
    max_logit_scale = number(100.0, "bound of the multipliers; 0: none", low=0)
    dtype = choice("auto", _DTYPES, "of computation; auto: float32 on CPU, bfloat16 elsewhere; parameters are float32")
    attention = choice("xla", KERNELS, "`cudnn` on GPUs and `splash` on TPUs hold no products; elsewhere as xla")
    scan = choice("auto", ("auto", True, False), "layers as a loop; auto: unrolled on CPU")
    remat = choice("none", tuple(REMAT_POLICIES), "activations computed again in the backward pass, to save memory")


Objectives = type(
    "Objectives", (Section,), {"__doc__": "Loss terms; each counts where its weight is above 0.",
                               **{objective.name: objective.settings for objective in OBJECTIVES.values()}},
)  # fmt: skip


class Reward(Section):
    """Captions that the model writes in training, and what they are worth (objectives.policy, docs/rewards.md)."""

    terms = text("", 'rewards and their weights, "self_retrieval:1,cider:0.5"; or functions, "package.module.name"')
    judge = text("", "the dual encoder that judges captions, a model; its rewards need one")
    samples = integer(5, "captions of each image, drawn", low=1)
    temperature = number(1.0, "that they are drawn with; the gradient is that of 1", above=0)
    guidance_scale = number(1.0, "that they are drawn with; the gradient is that of 1", low=0)
    max_tokens = integer(0, "of a caption; 0: the captioner's limit", low=0)
    references = text("", 'caption sources that `cider` compares with, "long,short"; empty: all')
    updates = integer(1, "updates of the parameters for each writing (GRPO)", low=1)


class Optimizer(Section):
    """Optimizer and learning rate."""

    name = choice(
        "adamw",
        ("adamw", "lamb", "lion", "muon", "adafactor", SCHEDULE_FREE),
        "with `muon` the rest is AdamW's; `schedule_free` averages AdamW's steps in place of a decay",
    )
    lr = number(1e-3, "the peak learning rate", low=0)
    schedule = choice("cosine", ("cosine", "linear", "constant"), "the decay after the warm-up")
    warmup_steps = integer(100, "steps of linear warm-up", low=0)
    weight_decay = number(0.1, "of matrices; never of biases, norms, embeddings, positions, temperatures", low=0)
    b1 = number(0.9, "decay of the first moment", low=0, below=1)
    b2 = number(0.98, "decay of the second moment", low=0, below=1)
    eps = number(1e-6, "added to the denominator", above=0)
    moment_dtype = choice("float32", ("float32", "bfloat16"), "of the first moment")
    clip_norm = number(1.0, "global norm that gradients are clipped to; 0: none", low=0)
    layer_decay = number(1.0, "learning rate of a block as a share of that of the one above", above=0, high=1)
    skip_spikes = number(0.0, "leave out steps whose gradient is this many times as long as usual; 0: none", low=0)
    frozen = names((), 'parameters that stay as they are, ("image_tower", "text_tower")')
    trained = names((), 'the only parameters that change, beside LoRA\'s, ("image_embed",); empty: all but `frozen`')
    ema = number(0.0, "decay of the moving average of the parameters; 0: none", low=0, below=1)


class Checkpoint(Section):
    """Checkpoints."""

    every = integer(500, "steps between two checkpoints", low=1)
    every_minutes = number(0.0, "minutes after which one is saved, when metrics are next logged; 0: any", low=0)
    keep_last = integer(2, "newest checkpoints that are kept", low=1)
    keep_best = integer(1, "best checkpoints that are kept", low=0)
    copies = text("", "folder on each host's own disk for copies between checkpoints (docs/buckets.md); empty: none")
    copies_every = integer(0, "steps between two copies; 0: any", low=0)
    copies_every_minutes = number(0.0, "minutes after which one is made, when metrics are next logged; 0: any", low=0)
    keep_every = integer(0, "checkpoints of steps that are a multiple of it are kept for ever; 0: none", low=0)


class Evaluation(Section):
    """Evaluation on dev data during training."""

    every = integer(500, "steps between two evaluations", low=1)
    examples = integer(256, "dev records", low=1)


class Settings(Section):
    """The run."""

    seed = integer(0, "of parameters, order, caption choice and augmentation", low=0)
    steps = integer(1000, "updates", low=1)
    batch_size = integer(128, "images of an update, over all devices", low=1)
    accumulate = integer(1, "parts that a batch is encoded in; loss and gradient are those of the whole batch", low=1)
    mesh = Mesh
    log_every = integer(10, "steps between two lines of the log", low=1)
    track = names(("tensorboard",), "tools that keep the run: tensorboard, wandb, mlflow, trackio (docs/tracking.md)")
    init = text("", "a model to start from; its towers, tokenizer and pixels are kept (docs/captioning.md)")
    data = Data
    model = Model
    objectives = Objectives
    reward = Reward
    optimizer = Optimizer
    checkpoint = Checkpoint
    eval = Evaluation
