"""What the workflow is made of: a run, and a look at the machine before it."""
