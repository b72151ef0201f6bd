"""An SQLite database, replicated to S3 by litestream."""

from __future__ import annotations

from typing import Any

import pulumi


class Stream(pulumi.CustomResource):
    """A replication stream; the generated SDK will bring this class."""

    status: pulumi.Output[Any]

    def __init__(self, name: str, props: pulumi.Inputs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("replicator:index:Stream", name, {**props, "status": None}, opts)


config = pulumi.Config()
shop = Stream(
    "shop",
    {
        "source": {"kind": "sqlite", "uri": f"sqlite://{config.require('database')}"},
        "destination": {"kind": "s3", "uri": config.require("replica"), "authRef": "env://SHOP_*"},
        "checkpointInterval": "5s",
        "deletionProtection": config.get_bool("protected") is not False,
    },
    pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="5m")),
)
pulumi.export("id", shop.id)
pulumi.export("state", shop.status.apply(lambda status: status["state"]))
