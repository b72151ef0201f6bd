"""An SQLite database, replicated to S3 by litestream."""

import pulumi
import pulumi_replicator as replicator

config = pulumi.Config()
shop = replicator.Stream(
    "shop",
    source={"kind": replicator.EndpointKind.SQLITE, "uri": f"sqlite://{config.require('database')}"},
    destination={
        "kind": replicator.EndpointKind.S3,
        "uri": config.require("replica"),
        "auth_ref": "env://SHOP_*",
    },
    checkpoint_interval="5s",
    # To remove the stream: pulumi config set protected false && pulumi up, then pulumi destroy.
    deletion_protection=config.get_bool("protected") is not False,
    opts=pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="5m")),
)
now = replicator.get_stream_status_output(stream=shop.id)
pulumi.export("id", shop.id)
pulumi.export("state", now.state)
pulumi.export("lagSeconds", now.lag_seconds)
