"""Topics of one Kafka cluster in another region, one mirror for each team: a pause of one leaves the others running."""

import pulumi
import pulumi_replicator as replicator

TEAMS = {"billing": ["billing.*"], "web": ["clicks", "sessions"]}

config = pulumi.Config()
paused = config.get_object("paused") or []  # pulumi config set --path 'paused[0]' web

mirrors = {
    team: replicator.Stream(
        team,
        source={
            "kind": replicator.EndpointKind.KAFKA,
            "region": "us-east",
            "uri": f"kafka://{config.require('source')}",
        },
        destination={
            "kind": replicator.EndpointKind.KAFKA,
            "region": "us-west",
            "uri": f"kafka://{config.require('destination')}",
        },
        include=topics,
        options={"replication.factor": config.get_int("replicas") or 3},
        desired_state=replicator.DesiredState.PAUSED if team in paused else replicator.DesiredState.RUNNING,
        wait_for=replicator.WaitFor.CAUGHT_UP,
        opts=pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="30m")),
    )
    for team, topics in TEAMS.items()
}
now = {team: replicator.get_stream_status_output(stream=mirror.id) for team, mirror in mirrors.items()}
pulumi.export("ids", {team: mirror.id for team, mirror in mirrors.items()})
pulumi.export("states", {team: status.state for team, status in now.items()})
pulumi.export("lagRecords", {team: status.lag_events for team, status in now.items()})
pulumi.export("lagSeconds", {team: status.lag_seconds for team, status in now.items()})
