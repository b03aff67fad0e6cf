"""Defense plug-ins, one file each, met by the harness through entry points."""
