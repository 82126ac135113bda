"""Config files with changes from the command line: `configs/x.py:form --config.optimizer.lr=1e-3`."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from vlc.config import FREE_KEYS, Config, default_config, get_key
from vlc.errors import ConfigError, did_you_mean


def load_config(spec: str, overrides: Sequence[str] = ()) -> Config:
    """Reads a config file and applies changes to it.

    Args:
        spec: A Python file with `get_config`, and after a colon the form handed to it, e.g. `configs/x.py:smoke`.
        overrides: `--config.KEY=VALUE`.

    Raises:
        ConfigError: The file is missing or wrong, a key does not exist (the nearest is named), or a value has the
            wrong type.
    """
    path = Path(spec.partition(":")[0])
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file.{_known_files(path)}")
    free = [override for override in overrides if _free_key(override)]
    overrides = [override for override in overrides if override not in free]
    keys = {*_flatten(default_config()), *FREE_KEYS}
    for override in overrides:
        key = override.partition("=")[0]
        if not key.startswith("--config."):
            raise ConfigError(f"Unknown argument {override}. Settings are changed with --config.KEY=VALUE.")
        name = key.removeprefix("--config.")
        if name not in keys:
            raise ConfigError(f"config.{name} does not exist.{did_you_mean(name, keys) if keys else ''}")
        if "=" not in override:
            raise ConfigError(f"{override} has no value. Write {override}=VALUE.")
    values = flags.FlagValues()
    arguments = ["vlc", f"--config={spec}", *overrides]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    try:
        values(arguments)
        config = holder.value
    except (AttributeError, KeyError) as error:  # the file sets a key that is locked out; its message names the nearest
        raise ConfigError(f"{path}: {str(error.args[0]).strip()}") from error
    except (flags.Error, TypeError, ValueError, SyntaxError, ImportError, OSError) as error:
        raise ConfigError(f"{spec} cannot be read: {error}") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"{path}: get_config() must return a ConfigDict, made by vlc.config.default_config().")
    for override in free:
        _set_free(config, override)
    return config


def _free_key(override: str) -> str:
    """The dictionary of the user's own names that an override sets a value in, as `data.mixture`; else empty."""
    name = override.partition("=")[0].removeprefix("--config.")
    return next((key for key in FREE_KEYS if name.startswith(key + ".")), "")


def _set_free(config: Config, override: str) -> None:
    name, equals, value = override.removeprefix("--config.").partition("=")
    if not equals:
        raise ConfigError(f"{override} has no value. Write {override}=VALUE.")
    key = _free_key(override)
    try:
        get_key(config, key)[name.removeprefix(key + ".")] = float(value) if key == "data.mixture" else value
    except ValueError:
        raise ConfigError(f"config.{name} is {value!r}; a weight is a number.") from None


def _flatten(config: Config, prefix: str = ""):
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _known_files(path: Path) -> str:
    names = [other.name for other in path.parent.glob("*.py") if other.name != "__init__.py"]
    return did_you_mean(path.name, names) if names else ""
