"""Length-controlled win rate as AlpacaEval 2 defines it."""
