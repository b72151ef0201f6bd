"""The way to an agent on another host: one ssh process that forwards the agent's socket."""
