"""DynamoDB as table, dead letter store and position store."""
