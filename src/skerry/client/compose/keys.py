"""The table of what becomes of each key of a Compose file; the converter and the reference both read it.

`*` stands for any name, `[]` for any entry of a list. `mapped` keys become something in the Application, `noted`
ones do not but nothing breaks without them, `ignored` ones mean nothing to a site, `refused` ones would be missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple


class Key(NamedTuple):
    """What becomes of a key: for a refused one, what to do instead."""

    fate: Literal["mapped", "noted", "ignored", "refused"]
    becomes: str


def _mapped(**keys: str) -> dict[str, Key]:
    return {name: Key("mapped", text) for name, text in keys.items()}


def _noted(**keys: str) -> dict[str, Key]:
    return {name: Key("noted", text) for name, text in keys.items()}


def _refused(**keys: str) -> dict[str, Key]:
    return {name: Key("refused", text) for name, text in keys.items()}


def _ignored(**keys: str) -> dict[str, Key]:
    return {name: Key("ignored", text) for name, text in keys.items()}


_NO_TUNING = "remove it, or set it on the host"
_NO_NAMES = "names inside an application are those of its components; others belong to the host's resolver"
_OWN_SPACE = "remove it: each component has its own"

KEYS: Mapping[str, Mapping[str, Key]] = {
    "": {
        **_ignored(version="says nothing since Compose has one specification"),
        **_mapped(
            name="`metadata.name`, unless `--name` is given",
            services="`spec.components`, one for each",
            networks="the application's own network; one beside `default` at most",
            volumes="declares the volumes of components",
        ),
        **_refused(
            include="write the included services into this file",
            secrets="secrets come to sites as Secret documents: leave them out here",
            configs="put the file into the image, or its content into `environment`",
            models="write a Model document, and mount it with `models` of the component",
        ),
    },
    "services.*": {
        **_mapped(
            image="`image.source`",
            entrypoint="`command`",
            command="`args`; `command` where the entry point is emptied",
            environment="`env`",
            ports="`ports` by their container port; published ports are noted, since ingress leads in from outside",
            expose="`ports`",
            volumes="named and anonymous volumes: `volumes`; `tmpfs`: `container.tmpfs`; bind mounts are refused",
            tmpfs="`container.tmpfs`",
            read_only="`container.read_only`; false where it is not set",
            user="`container.user`",
            working_dir="`container.working_directory`",
            cap_add="`container.capabilities`",
            cap_drop="takes from the default set with `--keep-default-capabilities`, else nothing is left to drop",
            security_opt="`no-new-privileges` always holds; any other is refused",
            mem_limit="`resources.memory`",
            mem_reservation="`resources.requests.memory`",
            cpus="`resources.cpu`",
            pids_limit="`resources.pids`",
            shm_size="`container.shared_memory`",
            stop_signal="`stop.signal`",
            stop_grace_period="`stop.grace`",
            healthcheck="`probes.readiness`, and `probes.startup` for its start period",
            init="`container.init`",
            devices="`devices`, each for one component alone unless several name it",
            gpus="`devices`",
            network_mode="`container.network`: `host` or `none`",
            networks="the application's own network",
            depends_on="noted: components start together and are restarted until they are ready",
            links="noted: components find each other by name; an alias is refused",
            platform="`image.variants[].platform`",
            deploy="see below",
            scale="1 only",
        ),
        **_noted(
            restart="the agent restarts a component whenever it ends",
            labels="labels of services are not kept",
            annotations="annotations of services are not kept",
            container_name="other components find it by the component's name",
            hostname="the host name in the container is not set",
            domainname="the domain name in the container is not set",
            logging="the agent keeps a bounded log of every component",
            pull_policy="images come with the release, never from a registry at the site",
            tty="components have no terminal",
            stdin_open="components have no standard input",
        ),
        **_ignored(
            attach="for people at a terminal", develop="for development", pull_refresh_after="as pull_policy"
        ),
        **_refused(
            build="build it first (docker compose build), name the result under image, and remove build",
            extends="write the extended service out",
            privileged="name the capabilities it needs under cap_add, and its devices",
            profiles="remove the services that sites do not run, and this key from the others",
            secrets="secrets come to sites as Secret documents: leave them out here",
            configs="put the file into the image, or its content into environment",
            models="write a Model document, and mount it with models of the component",
            env_file="write what it holds under environment; --env-file fills ${NAME} there",
            external_links="give its address in environment, by --site-variable where sites differ",
            volumes_from="a volume belongs to one component",
            extra_hosts=_NO_NAMES,
            dns=_NO_NAMES,
            dns_opt=_NO_NAMES,
            dns_search=_NO_NAMES,
            group_add="run as a user who has the group in the image",
            ipc=_OWN_SPACE,
            pid=_OWN_SPACE,
            uts=_OWN_SPACE,
            userns_mode=_OWN_SPACE,
            cgroup=_OWN_SPACE,
            cgroup_parent=_OWN_SPACE,
            mac_address=_OWN_SPACE,
            ulimits=_NO_TUNING,
            sysctls=_NO_TUNING,
            blkio_config=_NO_TUNING,
            cpu_count=_NO_TUNING + "; cpus limits processors",
            cpu_percent=_NO_TUNING + "; cpus limits processors",
            cpu_shares=_NO_TUNING + "; cpus limits processors",
            cpu_period=_NO_TUNING + "; cpus limits processors",
            cpu_quota=_NO_TUNING + "; cpus limits processors",
            cpu_rt_period=_NO_TUNING,
            cpu_rt_runtime=_NO_TUNING,
            cpuset=_NO_TUNING + "; cpus limits processors",
            mem_swappiness=_NO_TUNING,
            memswap_limit=_NO_TUNING + "; mem_limit limits memory",
            oom_kill_disable=_NO_TUNING,
            oom_score_adj=_NO_TUNING,
            device_cgroup_rules="name the devices under devices",
            storage_opt="give a volume for what is written",
            isolation="remove it: hosts run Linux",
            credential_spec="remove it: hosts run Linux",
            runtime="ask for a GPU with deploy.resources.reservations.devices",
            label_file="remove it: labels of services are not kept",
            use_api_socket="the engine's socket is never given to a component",
            post_start="do it in the entry point",
            pre_stop="do it when the stop signal comes",
            provider="what it provides must be a service with an image",
        ),
    },
    "services.*.deploy": {
        **_mapped(
            resources="`resources`, and `devices` for reserved GPUs",
            replicas="1 only",
            mode="`replicated` only",
        ),
        **_noted(
            restart_policy="the agent restarts a component whenever it ends",
            update_config="a Rollout says how a release comes to sites",
            rollback_config="a host goes back by itself when a release fails",
            labels="labels of services are not kept",
        ),
        **_refused(placement="write spec.placement of the Application", endpoint_mode="remove it"),
    },
    "services.*.deploy.resources": _mapped(limits="`resources`", reservations="`resources.requests`"),
    "services.*.deploy.resources.limits": _mapped(
        cpus="`resources.cpu`", memory="`resources.memory`", pids="`resources.pids`"
    ),
    "services.*.deploy.resources.reservations": {
        **_mapped(
            cpus="`resources.requests.cpu`", memory="`resources.requests.memory`", devices="GPUs: `devices`"
        ),
        **_refused(generic_resources="name the devices under devices"),
    },
    "services.*.deploy.resources.reservations.devices[]": {
        **_mapped(
            capabilities="must hold `gpu`",
            driver="`nvidia`, or left out",
            count="so many of the class `gpu`; `all` is `nvidia.com/gpu=all`",
            device_ids="`nvidia.com/gpu=ID`",
        ),
        **_refused(options="remove it"),
    },
    "services.*.gpus[]": {
        **_mapped(
            capabilities="as reserved devices",
            driver="as reserved devices",
            count="as reserved devices",
            device_ids="as reserved devices",
        ),
        **_refused(options="remove it"),
    },
    "services.*.healthcheck": _mapped(
        test="an `exec` probe; the shell form runs in `/bin/sh -c`",
        interval="`period`, 30s where it is not set",
        timeout="`timeout`, 30s where it is not set",
        retries="`failures`, 3 where it is not set",
        start_period="a `startup` probe that may fail for so long",
        start_interval="`period` of the `startup` probe",
        disable="no probe",
    ),
    "services.*.ports[]": {
        **_mapped(
            target="`port`",
            name="`name`",
            protocol="`tcp`; any other is noted",
            app_protocol="`name`, without one",
        ),
        **_noted(
            published="the published port is not mapped: ingress leads in from outside",
            host_ip="the published port is not mapped: ingress leads in from outside",
        ),
        **_ignored(mode="for published ports"),
    },
    "services.*.volumes[]": {
        **_mapped(
            type="`volume` and `tmpfs`; any other is refused",
            source="`name`",
            target="`path`",
            read_only="noted for a volume: it is writable",
            volume="see below",
            tmpfs="see below",
        ),
        **_ignored(consistency="for desktops"),
        **_refused(bind="use a named volume", image="put the files into the component's own image"),
    },
    "services.*.volumes[].volume": {
        **_noted(
            nocopy="a new volume is empty, whatever the image holds there",
            labels="labels of volumes are not kept",
        ),
        **_refused(subpath="use a volume of its own"),
    },
    "services.*.volumes[].tmpfs": {
        **_mapped(size="`size`"),
        **_noted(mode="the mode of the directory is not set"),
    },
    "services.*.devices[]": {
        **_mapped(source="`use`", target="must be the same path", permissions="`rwm`; any other is noted")
    },
    "services.*.depends_on.*": {
        **_mapped(condition="`service_completed_successfully` is refused; the others are noted"),
        **_ignored(restart="components are restarted by themselves", required="all components are"),
    },
    "services.*.networks.*": {
        **_refused(
            aliases="name the service as others look for it",
            ipv4_address="components find each other by name",
            ipv6_address="components find each other by name",
            link_local_ips="components find each other by name",
            mac_address=_OWN_SPACE,
            driver_opts=_NO_TUNING,
        ),
        **_ignored(
            priority="there is one network", gw_priority="there is one network", interface_name="as it comes"
        ),
    },
    "networks.*": {
        **_mapped(driver="`bridge`; any other is refused"),
        **_noted(labels="labels of networks are not kept", name="each release has its own network"),
        **_ignored(attachable="nothing else can join", enable_ipv4="as the engine does"),
        **_refused(
            external="a network belongs to one application; others are reached through ingress and topics",
            internal="it cannot be kept: components may call out",
            ipam="components find each other by name",
            driver_opts=_NO_TUNING,
            enable_ipv6="components find each other by name",
        ),
    },
    "volumes.*": {
        **_mapped(driver="`local`; any other is refused"),
        **_noted(
            labels="labels of volumes are not kept", name="a volume is named after the component that has it"
        ),
        **_refused(
            external="a volume is made by the agent; copy what it holds into it once",
            driver_opts="mount it on the host",
        ),
    },
}


def find_key(table: str, name: str) -> Key | None:
    """Return what becomes of a key; None for one that is not known."""
    return KEYS[table].get(name)


def known_keys(table: str) -> list[str]:
    """Return the keys of a table, in its order."""
    return list(KEYS[table])


def render_tables() -> str:
    """Return the reference's tables, in Markdown."""
    lines: list[str] = []
    for table, keys in KEYS.items():
        lines += [
            f"## {f'`{table}`' if table else 'Top level'}",
            "",
            "| Key | | What becomes of it |",
            "| --- | --- | --- |",
        ]
        order = ("mapped", "noted", "ignored", "refused")
        for name, key in sorted(keys.items(), key=lambda entry: order.index(entry[1].fate)):
            lines.append(f"| `{name}` | {key.fate} | {key.becomes} |")
        lines.append("")
    return "\n".join(lines)
