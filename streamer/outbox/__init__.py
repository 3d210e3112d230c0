"""Between saying and having said: per sink two lanes, a backlog that survives, delivery with back-off."""
