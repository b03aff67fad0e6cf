"""A Slurm of one node on this machine, in a folder of its own: slurmctld, slurmd and munged as Debian packages them.

    python tests/helpers/slurm_here.py      starts it, says what to export, and stops it at Ctrl-C

It needs root, and listens on the loopback interface alone. No control groups are asked for, so that it starts in
containers too; no accounting, so sacct knows nothing. Jobs that are put back start again within seconds.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol", "scancel", "sinfo")
_MUNGE = {"socket": ".socket", "pid-file": "d.pid", "log-file": "d.log", "seed-file": "d.seed"}
_STARTS = 30.0  # seconds, at most
_CONFIGURATION = """\
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=1,sched_interval=1
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
NodeName=here NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=here Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """What keeps it from starting here; None where it can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        return f"no {', '.join(absent)}: apt-get install slurmctld slurmd slurm-client munge"
    return None if os.geteuid() == 0 else "Slurm's daemons need root"


@contextlib.contextmanager
def slurm_here(cores: int = 4) -> Iterator[dict[str, str]]:
    """The environment that finds it. cores: that it believes to have, whatever there are."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # munge asks for a path that all may enter
        with _daemons(folder, cores) as environment:
            yield environment


@contextlib.contextmanager
def _daemons(folder: Path, cores: int) -> Iterator[dict[str, str]]:
    for name in ("state", "spool"):
        (folder / name).mkdir(exist_ok=True)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    ports = [_free_port() for _ in range(2)]
    configuration = folder / "slurm.conf"
    configuration.write_text(
        _CONFIGURATION.format(folder=folder, host=socket.gethostname(), cores=cores, controller=ports[0], node=ports[1])
    )
    environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(configuration)}
    files = {name: folder / f"munge{end}" for name, end in _MUNGE.items()}
    started = [
        ["munged", f"--key-file={key}", *(f"--{name}={file}" for name, file in files.items())],
        ["slurmctld", "-f", str(configuration)],
        ["slurmd", "-f", str(configuration), "-N", "here"],
    ]
    try:
        for command in started:
            subprocess.run(command, env=environment, check=True, capture_output=True, timeout=_STARTS)
        _wait_until_idle(environment, folder)
        yield environment
    finally:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["scancel", "--full", "--user=root"], env=environment, capture_output=True, timeout=10)
        for name in ("slurmd", "slurmctld", "munged"):
            _stop(folder / f"{name}.pid")


def _wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    said = ""
    end = time.monotonic() + _STARTS
    while time.monotonic() < end:
        looked = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True, timeout=_STARTS
        )
        said = looked.stdout.strip() or looked.stderr.strip()
        if said == "idle":
            return
        time.sleep(0.2)
    logs = "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("slurm*.log")))
    raise RuntimeError(f"Slurm did not start: its node is {said}\n{logs}")


def _stop(pid_file: Path) -> None:
    """End a daemon, and wait until it has ended."""
    with contextlib.suppress(OSError, ValueError):
        process = int(pid_file.read_text())
        os.kill(process, signal.SIGTERM)
        for _ in range(100):
            os.kill(process, 0)
            time.sleep(0.1)
        os.kill(process, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _path() -> str:
    """Debian's daemons are where only root looks."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


if __name__ == "__main__":
    with slurm_here() as found, contextlib.suppress(KeyboardInterrupt):
        print(f"export SLURM_CONF={found['SLURM_CONF']}", flush=True)
        signal.pause()
