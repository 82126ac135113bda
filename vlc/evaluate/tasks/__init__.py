"""One file a task: what it reads, what it measures, how it is shown."""
