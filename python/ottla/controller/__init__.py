"""The controller: a pure machine that decides every change of the cluster's metadata and writes it down as records."""
