"""Workers of executor=local that are forks of their master, so that thousands can be started: they import nothing."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import IO, Any

from robustbench_local.grids.executors import child


class Forked:
    """As much of subprocess.Popen as the executor asks for; what it runs is the executor's own worker."""

    def __init__(
        self, command: object, *, stdout: IO[bytes], stderr: IO[bytes], env: Mapping[str, str], **_: Any
    ) -> None:
        self.returncode: int | None = None
        read, write = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            in_fork(child.main, read, stdout.fileno(), stderr.fileno())
        os.close(read)
        self.stdin = os.fdopen(write, "wb")

    def poll(self) -> int | None:
        return self._waited(os.WNOHANG)

    def wait(self) -> int | None:
        return self._waited(0)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, 9)

    def _waited(self, how: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def in_fork(main: Callable[[], object], read: int, said: int, complained: int) -> None:
    """What a fork does from its first line on, as a process of its own that was just started."""
    code = 1
    try:
        os.setsid()
        for place, handle in enumerate((read, said, complained)):
            os.dup2(handle, place)
        os.closerange(3, 1024)  # the ends of other workers' pipes
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
