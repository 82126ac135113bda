"""The Kubernetes manifests against JobSet's published schema, and what they tell the processes; the TPU VMs' script."""

import subprocess
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
        tools / "pkill": f"echo killed >> {tmp_path}/killed",
        home / "vlc" / ".venv" / "bin" / "vlc":
        f'echo "$*" >> {tmp_path}/said; status=$(head -1 {wanted}); sed -i 1d {wanted}; exit $status',
    }  # fmt: skip
    for path, text in scripts.items():
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    env = {"PATH": f"{tools}:/usr/bin:/bin", "NAME": "n", "ZONE": "z"}
    command = ["bash", ROOT / "launch" / "tpu_vm.sh", "run", "vlc", "train", "--workdir", "a b"]
    assert subprocess.run(command, env=env).returncode == ends
    assert (tmp_path / "said").read_text().splitlines() == ["train --workdir a b"] * runs
