"""What every node does by itself for the whole database: delete what is old, see what holds Watch up, count."""
