"""Speed beside the peers; run as modules, never timed in tests."""
