"""The workflow: its jobs, their resources, and its messages to the user."""
