"""GraphQL: the schema, its limits, and how a document is run."""
