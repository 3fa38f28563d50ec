"""Report to verdict: gates, policies, comparisons."""
