"""The same with the Python SDK, whose version is part of the state: its default provider has it."""

import pulumi
import pulumi_replicator as replicator

least = replicator.Stream(
    "least",
    backend="memory",
    source={"kind": replicator.EndpointKind.POSTGRES, "uri": "postgres://db.example/least"},
    destination={"kind": replicator.EndpointKind.KAFKA, "uri": "kafka://broker.example:9092/least"},
)
most = replicator.Stream(
    "most",
    name="most",
    backend="memory",
    source={
        "kind": "postgres",
        "region": "eu-fra",
        "uri": "postgres://db.example/most?sslmode=require",
        "auth_ref": "file:///etc/replicator/most.properties",
        "admin_auth_ref": "env://ADMIN_*",
    },
    destination={
        "kind": "s3",
        "region": "us-east",
        "uri": "s3://replicas/most?region=us-east-1",
        "auth_ref": pulumi.Output.secret("env://AUDIT_*"),
    },
    mode=replicator.Mode.CDC,
    include=["public.orders", "public.order_*"],
    exclude=["public.order_drafts"],
    filter="total > 100",
    conflict=replicator.Conflict.LAST_WRITER_WINS,
    checkpoint_interval="90s",
    start_from={"lsn": "0"},
    wait_for=replicator.WaitFor.RUNNING,
    deletion_protection=True,
    purge_destination=True,
    drain_before_delete=replicator.Drain.SKIP,
    bookmarks=["before"],
    on_delete=replicator.OnDelete.KEEP_BOOKMARK,
    options={"fail": ""},
    opts=pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="5m")),
)
paused = replicator.Stream(
    "paused",
    backend="memory",
    source={"kind": "nats", "uri": "nats://nats.example:4222/events"},
    destination={"kind": "s3", "uri": pulumi.Output.concat("s3://replicas/events/", least.name)},
    desired_state=replicator.DesiredState.PAUSED,
    start_from="latest",
)
again = replicator.ReplayRun("again", stream=most.id, start={"lsn": "0"}, method="log_rewind", triggers=["first"])
pulumi.export("id", most.id)
pulumi.export("position", most.status.last_checkpoint.lsn)
pulumi.export("objects", least.engine_objects)
pulumi.export("replayed", again.state)
