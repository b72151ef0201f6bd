"""kafka-mirror: MirrorMaker 2 as connectors of a Connect cluster."""
