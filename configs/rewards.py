"""Captions tuned by what they achieve: a captioner that is there writes, a judge scores, and what was better is made
likelier (`docs/rewards.md`).

    vlc train --config configs/regions.py --workdir runs/captioner
    vlc train --config configs/rewards.py --workdir runs/rewarded \\
      --config.init=runs/captioner --config.reward.judge=runs/captioner
    vlc eval runs/rewarded --task caption --data scenes --scorer runs/captioner

The captioner alone is trained, against the judge's own log-probability of the image among those of the batch
(DiscriTune). Forms have other rewards (`configs/rewards.py:NAME`): `cider` (SCST), `clip_s` (CLIP Reward), `fluent`:
self-retrieval and runs of words that people write, `both`: self-retrieval and CIDEr, `kl`: self-retrieval held to where
it began, `group` the same by GRPO, `best`: the best of an image's captions is learnt (RAFT), `units`: what is true of
the scene, and how much of it is said, `dpo`: by that the best of an image's captions is preferred to the worst
(FeedQuill); `grammar`: CLIPScore and a head of the judge that tells captions from broken ones, which `judge` trains
first (CLIP Reward):

    vlc train --config configs/rewards.py:judge --workdir runs/judge --config.init=runs/captioner
    vlc train --config configs/rewards.py:grammar ... --config.reward.judge=runs/judge

and `bags`:
self-retrieval among three, five and seven images that look alike (No Detail Left Behind), which are mined first:

    vlc data bags scenes --model runs/captioner --records 16384 --out bags.json
    vlc train --config configs/rewards.py:bags ... --config.data.bags=bags.json
"""

from vlc.config import Config, default_config, shrink


def get_config(form: str = "") -> Config:
    """The config, or one of the forms above, or `smoke`."""
    config = default_config()
    config.batch_size = 32
    config.steps = 200
    config.log_every = 10

    config.data.train = "scenes"
    config.data.scenes.objects = (2, 4)
    config.data.scenes.varied = True
    config.data.captions.mix = "long"

    # Of config.init, where it is set.
    config.data.image.size, config.data.vocab_size, config.model.embed_dim = 72, 512, 64
    config.model.image.update({"patch": 12, "width": 128, "heads": 4, "layers": 2, "stem": "conv", "pool": "map"})
    config.model.text.update({"width": 128, "layers": 2, "heads": 4, "length": 64})
    config.model.decoder.update({"layers": 2, "width": 128, "heads": 4, "length": 24})

    if form == "judge":
        return _judge(config)
    config.objectives.clip.weight = 0.0
    config.objectives.policy.weight = 1.0
    config.reward.terms = "self_retrieval:1"
    config.reward.references = "short"
    config.optimizer.update({"lr": 1e-4, "warmup_steps": 20, "schedule": "constant", "trained": ("decoder",)})
    config.optimizer.weight_decay = 0.0
    config.checkpoint.every = config.eval.every = config.steps

    if form == "cider":
        config.reward.terms = "cider:1"
    elif form == "clip_s":
        config.reward.terms = "clip_s:1"
    elif form == "fluent":
        config.reward.terms = "self_retrieval:1,fluency:10"
    elif form == "grammar":
        config.reward.terms = "clip_s:1,grammar:1"
    elif form == "both":
        config.reward.terms = "self_retrieval:1,cider:1"
    elif form == "units":
        config.reward.terms = "precision:1,recall:1"
    elif form in ("dpo", "best"):
        config.objectives.policy.weight = 0.0
        objective = config.objectives.preference if form == "dpo" else config.objectives.best_of
        objective.weight = 1.0
        config.reward.terms = "precision:1,recall:0.5" if form == "dpo" else config.reward.terms
    elif form == "bags":
        config.reward.terms = "bag_retrieval:1"
        config.data.bag_sizes = f"0:3,{config.steps // 3}:5,{2 * config.steps // 3}:7"
    elif form == "kl":
        config.objectives.policy.kl = 0.1
    elif form == "group":
        config.objectives.policy.update({"baseline": "group", "kl": 0.04})
        config.reward.updates = 2
    elif form == "smoke":
        config.reward.terms = "length:-1,cider:1"  # which need no judge
        config = shrink(config)
    elif form:
        raise ValueError(f"configs/rewards.py has no form {form!r}.")
    return config


def _judge(config: Config) -> Config:
    """The dual encoder goes on with all captions of the data, and learns which are well formed beside."""
    config.steps = 300
    config.batch_size = 64
    config.data.captions.mix = "short:0.4,long:0.3,varied:0.3"
    config.model.text.grammar = True
    config.objectives.clip.weight = config.objectives.grammar.weight = 1.0
    config.optimizer.update({"lr": 1e-3, "warmup_steps": 20, "weight_decay": 0.0})
    config.checkpoint.every = config.eval.every = config.steps
    return config
