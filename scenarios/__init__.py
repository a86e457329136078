"""What people run and watch: scenarios, the example domain, the cluster, the dashboard."""
