"""The way to an agent on another host: one ssh process that carries every connection to the agent's socket."""
