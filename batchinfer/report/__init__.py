"""The report: what a run measured (metrics), what it shows while it goes (progress), and at its end (summary)."""
