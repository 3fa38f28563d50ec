"""From two profiles to findings: where the trouble starts and how bad it is."""
