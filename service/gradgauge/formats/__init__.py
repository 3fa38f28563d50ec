"""Report to text: Markdown, HTML."""
