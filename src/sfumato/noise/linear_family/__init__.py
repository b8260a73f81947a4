"""The linear SDE family: what a member states, and the routes to what follows from it."""
