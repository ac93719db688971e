"""The workflow on one machine: killed, resumed and extended; its plan; the GPUs of its jobs."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import small_study
import yaml
from faults import finish

from sam_lungs.study.options import Options
from sam_lungs.study.process import report_in_use

PROFILE = small_study.ROOT / "profiles/local"


@pytest.fixture
def studies(tmp_path):
    """Two folders with the same study of four phantoms: for Snakemake, and for one process."""
    if not small_study.SNAKEMAKE.exists():
        pytest.skip("there is no Snakemake; scripts/setup.sh --workflow installs it")
    phantoms = tmp_path / "phantoms"
    make = ["sam_lungs/synthetic/phantom.py", "--cases", 5, "--slices", 4]
    finish(tmp_path, *make, "--output_folder", phantoms)
    folders = [tmp_path / "study", tmp_path / "alone"]
    for folder in folders:
        small_study.write_study(folder, volumes_per_job=3, gpu=True)
        for number in range(1, 5):
            small_study.add_case(folder, phantoms, number)
    return folders


def test_a_killed_study_resumes_and_takes_a_fifth_volume(studies, tmp_path):
    study, alone = studies
    # Two jobs, one after the other. All is killed in the second volume of the first job.
    running = small_study.start_snakemake(study, PROFILE, "--cores", "1", *small_study.JOINED)
    while not (
        len(small_study.times_of_runs(study)) == 2
        and list(study.glob("results/paper/*/unfinished/slices.jsonl"))
    ):
        assert running.poll() is None, small_study.log_of(study)
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    finished = small_study.times_of_runs(study)
    assert len(finished) == 2

    small_study.run_snakemake(study, PROFILE, "--unlock")
    small_study.run_snakemake(study, PROFILE, *small_study.JOINED)
    for command in small_study.COMMANDS[:3]:
        finish(alone, *command)
    assert small_study.products(study) == small_study.products(alone)
    assert small_study.times_of_runs(study).items() > finished.items()

    finished = small_study.times_of_runs(study)
    markers = times_of_markers(study)
    for folder in (study, alone):
        small_study.add_case(folder, tmp_path / "phantoms", 5)
    small_study.run_snakemake(study, PROFILE)
    for command in small_study.COMMANDS:
        finish(alone, *command)
    products = small_study.products(study)
    assert products == small_study.products(alone)
    assert {"results/paper/report.html", "results/comparison/comparison.csv"} < products.keys()
    assert len(small_study.times_of_runs(study)) == len(finished) + 2
    assert small_study.times_of_runs(study).items() > finished.items()
    # The fifth volume is in the first of two parts; the other job did not run.
    changed = dict(times_of_markers(study).items() - markers.items())
    assert changed.keys() == {"part_1_of_2.done"}


def test_a_configuration_as_yaml_has_it(studies):
    """Numbers, nothing for no options, and a slash at the end of a folder."""
    study, _ = studies
    given = {"results": "results/", "explore": {"negative_map": None}, "gpu": False}
    given |= {"options": ["--device", "cpu", "--batch_size", 2]}
    config = yaml.safe_load((study / "config.yaml").read_text()) | given
    (study / "config.yaml").write_text(yaml.safe_dump(config))
    small_study.run_snakemake(study, PROFILE, "--dry-run", "--printshellcmds")
    log = small_study.log_of(study)
    assert "--batch_size 2 --threads 1 --part 2/2 >results_jobs/compact/part_2_of_2.log" in log
    assert "explore_prompts.py negative_map --dataset study.yml" in log
    assert "//" not in log
    assert "on_gpu.sh" not in log, "jobs without a GPU would wait for one"
    assert [path.name for path in study.glob("results*")] == ["results_jobs"]


def times_of_markers(study: Path) -> dict[str, int]:
    paths = (study / "results_jobs/compact").glob("*.done")
    return {path.name: path.stat().st_mtime_ns for path in paths}


def test_a_job_that_skipped_a_volume_in_use_is_not_finished(capsys):
    snakefile = (small_study.ROOT / "workflow/Snakefile").read_text()
    (looked_for,) = re.findall("grep --fixed-strings '(.*)' {log", snakefile)
    for protocols in ((), ("paper", "no_box")):
        report_in_use("a", protocols)
        assert looked_for in capsys.readouterr().err


@pytest.mark.parametrize("models", ["compact", f"compact,box,hub:owner/name@{'0' * 40}"])
@pytest.mark.parametrize(
    "others", [[], ["--prompts", "paper,no_box"], ["--prompts", "paper", "--prompt_every", "2,3"]]
)
def test_each_model_alone_has_the_folders_of_all_in_one_run(tmp_path, models, others):
    for number in range(1, 3):
        for name in ("image", "masks"):
            (tmp_path / f"{name}_{number}.npy").touch()
    dataset = tmp_path / "study.yml"
    dataset.write_text("images: image_{case}.npy\nmasks: masks_{case}.npy\n")
    arguments = ["--dataset", "study.yml", "--output_folder", "results", "--model", models, *others]
    (line,) = finish(tmp_path, "workflow/plan.py", *arguments)
    plan = json.loads(line)
    assert len(set(plan["cases"])) == 2

    given = {}
    if others:
        given["prompts"] = tuple(others[1].split(","))
    if "--prompt_every" in others:
        given["prompt_every"] = (2, 3)
    together = Options(dataset=dataset, model=models, **given)
    expected = [
        Path("results", name) for one in together.for_each_model() for name in one.protocols
    ]
    assert [Path(run) for model in plan["models"].values() for run in model["runs"]] == expected
    for model in plan["models"].values():
        _, folder, _, name = model["options"]
        alone = Options(dataset=dataset, model=name, **given)
        assert [Path(folder, each) for each in alone.protocols] == list(map(Path, model["runs"]))


def test_a_case_that_changes_has_another_hash(tmp_path):
    dataset = tmp_path / "study.yml"
    table = tmp_path / "cases.csv"

    def plan(window: str, patient: str, masks: str) -> dict:
        dataset.write_text(f"table: cases.csv\nwindow: {window}\n")
        table.write_text(f"case,image,masks,patient\na,a.npy,{masks},{patient}\nb,b.npy,c.npy,p\n")
        arguments = ["--dataset", "study.yml", "--output_folder", "results"]
        return json.loads(*finish(tmp_path, "workflow/plan.py", *arguments))

    first = plan("lung", "p", "m.npy")
    assert plan("lung", "p", "m.npy") == first
    other = plan("lung", "p", "n.npy")
    assert other["cases"][0] != first["cases"][0]
    assert (other["cases"][1], other["patients"]) == (first["cases"][1], first["patients"])
    other = plan("lung", "q", "m.npy")
    assert other["cases"] == first["cases"]
    assert other["patients"] != first["patients"]
    assert not set(plan("none", "p", "m.npy")["cases"]) & set(first["cases"])


def environment_with(folder: Path, nvidia_smi: str) -> dict[str, str]:
    """Return an environment with a shell script as `nvidia-smi`, and locks of GPUs in a folder."""
    smi = folder / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\n{nvidia_smi}")
    smi.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if "CUDA" not in name}
    return environment | {"PATH": f"{folder}:{os.environ['PATH']}", "TMPDIR": str(folder)}


def test_jobs_of_one_machine_use_different_gpus(tmp_path):
    environment = environment_with(tmp_path, "echo GPU-a\necho GPU-b\n")

    def start(**others) -> subprocess.Popen:
        job = 'echo "${CUDA_VISIBLE_DEVICES-all}"; exec sleep 30'
        return subprocess.Popen(
            [small_study.ROOT / "workflow/on_gpu.sh", "sh", "-c", job],
            env=environment | others,
            stdout=subprocess.PIPE,
            text=True,
        )

    jobs = [start(), start()]
    assert {job.stdout.readline() for job in jobs} == {"GPU-a\n", "GPU-b\n"}
    # A third job gets the GPU of one that was killed.
    third = start()
    time.sleep(0.1)
    assert third.poll() is None
    jobs[1].kill()
    jobs[1].wait()
    free = {"GPU-a\n", "GPU-b\n"} - {gpu_of(jobs[0])}
    jobs += [third, start(CUDA_VISIBLE_DEVICES="3")]
    assert {jobs[2].stdout.readline()} == free
    assert jobs[3].stdout.readline() == "3\n"
    for job in jobs:
        job.kill()
        job.wait()
        job.stdout.close()


def test_a_machine_without_a_driver_and_parts_of_gpus(tmp_path):
    environment = environment_with(tmp_path, "echo NVIDIA-SMI has failed.\necho\nexit 9\n")
    command = [small_study.ROOT / "workflow/on_gpu.sh", "sh", "-c"]
    command.append('echo "${CUDA_VISIBLE_DEVICES-all}"')
    assert subprocess.check_output(command, env=environment) == b"all\n"
    environment["CUDA_VISIBLE_DEVICES"] = "MIG-GPU-a/1/0,MIG-GPU-a/2/0"
    assert subprocess.check_output(command, env=environment) == b"MIG-GPU-a/1/0\n"


def gpu_of(job: subprocess.Popen) -> str:
    variables = Path(f"/proc/{job.pid}/environ").read_bytes().split(b"\0")
    return next(each[21:].decode() + "\n" for each in variables if each.startswith(b"CUDA_VIS"))
