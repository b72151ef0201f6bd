"""A Kafka broker and a Connect worker as child processes, on free ports of 127.0.0.1.

Each keeps its files in a folder of its own and can be stopped, killed and started again there; its ports stay. The
settings are those of a small installation: what a test relies on is a parameter.
"""

from __future__ import annotations

import base64
import secrets
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from tests.engines import free_ports
from tools.kafka.process import START_TIMEOUT, JavaProcess, Server, properties_text, write_private
from tools.kafka.tls import Tls

SCRAM = "SCRAM-SHA-512"


def new_cluster_id() -> str:
    """16 random bytes as Kafka writes them, and no dash first: a command would take it for an option."""
    while (text := base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")).startswith("-"):
        pass
    return text


class Broker(Server):
    """One KRaft node that is broker and controller.

    The listener PLAINTEXT lets anybody in, as `User:ANONYMOUS`. With `tls` there is the listener SASL_SSL too, for the
    users that `add_user` makes.

    :param authorizer: whether access control lists count; the anonymous user may do everything all the same.
    :param properties: more settings, which win.

    :ivar advertised: `host:port` where clients of PLAINTEXT are sent, such as a proxy's; the listener's own where None.
        It counts from the first start on.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tls: Tls | None = None,
        authorizer: bool = False,
        properties: Mapping[str, object] | None = None,
        heap: str = "384m",
    ) -> None:
        self._file = folder / "broker.properties"
        super().__init__(folder, "broker", ["kafka.Kafka", str(self._file)], heap=heap)
        self.cluster_id = new_cluster_id()
        self.tls = tls
        self.advertised: str | None = None
        self._authorizer = authorizer
        self._properties = dict(properties or {})
        self._plain, self._controller, self._secure = free_ports(3)

    @property
    def bootstrap(self) -> str:
        """The address of the listener PLAINTEXT."""
        return f"127.0.0.1:{self._plain}"

    @property
    def secure_bootstrap(self) -> str:
        """The address of the listener SASL_SSL."""
        return f"127.0.0.1:{self._secure}"

    def format(self) -> JavaProcess | None:
        """Start to format the storage, where that was not done; the caller waits for its end."""
        if (self.folder / "data" / "meta.properties").exists():
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        write_private(self._file, properties_text(self._settings()))
        arguments = ["format", "--cluster-id", self.cluster_id, "--config", str(self._file)]
        tool = JavaProcess(self.folder, "format", ["kafka.tools.StorageTool", *arguments])
        tool.launch()
        return tool

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Start the broker, with a storage that is formatted the first time, and wait until it answers.

        Raises EngineMissing, BuildError and EngineNotReady.
        """
        if (tool := self.format()) is not None:
            tool.wait_end(timeout)
        super().start(timeout)

    def answers(self) -> bool:
        """Whether the listener PLAINTEXT answers."""
        with socket.socket() as probe:  # a client that finds no listener says so on standard error
            if probe.connect_ex(("127.0.0.1", self._plain)) != 0:
                return False
        try:
            return bool(AdminClient({"bootstrap.servers": self.bootstrap}).list_topics(timeout=5).brokers)
        except KafkaException:
            return False

    def _settings(self) -> dict[str, object]:
        listeners = {"PLAINTEXT": self._plain, "CONTROLLER": self._controller}
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
        extra: dict[str, object] = {}
        if self.tls is not None:
            listeners["SASL_SSL"], protocols["SASL_SSL"] = self._secure, "SASL_SSL"
            extra |= {
                **self.tls.properties("listener.name.sasl_ssl."),
                "sasl.enabled.mechanisms": SCRAM,
                f"listener.name.sasl_ssl.{SCRAM.lower()}.sasl.jaas.config": (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                ),
            }
        if self._authorizer:
            extra["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
            extra["super.users"] = "User:ANONYMOUS"
        addresses = {name: f"{name}://127.0.0.1:{port}" for name, port in listeners.items()}
        told = addresses | ({"PLAINTEXT": f"PLAINTEXT://{self.advertised}"} if self.advertised else {})
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "listeners": ",".join(addresses.values()),
            "advertised.listeners": ",".join(text for name, text in told.items() if name != "CONTROLLER"),
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": ",".join(f"{name}:{how}" for name, how in protocols.items()),
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": self.folder / "data",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 5,
            "metadata.max.idle.interval.ms": 0,  # no record each half a second while nothing changes
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 5,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024,  # of the heap; the default takes 128 MiB
            **extra,
            **self._properties,
        }


@dataclass(frozen=True)
class Login:
    """A user of a Connect worker's REST interface."""

    user: str
    password: str


class Worker(Server):
    """One Connect worker. Workers with the same group and broker are one Connect cluster.

    Files in `secrets` are what `${file:…}` and `${dir:…}` of a connector may name; `environment` is what
    `${env:…}` may.

    :param plugins: folders of jars that `find_jars` gave; MirrorMaker 2 and the file connectors are always there.
    :param tls: the REST interface then speaks TLS.
    :param login: the REST interface then asks for this user.
    :param properties: more settings, which win.
    """

    def __init__(
        self,
        folder: Path,
        bootstrap: str,
        *,
        group: str = "connect",
        plugins: Sequence[Path] = (),
        tls: Tls | None = None,
        login: Login | None = None,
        properties: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        heap: str = "384m",
    ) -> None:
        self._file = folder / "worker.properties"
        self._jaas = folder / "jaas.conf"
        main = ["org.apache.kafka.connect.cli.ConnectDistributed", str(self._file)]
        options = [f"-Djava.security.auth.login.config={self._jaas}"] if login else []
        super().__init__(folder, "worker", main, heap=heap, options=options, environment=environment)
        self.secrets = folder / "secrets"
        self.login = login
        self.tls = tls
        self._bootstrap = bootstrap
        self._group = group
        self._plugins = tuple(plugins)
        self._properties = dict(properties or {})
        self._port = free_ports(1)[0]

    @property
    def url(self) -> str:
        """The base URL of the REST interface."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port}"

    def client(self) -> httpx.Client:
        """A client of the REST interface, with the login and the certificate that it needs. The caller closes it."""
        verify = ssl.create_default_context(cafile=str(self.tls.ca)) if self.tls else False
        auth = (self.login.user, self.login.password) if self.login else None
        return httpx.Client(base_url=self.url, auth=auth, verify=verify, trust_env=False, timeout=30)

    def launch(self) -> None:
        """Start the worker and do not wait for it. Raises EngineMissing and BuildError."""
        self._prepare()
        super().launch()

    def answers(self) -> bool:
        """Whether the worker is healthy: only then does it list its connectors truly."""
        with self.client() as rest:
            try:
                answer = rest.get("/health")
            except httpx.TransportError:
                return False
            return answer.status_code == 200 and answer.headers["content-type"] == "application/json"

    def _prepare(self) -> None:
        plugins = self.folder / "plugins"
        for made in (plugins, self.secrets):
            made.mkdir(parents=True, exist_ok=True)
        for plugin in self._plugins:
            link = plugins / plugin.parent.name
            link.unlink(missing_ok=True)
            link.symlink_to(plugin)
        write_private(self._file, properties_text(self._settings(plugins)))
        if self.login is not None:
            passwords = {self.login.user: self.login.password}
            file = write_private(self.folder / "passwords.properties", properties_text(passwords))
            module = "org.apache.kafka.connect.rest.basic.auth.extension.PropertyFileLoginModule"
            write_private(self._jaas, f'KafkaConnect {{\n  {module} required file="{file}";\n}};\n')

    def _settings(self, plugins: Path) -> dict[str, object]:
        converter = "org.apache.kafka.connect.json.JsonConverter"
        provider = "org.apache.kafka.common.config.provider"
        extra: dict[str, object] = self.tls.properties("listeners.https.") if self.tls else {}  # type: ignore[assignment]
        if self.login is not None:
            extra["rest.extension.classes"] = (
                "org.apache.kafka.connect.rest.basic.auth.extension.BasicAuthSecurityRestExtension"
            )
        return {
            "bootstrap.servers": self._bootstrap,
            "group.id": self._group,
            "listeners": self.url,
            "rest.advertised.host.name": "127.0.0.1",
            "rest.advertised.listener": "https" if self.tls else "http",
            "key.converter": converter,
            "value.converter": converter,
            "config.storage.topic": f"{self._group}-configs",
            "config.storage.replication.factor": 1,
            "offset.storage.topic": f"{self._group}-offsets",
            "offset.storage.replication.factor": 1,
            "offset.storage.partitions": 1,
            "status.storage.topic": f"{self._group}-status",
            "status.storage.replication.factor": 1,
            "status.storage.partitions": 1,
            "offset.flush.interval.ms": 1000,  # the default lets a connector's offsets lag a minute behind
            "scheduled.rebalance.max.delay.ms": 0,
            "plugin.path": plugins,
            "plugin.discovery": "service_load",  # the default starts 6 s later
            "connector.client.config.override.policy": "All",
            "config.providers": "file,dir,env",
            "config.providers.file.class": f"{provider}.FileConfigProvider",
            "config.providers.file.param.allowed.paths": self.secrets,
            "config.providers.dir.class": f"{provider}.DirectoryConfigProvider",
            "config.providers.dir.param.allowed.paths": self.secrets,
            "config.providers.env.class": f"{provider}.EnvVarConfigProvider",
            **extra,
            **self._properties,
        }


def add_user(bootstrap: str, name: str, password: str) -> None:
    """Make a SCRAM user, or give one another password. By the client: a command's arguments are for all to see."""
    mechanism = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    change = UserScramCredentialUpsertion(name, mechanism, password.encode())
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for done in admin.alter_user_scram_credentials([change]).values():
        done.result(timeout=10)
