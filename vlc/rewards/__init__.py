"""What captions are worth that a model writes in training: each reward is a function of what was written."""

from vlc.rewards.cider import Cider
from vlc.rewards.fluency import Fluency
from vlc.rewards.judge import Judge
from vlc.rewards.terms import REWARDS, Term, Written, parse_terms, total_rewards

__all__ = ["REWARDS", "Cider", "Fluency", "Judge", "Term", "Written", "parse_terms", "total_rewards"]
