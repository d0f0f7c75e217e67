"""Places where things run: the model server and what starts it. Nothing imports this; programs are started by name."""
