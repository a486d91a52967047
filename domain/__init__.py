"""What the business knows: records, keys, rules, score arithmetic. Pure; imports nothing of ours."""
