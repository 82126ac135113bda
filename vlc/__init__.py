"""Fine-grained vision-language pretraining in JAX.

```python
import vlc
model = vlc.load("runs/quickstart")
model.caption(["photo.jpg"], guidance_scale=2.0)
```
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Model", "late_interaction", "load", "objectives"]

if TYPE_CHECKING:
    from vlc import objectives
    from vlc.inference import Model, load
    from vlc.similarity import late_interaction


def __getattr__(name: str) -> Any:
    """Imports the public names when they are first used, so that data workers need not import the models."""
    if name in ("Model", "load"):
        from vlc import inference

        return getattr(inference, name)
    if name == "late_interaction":
        from vlc.similarity import late_interaction

        return late_interaction
    if name == "objectives":
        import vlc.objectives

        return vlc.objectives
    raise AttributeError(f"module 'vlc' has no attribute {name!r}")
