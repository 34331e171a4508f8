"""Python's garbage collector, in a process that is the runner's own.

What a run loads before its first model, 1,500 modules and the snapshots of all models, it keeps to its end. The collector would go
through that again and again while it is loaded, and once more when the process ends, and find next to nothing: a third of the time of a
run with nothing to do. So it is held back until all is there, and then leaves that alone. References are counted as ever, and what the
models make is collected as ever.
"""

from __future__ import annotations

import gc

_is_held_back = False


def hold_back() -> None:
    """Collect nothing until `keep_what_is_loaded`. Only for a process that ends with its command: what is kept is kept for good."""
    global _is_held_back
    if gc.isenabled():
        gc.disable()
        _is_held_back = True


def keep_what_is_loaded() -> None:
    """Leave alone what there is, and collect again; nothing where the collector was not held back."""
    global _is_held_back
    if _is_held_back:
        gc.freeze()
        gc.enable()
        _is_held_back = False
