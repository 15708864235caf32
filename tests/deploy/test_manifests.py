"""The manifests, rendered: what a cluster would accept, and what an engineer on call would."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import kubernetes_validate
import pytest

from services.common.settings import load_settings
from services.retriever.settings import RetrieverSettings
from services.user_encoder.settings import UserEncoderSettings
from tests.deploy.rendering import (
    COMPONENTS,
    DEPLOY,
    OVERLAYS,
    Choice,
    Object,
    choices,
    containers,
    environment,
    everything,
    kustomization,
    label,
    named,
    of_kind,
    own_components,
    pod_of,
    pods,
    rendered,
)

VERSIONS = ("1.28", "1.37")
# Kinds that extensions of Kubernetes bring along: no schema of theirs is at hand.
EXTENSIONS = {"Certificate", "Issuer", "PodMonitor", "PrometheusRule"}
SERVICES: dict[str, type[UserEncoderSettings | RetrieverSettings]] = {
    "user-encoder": UserEncoderSettings,
    "retriever": RetrieverSettings,
}
# Seconds that a pod has beyond its drain and grace, to end.
SPARE_S = 5
overlays = pytest.mark.parametrize("overlay", OVERLAYS)


def serving(objects: tuple[Object, ...]) -> Iterator[tuple[Object, Object, Object]]:
    """Lists Deployments of the services, the canaries' too: each with its pod and the service's container."""
    for one, template in pods(objects):
        name = template["metadata"]["labels"]["app.kubernetes.io/name"]
        if one["kind"] == "Deployment" and name in SERVICES:
            yield one, template, template["spec"]["containers"][0]


def test_the_components_are_those_that_are_rendered() -> None:
    assert {path.name for path in (DEPLOY / "components").iterdir()} == set(COMPONENTS)
    for overlay in OVERLAYS:
        assert own_components(overlay) == [name for name in COMPONENTS if name in own_components(overlay)]


def test_each_component_alone_all_pairs_and_all_together_are_valid() -> None:
    seen: set[str] = set()
    for choice in choices():
        for one in rendered(choice):
            text = json.dumps({**one, "metadata": {**one["metadata"], "namespace": ""}}, sort_keys=True)
            if text in seen or one["kind"] in EXTENSIONS:
                continue
            seen.add(text)
            for version in VERSIONS:
                validate(one, version, choice)
    assert len(seen) > 50


def validate(one: Object, version: str, choice: Choice) -> None:
    try:
        kubernetes_validate.validate(one, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        path = ".".join(map(str, error.path))
        pytest.fail(f"{choice}, {label(one)} against {version}: {path}: {error.message}")


def test_strictness_notices_what_is_no_field() -> None:
    one = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}, "automountServiceAccountTokens": 1}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one, VERSIONS[0], strict=True)


@pytest.mark.parametrize("choice", choices(), ids=str)
def test_every_container_is_restricted_limited_and_of_a_named_version(choice: Choice) -> None:
    for one, template in pods(rendered(choice)):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False, label(one)
        assert spec["enableServiceLinks"] is False, label(one)
        assert spec["securityContext"]["runAsNonRoot"] is True, label(one)
        assert spec["securityContext"]["runAsUser"] > 0, label(one)
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, label(one)
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), label(one)
        assert not any("hostPath" in volume for volume in spec["volumes"]), label(one)
        for container in containers(template):
            check_container(container, label(one))


def check_container(container: Object, where: str) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }, where
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), where
    assert "memory" in container["resources"]["limits"], where
    name, _, tag = container["image"].rpartition(":")
    assert name, f"{where}: {container['image']} has no tag"
    assert tag not in ("", "latest"), f"{where}: {container['image']}"


@pytest.mark.parametrize("choice", choices(), ids=str)
def test_everything_that_is_named_is_there(choice: Choice) -> None:
    objects = rendered(choice)
    claims = {one["metadata"]["name"] for one in of_kind(objects, "PersistentVolumeClaim")}
    accounts = {one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")} | {"default"}
    maps = {one["metadata"]["name"] for one in of_kind(objects, "ConfigMap")}
    for one, template in pods(objects):
        spec = template["spec"]
        assert spec.get("serviceAccountName", "default") in accounts, label(one)
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {}).get("claimName", None) in {None, *claims}, label(one)
            assert volume.get("configMap", {}).get("name", None) in {None, *maps}, label(one)
        for container in containers(template):
            own = {*volumes, *(claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", []))}
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= own, label(one)
            for source in container.get("envFrom", []):
                assert source["configMapRef"]["name"] in maps, label(one)


@overlays
def test_selectors_find_their_pods_and_no_two_deployments_share_any(overlay: str) -> None:
    objects = everything(overlay)
    chosen = {
        label(one): tuple(sorted(one["spec"]["selector"]["matchLabels"].items()))
        for one in of_kind(objects, "Deployment", "StatefulSet")
    }
    assert len(set(chosen.values())) == len(chosen)
    labels = [template["metadata"].get("labels", {}).items() for _, template in pods(objects)]
    for one in of_kind(objects, "Service", "PodDisruptionBudget", "Deployment", "StatefulSet"):
        selector = one["spec"]["selector"]
        wanted = selector.get("matchLabels", selector).items()
        assert any(wanted <= found for found in labels), label(one)


@overlays
def test_services_have_three_probes_that_ask_for_three_names(overlay: str) -> None:
    for one, _, container in serving(everything(overlay)):
        probes = [container[f"{probe}Probe"]["grpc"] for probe in ("startup", "readiness", "liveness")]
        assert len({probe["service"] for probe in probes}) == 3, label(one)
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert {probe["port"] for probe in probes} == {ports["health"]}, label(one)


@overlays
def test_whatever_runs_for_long_is_probed(overlay: str) -> None:
    for one, template in pods(everything(overlay)):
        if one["kind"] in ("Deployment", "StatefulSet"):
            first = template["spec"]["containers"][0]
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= first.keys(), label(one)


@pytest.mark.parametrize("choice", choices(), ids=str)
def test_services_start_with_the_settings_that_they_are_given(choice: Choice) -> None:
    objects = rendered(choice)
    found = 0
    for one, template, container in serving(objects):
        told = {name: value for name, value in environment(objects, container).items() if name.startswith("MARQUEE_")}
        told |= {name: of_secret(value) for name, value in told.items() if value.startswith("secret:")}
        cls = SERVICES[template["metadata"]["labels"]["app.kubernetes.io/name"]]
        settings = load_settings(cls, container.get("args", []), told)
        assert settings.auth != "anonymous"
        assert template["spec"]["terminationGracePeriodSeconds"] == settings.drain_s + settings.grace_s + SPARE_S
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        listen = int(settings.listen.rpartition(":")[2])
        assert ports == {"grpc": listen, "health": settings.health_port, "metrics": settings.metrics_port}
        wanted_cpu = "100m" if choice.overlay == "dev" else str(settings.threads)
        assert container["resources"]["requests"]["cpu"] == wanted_cpu, label(one)
        if isinstance(settings, UserEncoderSettings):
            # A SQLite file is one pod's alone.
            assert settings.store.startswith(("redis", "rediss")) or one["spec"].get("replicas") == 1
        found += 1
    assert found >= 2


def of_secret(reference: str) -> str:
    """Is what deploy/README.md puts into a Secret."""
    return {
        "secret:store:url": "redis://:secret@redis:6379/0",
        "secret:milvus:token": "marquee:secret",
    }[reference]


@overlays
def test_every_mounted_file_that_a_setting_names_is_mounted(overlay: str) -> None:
    objects = everything(overlay)
    for one, template in pods(objects):
        volumes = {
            volume["name"]: volume.get("secret", {})
            for volume in template["spec"]["volumes"]
            if volume.keys() & {"secret", "configMap"}
        }
        for container in template["spec"]["containers"]:
            words = [*environment(objects, container).values(), *container.get("args", [])]
            files = {path for word in words for path in re.findall(r"/etc/marquee/[\w./-]+", word)}
            mounts = {
                mount["mountPath"]: volumes[mount["name"]]
                for mount in container["volumeMounts"]
                if mount["name"] in volumes
            }
            for file in files:
                folder, _, name = file.rpartition("/")
                assert folder in mounts, f"{label(one)}: {file}"
                items = mounts[folder].get("items")
                assert items is None or name in {item["path"] for item in items}, f"{label(one)}: {file}"


@overlays
def test_services_roll_without_a_gap_and_spread(overlay: str) -> None:
    objects = everything(overlay)
    for one, template in pods(objects):
        if one["kind"] != "Deployment":
            continue
        assert one["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, label(one)
        name = template["metadata"]["labels"]["app.kubernetes.io/name"]
        keys = {spread["topologyKey"] for spread in template["spec"]["topologySpreadConstraints"]}
        assert "kubernetes.io/hostname" in keys, label(one)
        assert named(objects, "PodDisruptionBudget", name)["spec"]["maxUnavailable"] == 1


def test_the_autoscaler_owns_the_number_of_pods() -> None:
    objects = rendered(Choice("prod", ()))
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        target = named(objects, "Deployment", scaler["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in target["spec"]
        assert scaler["spec"]["minReplicas"] >= 2
        containers_of = {one["name"] for one in target["spec"]["template"]["spec"]["containers"]}
        assert scaler["spec"]["metrics"][0]["containerResource"]["container"] in containers_of
    assert len(of_kind(objects, "HorizontalPodAutoscaler")) == 2


@overlays
def test_headless_services_have_what_clients_and_jobs_ask_for(overlay: str) -> None:
    objects = everything(overlay)
    ports = {
        f"{one['metadata']['name']}:{port['port']}"
        for one in of_kind(objects, "Service")
        for port in one["spec"]["ports"]
        if one["spec"].get("clusterIP") == "None"
    }
    asked: set[str] = set()
    for _, template in pods(objects):
        for container in containers(template):
            words = [*container.get("args", []), *environment(objects, container).values()]
            asked |= {match for word in words for match in re.findall(r"[a-z-]+-headless:\d+", word)}
    assert asked == {"user-encoder-headless:50051", "retriever-headless:50052"}
    assert asked <= ports


@overlays
def test_a_pod_waits_for_an_active_bundle_before_its_service_is_started(overlay: str) -> None:
    for one, template, _ in serving(everything(overlay)):
        (first,) = template["spec"]["initContainers"]
        assert first["command"] == ["python", "-m", "marquee.bundle", "sync"], label(one)
        assert {"--every=2", "--until-active"} <= set(first["args"]), label(one)


@overlays
def test_the_log_of_a_job_that_failed_is_kept(overlay: str) -> None:
    """With OnFailure a Job deletes its pod, and what it said, once it gives up."""
    jobs = [(one, template) for one, template in pods(everything(overlay)) if one["kind"] in ("CronJob", "Job")]
    assert len(jobs) >= 5
    for one, template in jobs:
        assert template["spec"]["restartPolicy"] == "Never", label(one)


def test_what_the_gate_refused_is_not_trained_again() -> None:
    job = named(everything("prod"), "CronJob", "training")["spec"]["jobTemplate"]["spec"]
    assert job["backoffLimit"] == 2
    gate, gone = job["podFailurePolicy"]["rules"]
    assert gate["action"] == "FailJob"
    assert gate["onExitCodes"] == {"containerName": "publish", "operator": "In", "values": [1]}
    # A pod that a node had to give up says nothing of the data: it is replaced.
    assert gone == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


@overlays
def test_under_mtls_nobody_calls_in_the_clear(overlay: str) -> None:
    objects = everything(overlay)
    certificates = {one["spec"]["secretName"] for one in of_kind(objects, "Certificate")}
    called = set()
    for one, template in pods(objects):
        for container in template["spec"]["containers"]:
            if "MARQUEE_API_KEY" in environment(objects, container):
                assert "--tls-ca=/etc/marquee/tls/ca.crt" in container["args"], label(one)
                called.add(one["metadata"]["name"])
        tls = [volume for volume in template["spec"]["volumes"] if volume["name"] == "tls"]
        assert {volume["secret"]["secretName"] for volume in tls} <= certificates
    assert called == {"web", "activate", "retriever-drop-collections"}
    for _, _, container in serving(objects):
        assert environment(objects, container)["MARQUEE_AUTH"] == "mtls"


@overlays
def test_namespaces_enforce_what_every_pod_keeps(overlay: str) -> None:
    (namespace,) = of_kind(rendered(Choice(overlay, ())), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_network_policies_deny_by_default_and_name_pods_that_exist() -> None:
    objects = everything("prod")
    policies = of_kind(objects, "NetworkPolicy")
    denied = named(objects, "NetworkPolicy", "default-deny")["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    names = {template["metadata"]["labels"]["app.kubernetes.io/name"] for _, template in pods(objects)}
    for policy in policies:
        wanted = policy["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name")
        assert wanted is None or wanted in names, label(policy)


def test_only_overlays_name_versions() -> None:
    folders = [DEPLOY / "base", DEPLOY / "base" / "workloads", *(DEPLOY / "components").iterdir()]
    assert [folder for folder in folders if "images" in kustomization(folder)] == []


@overlays
def test_served_lists_meet_on_one_volume(overlay: str) -> None:
    objects = everything(overlay)
    job = named(objects, "CronJob", "served-report")
    folders = [
        (template, container, environment(objects, container)["MARQUEE_SERVED_FOLDER"])
        for _, template, container in serving(objects)
    ]
    (report,) = pod_of(job)["spec"]["containers"]
    (folder,) = (word.removeprefix("--served=") for word in report["args"] if word.startswith("--served="))
    assert len(folders) >= 4, "the canary's, too"
    for template, container, path in [*folders, (pod_of(job), report, folder)]:
        (name,) = (mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == path)
        (volume,) = (one for one in template["spec"]["volumes"] if one["name"] == name)
        assert volume["persistentVolumeClaim"] == {"claimName": "served"}, label(job)
