"""How captions are searched for."""

from dataclasses import dataclass

from vlc.errors import ConfigError


@dataclass(frozen=True)
class Search:
    """How captions are searched for; by default greedily.

    Attributes:
        beams: Above 1: beam search with so many hypotheses.
        length_penalty: Of beam search: the log-probability of a caption is divided by its tokens to this power.
        samples: Captions an image; above 1 they are drawn at random, or are the best of the beams.
        temperature: Of drawing: below 1 likelier, above 1 more varied; 0 takes the likeliest word.
        top_k: Draws among so many of the likeliest words; 0: among all.
        top_p: Draws among the likeliest words that together have this probability (nucleus, Holtzman et al., 2020).
        seed: Of drawing. A caption depends on the seed, its image and its number alone, not on the batch.
        max_length: Tokens at the most, the end mark included; 0: as many as the model can write.
    """

    beams: int = 1
    length_penalty: float = 1.0
    samples: int = 1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    max_length: int = 0

    @property
    def draws(self) -> bool:
        """Whether captions are drawn at random."""
        drawn = self.samples > 1 or self.top_k or self.top_p < 1 or self.temperature != 1
        return self.beams == 1 and bool(drawn) and self.temperature > 0

    def check(self, length: int) -> None:
        """Raises `ConfigError` where a setting makes no sense.

        Args:
            length: Tokens that the model can write.
        """
        for name, least in (("beams", 1), ("samples", 1), ("top_k", 0), ("seed", 0), ("max_length", 0)):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= least):
                raise ConfigError(f"{name} is {value!r}; it must be a whole number, {least} or more.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it is a probability, above 0 and at most 1.")
        if not self.temperature >= 0:
            raise ConfigError(f"temperature is {self.temperature}; it must be 0 or more.")
        if self.max_length > length:
            raise ConfigError(f"max_length is {self.max_length}, but this model writes {length} tokens at the most.")
        if self.beams > 1 and (self.temperature != 1 or self.top_k or self.top_p < 1):
            raise ConfigError("Beam search draws nothing: leave temperature, top_k and top_p out, or set beams=1.")
        if self.beams > 1 and self.samples > self.beams:
            raise ConfigError(f"samples={self.samples} of beams={self.beams}: there are only as many as beams.")
        if self.samples > 1 and self.beams == 1 and not self.draws:
            raise ConfigError("With temperature=0 all samples would be the same one.")
