"""What puts our parts on a cluster: manifests, the job template of the work pool, and what is deployed to it."""
