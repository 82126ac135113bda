"""Decoding options, named as in transformers' `GenerationConfig`."""

from dataclasses import dataclass

from vlc.errors import ConfigError
from vlc.settings import is_number, is_whole

_BITS = (1 << 32) - 1
# From and to: a seed has 32 bits, and thousands of captions an image would not fit into memory.
_WHOLE = {
    "num_beams": (1, 1000), "num_return_sequences": (1, 10_000), "top_k": (0, _BITS), "seed": (0, _BITS),
    "max_new_tokens": (0, _BITS),
}  # fmt: skip


@dataclass(frozen=True)
class DecodingOptions:
    """How captions are decoded; greedily by default.

    Attributes:
        num_beams: Above 1, beam search with this many hypotheses.
        length_penalty: For beam search: a caption's log-probability is divided by its number of tokens to this power.
        num_return_sequences: Captions an image. Above 1 they are sampled, or are the best of the beams.
        temperature: For sampling: below 1 favours likely tokens, above 1 varies more; 0 takes the likeliest token.
        top_k: Samples among this many of the likeliest tokens; 0 means all.
        top_p: Samples among the likeliest tokens whose probabilities reach this sum (nucleus, Holtzman et al., 2020).
        seed: For sampling. A caption depends on the seed, its image and its number alone, not on the batch.
        max_new_tokens: The most tokens of a caption, the end mark included; 0 means the model's own limit.
    """

    num_beams: int = 1
    length_penalty: float = 1.0
    num_return_sequences: int = 1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    max_new_tokens: int = 0

    @property
    def samples(self) -> bool:
        """Whether captions are sampled."""
        random = self.num_return_sequences > 1 or self.top_k or self.top_p < 1 or self.temperature != 1
        return self.num_beams == 1 and bool(random) and self.temperature > 0

    def check(self, length: int) -> None:
        """Raises `ConfigError` where a setting makes no sense.

        Args:
            length: Tokens that the model can write.
        """
        for name, (low, high) in _WHOLE.items():
            value = getattr(self, name)
            if not (is_whole(value) and low <= value <= high):
                raise ConfigError(f"{name} is {value!r}; it must be a whole number from {low} to {high}.")
        if not (is_number(self.top_p) and 0 < self.top_p <= 1):
            raise ConfigError(f"top_p is {self.top_p!r}; it is a probability, above 0 and at most 1.")
        if not (is_number(self.temperature) and self.temperature >= 0):
            raise ConfigError(f"temperature is {self.temperature!r}; it must be a number, 0 or more.")
        if not is_number(self.length_penalty):
            raise ConfigError(f"length_penalty is {self.length_penalty!r}; it must be a finite number.")
        if self.max_new_tokens > length:
            raise ConfigError(
                f"max_new_tokens is {self.max_new_tokens}, but this model writes at most {length} tokens."
            )
        if self.num_beams > 1 and (self.temperature != 1 or self.top_k or self.top_p < 1):
            raise ConfigError(
                "Beam search does not sample: leave out temperature, top_k and top_p, or set num_beams=1."
            )
        if self.num_beams > 1 and self.num_return_sequences > self.num_beams:
            raise ConfigError(
                f"num_return_sequences={self.num_return_sequences} is more than num_beams={self.num_beams}: beam "
                "search returns at most one caption a beam."
            )
        if self.num_return_sequences > 1 and self.num_beams == 1 and not self.samples:
            raise ConfigError("With temperature=0 all num_return_sequences captions of an image would be the same.")
