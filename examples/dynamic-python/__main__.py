"""An SQLite database, replicated to S3 by litestream; without the plugin."""

from __future__ import annotations

import pulumi
from replicator import dynamic

config = pulumi.Config()
shop = dynamic.Stream(
    "shop",
    source={"kind": "sqlite", "uri": f"sqlite://{config.require('database')}"},
    destination={"kind": "s3", "uri": config.require("replica"), "auth_ref": "env://SHOP_*"},
    checkpoint_interval="1s",
    wait_for="caught_up",
)
now = dynamic.get_stream_status(shop.id)
pulumi.export("id", shop.id)
pulumi.export("state", now.state)
pulumi.export("lag_seconds", now.lag_seconds)
pulumi.export("position", now.last_checkpoint.lsn)

# pulumi config set copy '{"target": "/var/lib/shop/copy.db", "start": {"wall": "2026-11-25T09:00:00Z"}}'
if copy := config.get_object("copy"):
    run = dynamic.replay(
        shop.id, start=copy["start"], target=copy["target"], method="copy", idempotency_key=copy["target"]
    )
    pulumi.export("copy", run.state)
