"""What the audit is tried on: models and attacks that lie, and honest ones beside them, in two halves.

`seen` were there before a check was written or changed, and may have changed it. `unseen` were written by people who
had not read the audit, and no check was changed for them: the figures that are quoted come from these.
"""
