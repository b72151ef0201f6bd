"""Starting programs so that they cannot outlive the process that started them.

An engine that survives a `kill -9` of its parent would continue to write beside its successor. On Linux the kernel ends
it: `die_with_parent` puts a short start-up script before the program, which requests SIGKILL at the parent's death
(PR_SET_PDEATHSIG) and then becomes the program, with the same process id. It is a script, not `preexec_fn`, because
Python code between fork and exec can deadlock in a process with threads.

The kernel watches the *thread* that forked, so start such programs from a thread that lives as long as the process:
asyncio does so from the loop's thread. On other systems nothing watches, and `die_with_parent` changes nothing.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # `typing` would take a third of the script's time
if TYPE_CHECKING:
    from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9  # `signal` is slow to import


def die_with_parent(argv: Sequence[str]) -> list[str]:
    """Return the command line that runs `argv` until this process ends. `argv[0]` is an absolute path."""
    if sys.platform != "linux":
        return list(argv)
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *argv]


def _become(parent: int, argv: list[str]) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # the parent died before the request, so no signal will come
        sys.exit(1)
    os.execv(argv[0], argv)  # noqa: S606 - there is no shell


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
