"""Scenes: solids whose right output is known at every point and along every ray.

Closed forms that a YAML file holds (`analytic`), meshes from any 3D program (`mesh`), pictures of
both (`scene`, `camera`), and the world that makes examples of them (`world`).  Meshes need the
extra ``vision``.
"""
