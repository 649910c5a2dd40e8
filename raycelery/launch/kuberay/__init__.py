"""Runs on Kubernetes, each a RayJob of KubeRay with a cluster of its own: what is sent, and what is made of it.

Follows https://docs.ray.io/en/latest/cluster/kubernetes/getting-started/rayjob-quick-start.html.
"""
