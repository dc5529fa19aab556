"""From a CSV to jobs."""
