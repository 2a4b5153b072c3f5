"""Lets DeepSpeed's configuration choose our engine, without an import.

DeepSpeed has no registry of checkpoint engines: one function makes them, from
a list of its own.  We stand before it: where the configuration has a section
"ckptfs", it makes ours, else what it always made.

torch calls install() when it is imported (entry point "torch.backends", made
for extensions that must be there before they are asked for).  All that happens
then is that one name is watched for: the module with that function is altered
as it is loaded, before anybody has copied the function.  With
TORCH_DEVICE_BACKEND_AUTOLOAD=0, or torch before 2.5, `import ckptfs.deepspeed`
does the same.
"""
import importlib.machinery
import sys

MODULE = "deepspeed.runtime.checkpoint_engine.utils"
FUNCTION = "create_checkpoint_engine"
COPIES = ("deepspeed.runtime.checkpoint_engine", "deepspeed.runtime.engine")
SECTION = "ckptfs"


def section(config):
    """The options in a DeepSpeedConfig's section; None: not chosen."""
    params = getattr(config, "_param_dict", None) or {}
    chosen = params.get(SECTION)
    if chosen is None or chosen is False:
        return None
    return {} if chosen is True else chosen


def _alter(module):
    stock = getattr(module, FUNCTION)
    if getattr(stock, "ckptfs", False):
        return

    def create_checkpoint_engine(config_params, *args, **kwargs):
        if section(config_params) is None:
            return stock(config_params, *args, **kwargs)
        from .deepspeed import CheckpointEngine
        return CheckpointEngine(config_params)

    create_checkpoint_engine.ckptfs = True
    setattr(module, FUNCTION, create_checkpoint_engine)
    for name in COPIES:  # made already where DeepSpeed was imported before
        if getattr(sys.modules.get(name), FUNCTION, None) is stock:
            setattr(sys.modules[name], FUNCTION, create_checkpoint_engine)


class _Watch:
    """On sys.meta_path, until the module has come."""

    def find_spec(self, name, path=None, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            if hasattr(module, FUNCTION):
                _alter(module)

        spec.loader.exec_module = exec_module
        return spec


def install():
    """Any number of times, before or after DeepSpeed is imported."""
    if MODULE in sys.modules:
        _alter(sys.modules[MODULE])
    elif not any(isinstance(f, _Watch) for f in sys.meta_path):
        sys.meta_path.insert(0, _Watch())
