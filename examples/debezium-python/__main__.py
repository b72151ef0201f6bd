"""Tables of a PostgreSQL database to Kafka topics, one stream for each schema: each can be paused alone."""

import pulumi
import pulumi_replicator as replicator

SCHEMAS = ["app", "billing"]
JSON = "org.apache.kafka.connect.json.JsonConverter"

config = pulumi.Config()
paused = config.get_object("paused") or []  # pulumi config set --path 'paused[0]' billing

streams = {
    schema: replicator.Stream(
        schema,
        source={
            "kind": replicator.EndpointKind.POSTGRES,
            "uri": config.require("database"),
            "auth_ref": config.require("login"),
            "admin_auth_ref": config.require("owner"),
        },
        destination={"kind": replicator.EndpointKind.KAFKA, "uri": f"kafka://{config.require('brokers')}"},
        include=[f"{schema}.*"],
        checkpoint_interval="5s",
        options={
            "topic.creation.default.replication.factor": config.get_int("replicas") or 3,
            "key.converter": JSON,
            "key.converter.schemas.enable": False,
            "value.converter": JSON,
            "value.converter.schemas.enable": False,
        },
        desired_state=replicator.DesiredState.PAUSED if schema in paused else replicator.DesiredState.RUNNING,
        wait_for=replicator.WaitFor.CAUGHT_UP,
        opts=pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="30m")),
    )
    for schema in SCHEMAS
}
now = {schema: replicator.get_stream_status_output(stream=stream.id) for schema, stream in streams.items()}
pulumi.export("topics", {schema: stream.engine_objects["topics"] for schema, stream in streams.items()})
pulumi.export("states", {schema: status.state for schema, status in now.items()})
pulumi.export("lagSeconds", {schema: status.lag_seconds for schema, status in now.items()})
