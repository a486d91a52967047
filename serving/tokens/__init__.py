"""Who a caller is: tokens, API keys, and how often they may ask."""
