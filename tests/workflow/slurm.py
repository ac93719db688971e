"""The workflow on a SLURM of one node, which this script starts as root and stops at the end.

python tests/workflow/slurm.py

It installs slurm-wlm and munge with apt. Where there is a /etc/slurm it does nothing. A job is
cancelled, killed and requeued while it processes a volume; all tables and the report must be those
of one process, and no finished volume may be computed again.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from small_study import (
    COMMANDS,
    ROOT,
    add_case,
    log_of,
    products,
    run_snakemake,
    start_snakemake,
    times_of_runs,
    write_study,
)

SETTINGS = Path("/etc/slurm")
INSTALL = ["apt-get", "-o", "DPkg::Lock::Timeout=120", "install", "-y", "--no-install-recommends"]
CONF = """
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job starts after this many seconds, by default 120.
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobRequeue=1
KillWait=20
MinJobAge=3600
{node} State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# Without accounting the states of jobs come from squeue.
PROFILE = {
    "jobs": 2,
    "slurm-no-account": True,
    "slurm-status-command": "squeue",
    "slurm-init-seconds-before-status-checks": 3,
    "seconds-between-status-checks": 3,
    "latency-wait": 10,
    "default-resources": {"slurm_partition": "test", "mem_mb": 1000, "runtime": 10},
}


def main() -> None:
    reason = "/etc/slurm is there" if SETTINGS.exists() else "not root" if os.getuid() else None
    if reason:
        print(f"SLURM test: skipped, {reason}")
        return
    # The daemons are stopped then, too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            with slurm(folder):
                print(f"SLURM is running after {time.monotonic() - started:.0f} s", flush=True)
                try:
                    check_study(folder)
                except AssertionError:
                    print(log_of(folder / "study"))
                    raise
        finally:
            shutil.rmtree(SETTINGS, ignore_errors=True)
    print(f"SLURM test: passed in {time.monotonic() - started:.0f} s")


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """Install, configure and start SLURM with one node; stop it at the end."""
    for command in (["apt-get", "update"], [*INSTALL, "slurm-wlm", "munge"]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    SETTINGS.mkdir(exist_ok=True)
    node = output("slurmd", "-C").splitlines()[0]
    host = output("hostname").strip()
    (SETTINGS / "slurm.conf").write_text(CONF.format(host=host, folder=folder, node=node))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    for name in ("/run/munge", "/var/log/munge"):
        Path(name).mkdir(exist_ok=True)
        shutil.chown(name, "munge", "munge")
    daemons = []
    try:
        for command in (
            ["runuser", "-u", "munge", "--", "munged", "--foreground"],
            ["slurmctld", "-D"],
            ["slurmd", "-D"],
        ):
            daemons.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            time.sleep(1)
        wait_until(lambda: "idle" in output("sinfo", "--noheader"), "the node is not idle")
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()


def check_study(folder: Path) -> None:
    """Process four volumes with three faults; add one, and make tables and report."""
    phantoms, study, alone = (folder / name for name in ("phantoms", "study", "alone"))
    make = ["-m", "sam_lungs.synthetic.phantom", "--cases", "5", "--slices", "6"]
    python("/", *make, "--output_folder", phantoms)
    for each in (study, alone):
        write_study(each, volumes_per_job=4)
        for number in range(1, 5):
            add_case(each, phantoms, number)
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text()) | PROFILE
    del profile["set-resources"]  # of a larger node
    (folder / "profile").mkdir()
    (folder / "profile/config.yaml").write_text(yaml.safe_dump(profile))

    running = start_snakemake(study, folder / "profile", "results_jobs/compact/part_1_of_1.done")
    kept: dict[str, int] = {}
    for number, fault in (
        (2, ["scancel"]),
        (3, ["scancel", "--signal=KILL", "--full"]),
        (4, ["scontrol", "requeue"]),
    ):
        unfinished = study / f"results/paper/phantom_{number:03d}/unfinished/slices.jsonl"
        wait_until(lambda path=unfinished: path.exists(), f"no {unfinished}", running)
        (job,) = output("squeue", "--noheader", "--format=%A", "--states=R").split()
        subprocess.run([*fault, job], check=True)
        assert not (unfinished.parent.parent / "run.json").exists(), "too late"
        kept |= times_of_runs(study)
        assert len(kept) == 2 * (number - 1)
        print(f"{' '.join(fault)} in volume {number}", flush=True)
    assert running.wait() == 0, log_of(study)
    compare(study, alone, COMMANDS[:1], kept)
    print("four volumes: the same", flush=True)

    kept = times_of_runs(study)
    for each in (study, alone):
        add_case(each, phantoms, 5)
    run_snakemake(study, folder / "profile")
    compare(study, alone, COMMANDS, kept)
    print("five volumes: the same", flush=True)


def compare(study: Path, alone: Path, commands: list[list[str]], kept: dict[str, int]) -> None:
    """Compare a study with one process, and the times of volumes that were finished before."""
    for command in commands:
        python(alone, ROOT / command[0], *command[1:])
    ours, theirs = products(study), products(alone)
    assert ours.keys() == theirs.keys()
    differ = [name for name in ours if ours[name] != theirs[name]]
    assert not differ, differ
    assert times_of_runs(study).items() >= kept.items(), "a finished volume was computed again"


def wait_until(is_true, message: str, process: subprocess.Popen | None = None) -> None:
    """Wait at most 120 s, while a process runs."""
    end = time.monotonic() + 120
    while not is_true():
        assert time.monotonic() < end, message
        assert process is None or process.poll() is None, message
        time.sleep(0.02)


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def python(folder: Path | str, *arguments: object) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    main()
