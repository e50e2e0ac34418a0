"""Images of one's own: labels in CSV or JSON, and what annotation tools export."""
