"""The examples in the schema's descriptions; SDK documentation shows the block of its language."""

from __future__ import annotations

STREAM_EXAMPLES = """\
{{% examples %}}
## Example Usage
{{% example %}}
### A live SQLite database, replicated to a bucket in another region

```yaml
name: shop
runtime: yaml
resources:
  orders:
    type: replicator:Stream
    properties:
      source:
        kind: sqlite
        region: us-east
        uri: sqlite:///var/lib/shop/orders.db
      destination:
        kind: s3
        region: eu-fra
        uri: s3://shop-replicas/orders?region=eu-central-1
        authRef: env://SHOP_S3_*
      waitFor: caught_up
variables:
  now:
    fn::invoke:
      function: replicator:getStreamStatus
      arguments:
        stream: ${orders.id}
outputs:
  state: ${now.state}
```

```python
import pulumi
import pulumi_replicator as replicator

orders = replicator.Stream(
    "orders",
    source={
        "kind": "sqlite",
        "region": "us-east",
        "uri": "sqlite:///var/lib/shop/orders.db",
    },
    destination={
        "kind": "s3",
        "region": "eu-fra",
        "uri": "s3://shop-replicas/orders?region=eu-central-1",
        "auth_ref": "env://SHOP_S3_*",
    },
    wait_for="caught_up",
)
now = replicator.get_stream_status_output(stream=orders.id)
pulumi.export("state", now.state)
```
{{% /example %}}
{{% /examples %}}

## Import

The id is `<backend>/<region or "default">/<name>`. An import changes nothing at the engine.

```sh
$ pulumi import replicator:index:Stream orders litestream/us-east/orders
```
"""

REPLAY_RUN_TEXT = """\
The run has an idempotency key, made from the resource's URN and its inputs. A run that was cut off, by a crash or by
^C, is joined by the next `pulumi up` and never begun twice. Each change of an input is another run; `triggers` are
there to ask for one. A run that failed stays failed: mend the cause and change `triggers`. Removing the resource undoes
nothing.

The preview says what the run would do, and refuses a start that is no longer retained.
"""
