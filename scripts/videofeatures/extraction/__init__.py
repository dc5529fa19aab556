"""One job: from rows to feature files."""
