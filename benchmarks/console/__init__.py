"""The console with a million dead letters and ten million scores in its store."""
