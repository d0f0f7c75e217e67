"""A stand-in for the operator of Seldon Core 1.17.1, where the real one cannot be had.

It carries out one-node graphs with `seldon.io/no-engine: "true"` behind Istio, as the recordings show and as the
operator's published source (Apache-2.0) explains. Whatever else a SeldonDeployment asks for makes it Failed, aloud.
"""
