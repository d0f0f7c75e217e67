"""`python -m prefect_mlops.deployments.cli`."""

from prefect_mlops.deployments.cli import main

if __name__ == "__main__":
    main()
