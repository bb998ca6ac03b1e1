"""Work-pool templates, deployments, Dockerfile and compose file, as far as they can be checked without an engine."""

import asyncio
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from prefect.client.schemas.objects import FlowRun
from prefect.events.schemas.automations import AutomationCore
from prefect.utilities.templating import apply_values

from alpaca_farm_core.errors import BudgetReachedError
from alpaca_farm_core.methods.registry import BUILT_IN

ROOT = Path(__file__).parents[2]
POOLS = ROOT / "deployments" / "pools"
DEFINITION = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())


def template(name):
    return json.loads((POOLS / f"{name}.json").read_text())


def rendered(name, configuration, values):
    """What a worker makes of a template and a run's job variables."""
    variables = template(name)["variables"]["properties"]
    defaults = {key: variable["default"] for key, variable in variables.items() if "default" in variable}
    return apply_values(template(name)["job_configuration"], {**defaults, **values}) | configuration


@pytest.mark.parametrize("name", sorted(path.stem for path in POOLS.glob("*.json")))
def test_a_template_offers_what_it_uses_and_neither_command_nor_environment(name):
    parts = template(name)
    variables = parts["variables"]["properties"]
    used = {part.split("}}")[0].strip() for part in json.dumps(parts["job_configuration"]).split("{{")[1:]}
    assert used == set(variables)
    assert not {"env", "command"} & used
    assert all(variable["description"] for variable in variables.values())
    assert "OPENAI" not in json.dumps(parts["job_configuration"])


def test_kubernetes_gpu_job():
    job = rendered("kubernetes-gpu", {}, {"name": "run", "gpus": 2})["job_manifest"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "alpaca-farm-flows:gpu"
    assert container["resources"]["limits"] == {"memory": "64Gi", "nvidia.com/gpu": 2}
    assert container["resources"]["requests"] == {"cpu": "8", "memory": "64Gi"}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "alpaca-farm-store"
    assert job["spec"]["backoffLimit"] == 0
    assert "nvidia.com/gpu" not in json.dumps(template("kubernetes-cpu"))


def test_docker_job():
    job = rendered("docker-gpu", {}, {"name": "run"})
    assert job["image"] == "alpaca-farm-flows:gpu"
    assert job["volumes"] == ["alpaca-farm-store:/store"]
    assert job["container_create_kwargs"]["device_requests"] == [
        {"Driver": "nvidia", "Count": 1, "Capabilities": [["gpu"]]}
    ]


@pytest.mark.parametrize(
    ("module", "configuration", "names"),
    [
        ("prefect_docker.worker", "DockerWorkerJobConfiguration", ["docker-cpu", "docker-gpu"]),
        ("prefect_kubernetes.worker", "KubernetesWorkerJobConfiguration", ["kubernetes-cpu", "kubernetes-gpu"]),
        ("prefect.workers.process", "ProcessJobConfiguration", ["process"]),
    ],
)
def test_the_worker_itself_accepts_the_template(module, configuration, names):
    worker = pytest.importorskip(module, reason=f"{module} is not installed", exc_type=ImportError)
    kind = getattr(worker, configuration)
    flow_run = FlowRun(id=uuid4(), flow_id=uuid4(), name="Merry Hare")
    for name in names:
        made = asyncio.run(kind.from_template_and_values(template(name), {"name": "run", "command": "rm -rf /"}))
        made.prepare_for_flow_run(flow_run)
        told = json.dumps(made.model_dump(mode="json"))
        assert "rm -rf" not in told
        assert "flow-run execute" in told or "-m prefect.engine" in told or '"flow-run", "execute"' in told
        assert str(flow_run.id) in told


def test_every_deployment_names_a_flow_and_a_known_pool():
    parts = {"rlhf", "compare", "sft", "simulate-preferences", "reward-model", "evaluate", "reevaluate"}
    parts |= {"overoptimisation"}
    known = parts | {method.name for method in BUILT_IN} | {"nightly-evaluation", "collect-garbage"}
    assert {deployment["name"] for deployment in DEFINITION["deployments"]} == known
    for deployment in DEFINITION["deployments"]:
        file, _, attribute = deployment["entrypoint"].partition(":")
        flow = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), attribute)
        known = flow.parameters.properties
        assert set(deployment["parameters"]) <= set(known)
        assert deployment["work_pool"]["name"] in ("gpu", "cpu")
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
        assert all(field.get("description") for field in known.values()), deployment["name"]


def test_schedules_have_a_time_zone_and_are_off_until_somebody_wants_them():
    schedules = {d["name"]: d["schedules"] for d in DEFINITION["deployments"] if "schedules" in d}
    assert schedules == {
        "nightly-evaluation": [{"cron": "0 3 * * *", "timezone": "Europe/Berlin", "active": False}],
        "collect-garbage": [{"cron": "0 4 * * 0", "timezone": "Europe/Berlin", "active": False}],
    }


def test_example_automations_are_what_prefect_takes_and_answer_to_our_events():
    said = {}
    for file in sorted((ROOT / "deployments" / "automations").glob("*.yaml")):
        automation = AutomationCore.model_validate(yaml.safe_load(file.read_text()))
        said[file.stem] = (automation.trigger.expect, automation.trigger.match.root, automation.actions[0].type)
    assert said == {
        "notify-on-alarm": ({"alpaca-farm.alarm.model", "alpaca-farm.alarm.judge"}, {}, "send-notification"),
        "stop-at-budget": (
            {"alpaca-farm.stage.failed"},
            {"alpaca-farm.error": BudgetReachedError.__name__},
            "pause-deployment",
        ),
    }


def test_dockerfile_passes_the_linter():
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if linter is None:
        pytest.skip("hadolint is not installed (extra 'slow')")
    done = subprocess.run(
        [linter, "--failure-threshold", "warning", ROOT / "docker" / "Dockerfile"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_compose_file_meets_its_schema():
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed (extra 'slow')")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, ROOT / "docker" / "compose.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_images_copy_what_exists_and_hold_no_secret():
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    for line in dockerfile.splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            assert all((ROOT / name).exists() for name in line.split()[1:-1]), line
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    texts = json.dumps([service.get("environment", {}) for service in compose["services"].values()])
    for secret in ("OPENAI_API_KEY", "POSTGRES_PASSWORD", "PREFECT_API_AUTH_STRING"):
        assert f'"{secret}": "${{' in texts
        assert f"ENV {secret}" not in dockerfile
    assert compose["services"]["server"]["ports"] == ["127.0.0.1:4200:4200"]
