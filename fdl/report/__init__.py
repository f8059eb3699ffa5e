"""What a run leaves for a person: summary.json and report.html."""
