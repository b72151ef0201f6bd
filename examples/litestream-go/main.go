// An SQLite database, replicated to S3 by litestream.
package main

import (
	"github.com/pulumi-replicator/pulumi-replicator/sdk/go/replicator"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi/config"
)

func main() {
	pulumi.Run(func(ctx *pulumi.Context) error {
		settings := config.New(ctx, "")
		shop, err := replicator.NewStream(ctx, "shop", &replicator.StreamArgs{
			Source: &replicator.EndpointArgs{
				Kind: replicator.EndpointKindSqlite,
				Uri:  pulumi.String("sqlite://" + settings.Require("database")),
			},
			Destination: &replicator.EndpointArgs{
				Kind:    replicator.EndpointKindS3,
				Uri:     pulumi.String(settings.Require("replica")),
				AuthRef: pulumi.String("env://SHOP_*"),
			},
			WaitFor: replicator.WaitForCaughtUp,
		})
		if err != nil {
			return err
		}
		now := replicator.GetStreamStatusOutput(ctx, replicator.GetStreamStatusOutputArgs{Stream: shop.ID()}, nil)
		ctx.Export("id", shop.ID())
		ctx.Export("state", now.State())
		ctx.Export("lagSeconds", now.LagSeconds())
		return nil
	})
}
