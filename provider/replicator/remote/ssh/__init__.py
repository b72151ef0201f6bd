"""The transport to an agent on another host: one ssh process carries every connection to the agent's socket."""
