"""Stand-ins for the services around a run, with faults on demand: Accounts, Identity, and a scoring model."""
