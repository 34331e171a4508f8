"""The SQLMesh side: runs what is deployed and reports every model's outcome as an event."""
