"""The nouns: specs, options, profiles and the report, in plain Python."""
