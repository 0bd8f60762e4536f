"""Frame(s) in, enhanced frame out: the tiers, the ladder that falls back between them, the folder face."""
