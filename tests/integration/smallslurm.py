"""A second, small Slurm beside the tests' own, with limits so low that a sweep meets them."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

CONFIGURATION = """\
ClusterName={name}
SlurmctldHost={host}({address})
SlurmctldPort={ports[0]}
SlurmUser=slurm
{listening}
AuthType=auth/munge
StateSaveLocation={path}/state
SlurmdSpoolDir={path}/spool
SlurmctldPidFile={path}/state/slurmctld.pid
SlurmdPidFile={path}/spool/slurmd.pid
SlurmctldLogFile={path}/state/slurmctld.log
SlurmdLogFile={path}/spool/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=50
ReturnToService=2
KillWait=5
MessageTimeout=30
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={accounts}
AccountingStorageEnforce=associations,limits
SlurmdParameters=config_overrides
NodeName=s1 NodeHostname={host} NodeAddr={address} Port={ports[1]} CPUs=8 RealMemory=8000
PartitionName=debug Nodes=s1 Default=YES DefaultTime=01:00:00 MaxTime=INFINITE State=UP
{limits}
"""


@dataclass(frozen=True)
class SmallSlurm:
    """A cluster of one node that keeps its accounts where the other one does."""

    path: Path
    name: str

    @property
    def env(self):
        """What makes Slurm's programs talk to it."""
        return {"SLURM_CONF": str(self.path / "slurm.conf")}

    def ask(self, *argv):
        """Return the lines that one of Slurm's programs prints."""
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env={**os.environ, **self.env}
        )
        assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
        return done.stdout.splitlines()

    def start(self, *users, **limits):
        """Start it, for these users, and wait until its node is idle."""
        for folder in ("state", "spool"):
            (self.path / folder).mkdir(parents=True)
            shutil.chown(self.path / folder, "slurm")
        host = socket.gethostname().partition(".")[0]
        text = CONFIGURATION.format(
            name=self.name,
            host=host,
            **_places(),
            path=self.path,
            ports=_free_ports(2),
            limits="\n".join(f"{key}={value}" for key, value in limits.items()),
        )
        (self.path / "slurm.conf").write_text(text)
        self.accounts("add", "cluster", self.name)
        self.accounts("add", "account", "lab", f"Cluster={self.name}")
        for user in users:
            self.accounts("add", "user", user, "Account=lab", f"Cluster={self.name}")
        configuration = self.path / "slurm.conf"
        self.launch("slurmctld", "-f", configuration)
        self.launch("slurmd", "-f", configuration, "-N", "s1")
        self.wait_until_idle()

    def accounts(self, *words):
        """Change the accounts."""
        self.ask("sacctmgr", "--immediate", "--quiet", *words)

    def limit(self, user, jobs):
        """Let a user have so many jobs in the queue; -1 for any number."""
        of = ("where", f"user={user}", f"cluster={self.name}", "account=lab")
        self.accounts("modify", "user", *of, "set", f"MaxSubmitJobs={jobs}")
        end = time.monotonic() + 60
        while self._limits(user) != {"" if jobs < 0 else str(jobs)}:
            assert time.monotonic() < end, f"the controller has {self._limits(user)}, not {jobs}"
            time.sleep(0.1)

    def _limits(self, user):
        """Return the limits of submitted jobs that the controller has for a user."""
        shown = self.ask("scontrol", "show", "assoc_mgr", "flags=assoc", f"users={user}")
        found, name = set(), ""
        for line in shown:
            if match := re.search(r"UserName=([^(\s]*)", line):
                name = match[1]
            if name == user:
                found.update(re.findall(r"MaxSubmitJobs=(\d*)", line))
        return found

    def launch(self, *argv):
        """Start a daemon, which detaches itself."""
        with (self.path / "daemons.log").open("ab") as log:
            subprocess.run(argv, stdout=log, stderr=log, check=True, start_new_session=True)

    def wait_until_idle(self):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            done = subprocess.run(
                ["sinfo", "--noheader", "--format=%T"],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, **self.env},
            )
            if done.stdout.strip() == "idle":
                return
            time.sleep(0.3)
        raise AssertionError((self.path / "state/slurmctld.log").read_text()[-2000:])

    def stop(self):
        """End its jobs and its daemons."""
        subprocess.run(
            ["scancel", "--state=PENDING,RUNNING", "--partition=debug"],
            env={**os.environ, **self.env},
            capture_output=True,
            check=False,
        )
        for file in ("spool/slurmd.pid", "state/slurmctld.pid"):
            path = self.path / file
            if path.exists():
                _end(int(path.read_text()))
        subprocess.run(
            ["sacctmgr", "--immediate", "--quiet", "delete", "cluster", self.name],
            capture_output=True,
            check=False,
        )


def _places():
    """Return where the tests' own Slurm listens and keeps its accounts, as this one does.

    Whoever keeps the accounts tells changes to where the controller's calls come from, which is
    127.0.0.1 whatever loopback address the machine's name stands for.
    """
    shown = subprocess.run(
        ["scontrol", "show", "config"], capture_output=True, text=True, check=True
    ).stdout
    said = dict(re.findall(r"^(\S+) *= (.+)$", shown, re.MULTILINE))
    host, _, address = said["SlurmctldHost[0]"].rstrip(")").partition("(")
    listening = said.get("CommunicationParameters", "")
    own = "NoInAddrAny" in listening.split(",")
    return {
        "address": address or host,
        "listening": f"CommunicationParameters={listening}" if own else "",
        "accounts": said["AccountingStorageHost"],
    }


def _end(process):
    os.kill(process, signal.SIGTERM)
    end = time.monotonic() + 15
    while Path(f"/proc/{process}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    if Path(f"/proc/{process}").exists():
        os.kill(process, signal.SIGKILL)


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
