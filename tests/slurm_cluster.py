"""A SLURM cluster of one node with two GPUs, in a folder and on ports of its own.

The daemons are real; the GPUs are two more names of /dev/null. There is no accounting.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MinJobAge=600
KillWait=5
ReturnToService=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 Gres=gpu:tesla:2
PartitionName=first Nodes={host} Default=YES State=UP
PartitionName=second Nodes={host} State=UP
"""


def why_not() -> str | None:
    """Why no cluster can be started here, or None."""
    if os.geteuid() != 0:
        return "SLURM's daemons and device files need root"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"{', '.join(missing)}: not installed (Debian: apt-get install slurm-wlm munge)"
    return None


class Cluster:
    """The cluster. Use as a context manager.

    Attributes:
        environment: for programs that talk to it, and for the jobs that they submit.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        host = socket.gethostname().split(".")[0]
        for name in ("munge", "state", "spool", "bin"):
            (folder / name).mkdir()
        (folder / "munge" / "key").write_bytes(os.urandom(1024))
        (folder / "munge" / "key").chmod(0o400)
        for k in range(2):
            os.mknod(folder / f"gpu{k}", 0o20666, os.makedev(1, 3))
        configuration = CONFIGURATION.format(host=host, folder=folder, ports=_free_ports())
        (folder / "slurm.conf").write_text(configuration)
        (folder / "gres.conf").write_text(
            f"NodeName={host} Name=gpu Type=tesla File={folder}/gpu[0-1]\n"
        )
        (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        # The executor takes most of SLURM's variables out of the environment of a job's steps;
        # a cluster whose configuration is where it is expected does not need this one.
        step = folder / "bin" / "srun"
        step.write_text(
            f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n'
        )
        step.chmod(0o755)
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        }
        self._daemons: list[subprocess.Popen] = []

    def __enter__(self) -> Cluster:
        munge = self.folder / "munge"
        files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed")]
        socket_path = munge / "socket"
        self._start("munged", "--foreground", "--force", f"--socket={socket_path}", *files)
        self._wait(socket_path.exists)
        configuration = str(self.folder / "slurm.conf")
        self._start("slurmctld", "-D", "-f", configuration)
        self._start("slurmd", "-D", "-f", configuration)
        self._wait(lambda: "idle" in self.ask("sinfo", "--noheader", "-o", "%T", check=False))
        return self

    def __exit__(self, *_: object) -> None:
        self.ask("scancel", "--user", "root", check=False)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(30)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def ask(self, *command: str, check: bool = True) -> str:
        """What one of SLURM's programs prints."""
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if check:
            assert result.returncode == 0, f"{command}: {result.stderr}\n{self.logs()}"
        return result.stdout

    def running(self) -> list[str]:
        """Ids of the jobs that run now."""
        return self.ask("squeue", "--noheader", "--states=RUNNING", "-o", "%A").split()

    def jobs(self) -> list[dict[str, str]]:
        """All that SLURM knows of its jobs, also of those that ended in the last minutes."""
        lines = self.ask("scontrol", "--oneliner", "show", "jobs").splitlines()
        words = [dict(w.split("=", 1) for w in line.split() if "=" in w) for line in lines]
        return [job for job in words if "JobId" in job]

    def logs(self) -> str:
        """The last lines of the daemons' logs."""
        paths = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{path}:\n{path.read_text()[-2000:]}" for path in paths)

    def _start(self, *command: str) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        # A group of its own: Ctrl-C ends the tests, and they end the daemons.
        options = quiet | {"start_new_session": True}
        self._daemons.append(subprocess.Popen(command, env=self.environment, **options))

    def _wait(self, condition) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            gone = [d.args[0] for d in self._daemons if d.poll() is not None]
            late = time.monotonic() > deadline
            if gone or late:
                self.__exit__()
                raise RuntimeError(f"SLURM does not start ({gone or 'too slow'}):\n{self.logs()}")
            time.sleep(0.2)


def _free_ports() -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
