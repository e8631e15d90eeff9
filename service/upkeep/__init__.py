"""What every node does by itself for the whole database: it deletes what is old, and looks at what holds Watch up."""
