// An SQLite database, replicated to S3 by litestream.
import * as pulumi from "@pulumi/pulumi";
import * as replicator from "@pulumi-replicator/replicator";

const config = new pulumi.Config();
const shop = new replicator.Stream("shop", {
    source: {
        kind: replicator.EndpointKind.Sqlite,
        uri: `sqlite://${config.require("database")}`,
    },
    destination: {
        kind: replicator.EndpointKind.S3,
        uri: config.require("replica"),
        authRef: "env://SHOP_*",
    },
    waitFor: replicator.WaitFor.CaughtUp,
});
const now = replicator.getStreamStatusOutput({ stream: shop.id });

export const id = shop.id;
export const state = now.state;
export const lagSeconds = now.lagSeconds;
