"""The tests' ingress: a real Envoy that does what the cluster's VirtualServices say, as Istio's gateway does."""
