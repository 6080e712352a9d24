"""One file a task; its name is its name on the command line."""
