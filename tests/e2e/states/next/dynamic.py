"""The same with the dynamic provider, which has no replay as a resource."""

import pulumi
from replicator import dynamic

least = dynamic.Stream(
    "least",
    backend="memory",
    source={"kind": "postgres", "uri": "postgres://db.example/least"},
    destination={"kind": "kafka", "uri": "kafka://broker.example:9092/least"},
)
most = dynamic.Stream(
    "most",
    pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="5m")),
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
    mode="cdc",
    include=["public.orders", "public.order_*"],
    exclude=["public.order_drafts"],
    filter="total > 100",
    conflict="last_writer_wins",
    checkpoint_interval="90s",
    start_from={"lsn": "0"},
    wait_for="running",
    deletion_protection=True,
    purge_destination=True,
    drain_before_delete="skip",
    bookmarks=["before"],
    on_delete="keepBookmark",
    options={"fail": ""},
)
paused = dynamic.Stream(
    "paused",
    backend="memory",
    source={"kind": "nats", "uri": "nats://nats.example:4222/events"},
    destination={"kind": "s3", "uri": pulumi.Output.concat("s3://replicas/events/", least.name)},
    desired_state="paused",
    start_from="latest",
)
pulumi.export("id", most.id)
pulumi.export("position", most.status.last_checkpoint.lsn)
pulumi.export("objects", least.engine_objects)
