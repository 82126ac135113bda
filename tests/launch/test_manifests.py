"""The Kubernetes manifests against JobSet's published schema, and what they tell the processes; the TPU VMs' script."""

import subprocess
import time
from typing import get_args, get_origin

import pytest
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

from tests.conftest import ROOT
from vlc.parallel import find_process_info

MANIFESTS = sorted((ROOT / "launch" / "kubernetes").glob("*.yaml"))


def unknown(manifest, schema, where=""):
    """Keys of a manifest that the schema has not; pydantic would pass over them."""
    fields = {field.alias or name: field.annotation for name, field in schema.model_fields.items()}
    for key, value in manifest.items():
        if key not in fields:
            yield f"{where}{key}"
            continue
        kinds, inner = [fields[key]], None
        while kinds:
            kind = kinds.pop()
            kinds += get_args(kind) if get_origin(kind) is not dict else ()  # whose keys are free
            inner = kind if isinstance(kind, type) and hasattr(kind, "model_fields") else inner
        for part in value if isinstance(value, list) else [value]:
            if inner is not None and isinstance(part, dict):
                yield from unknown(part, inner, f"{where}{key}.")


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_it_fits_the_schema(path):
    manifest = yaml.safe_load(path.read_text())
    JobsetV1alpha2JobSet.from_dict(manifest)
    assert list(unknown(manifest, JobsetV1alpha2JobSet)) == []
    manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["parallelisms"] = 3
    assert list(unknown(manifest, JobsetV1alpha2JobSet)) == ["spec.replicatedJobs.template.spec.parallelisms"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_its_pods_find_their_places(path):
    """Every pod of it has a number of its own, and they know how many they are and where the first is."""
    manifest = yaml.safe_load(path.read_text())
    name, job = manifest["metadata"]["name"], manifest["spec"]["replicatedJobs"][0]
    pods = job["template"]["spec"]["parallelism"]
    variables = job["template"]["spec"]["template"]["spec"]["containers"][0]["env"]
    told = {one["name"]: one.get("value") or "0" for one in variables}
    places = [find_process_info(env=told | {"JOB_COMPLETION_INDEX": str(pod)}) for pod in range(pods)]
    assert [process.index for process in places] == list(range(places[0].count)) and job["replicas"] == 1
    assert places[0].address == (f"{name}-{job['name']}-0-0.{name}", 12620)


def test_the_tpu_script_is_sound_and_says_what_is_missing():
    script = ROOT / "launch" / "tpu_vm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    answer = subprocess.run(["bash", script, "create"], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert answer.returncode and "set NAME" in answer.stderr


@pytest.mark.parametrize(("statuses", "ends", "runs"), [((76, 137, 0), 0, 3), ((2, 0), 2, 1), ((75, 0), 75, 1)])
def test_the_tpu_script_starts_again_what_was_lost_and_nothing_else(statuses, ends, runs, tmp_path):
    """With a gcloud that runs commands here and has a status of its own, and a vlc that ends with one after another."""
    tools, home = tmp_path / "tools", tmp_path / "home"
    for folder in (tools, home / "vlc" / ".venv" / "bin"):
        folder.mkdir(parents=True)
    wanted = tmp_path / "statuses"
    wanted.write_text("".join(f"{status}\n" for status in statuses))
    scripts = {
        tools / "gcloud": f'cd {home}; bash -c "${{@: -1}}"; [[ "$*" == *--worker=0* ]]',
        home / "vlc" / ".venv" / "bin" / "vlc":
        f'echo "$*" >> {tmp_path}/said; status=$(head -1 {wanted}); sed -i 1d {wanted}; exit $status',
    }  # fmt: skip
    for path, text in scripts.items():
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    env = {"PATH": f"{tools}:/usr/bin:/bin", "NAME": "n", "ZONE": "z"}
    command = ["bash", ROOT / "launch" / "tpu_vm.sh", "run", "vlc", "train", "--workdir", "gs://b/a b"]
    assert subprocess.run(command, env=env).returncode == ends
    assert (tmp_path / "said").read_text().splitlines() == ["train --workdir gs://b/a b"] * runs


def slice_of_one(tmp_path, vlc):
    """A gcloud that runs commands here, in a home of its own, where `vlc` is this script."""
    tools, home = tmp_path / "tools", tmp_path / "home"
    for folder in (tools, home / "vlc" / ".venv" / "bin"):
        folder.mkdir(parents=True)
    scripts = {tools / "gcloud": f'cd {home}; bash -c "${{@: -1}}"', home / "vlc" / ".venv" / "bin" / "vlc": vlc}
    for path, text in scripts.items():
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    return {"PATH": f"{tools}:/usr/bin:/bin", "NAME": "n", "ZONE": "z"}


def test_the_tpu_script_stops_the_command_and_takes_its_status(tmp_path):
    """SIGTERM comes to the command alone: the shell around it lives on, and writes that it was asked to stop."""
    env = slice_of_one(tmp_path, f"trap 'exit 75' TERM; touch {tmp_path}/started; while true; do sleep 0.1; done")
    script = ["bash", ROOT / "launch" / "tpu_vm.sh"]
    run = subprocess.Popen([*script, "run", "vlc", "train", "--workdir", "gs://b/run"], env=env)
    bystander = subprocess.Popen(["bash", "-c", "sleep 60; : vlc train --workdir gs://b/other"])
    while not (tmp_path / "started").exists():
        assert run.poll() is None
        time.sleep(0.05)
    subprocess.run([*script, "stop"], env=env, check=True)
    assert run.wait(timeout=20) == 75 and bystander.poll() is None
    bystander.kill()


@pytest.mark.parametrize("words", [["--workdir", "runs/a"], ["--workdir=/runs/a"], ["--out", "x"]])
def test_the_tpu_script_refuses_a_workdir_that_the_hosts_do_not_share(tmp_path, words):
    env = slice_of_one(tmp_path, f"touch {tmp_path}/started")
    command = ["bash", ROOT / "launch" / "tpu_vm.sh", "run", "vlc", "train", *words]
    answer = subprocess.run(command, env=env, capture_output=True, text=True)
    assert answer.returncode == 2 and "share no disk" in answer.stderr and not (tmp_path / "started").exists()
    assert subprocess.run(command, env=env | {"SHARED_DISK": "1"}).returncode == 0
