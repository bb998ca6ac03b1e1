"""SLiC-HF: a margin between the log-probabilities of preferred and other answers, and a tie to the former."""
