"""What exists: commits, rejects, snapshots, queries."""
