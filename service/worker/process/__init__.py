"""What a session process is, whatever session it runs."""
