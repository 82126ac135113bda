"""What a config needs of a pod, by compiling its train step for it, without the pod."""

from vlc.plan.advice import Advice, advise
from vlc.plan.estimate import Plan, make_plan
from vlc.plan.sweep import sweep

__all__ = ["Advice", "Plan", "advise", "make_plan", "sweep"]
