"""The queue: what is to be done, who does it, what happens when they die."""
