"""The resources of the local API, one module each, with their routes."""

from aimd.adapters.http.resources import claims, cluster, daemon, events, holders, inventory, models, own, plans

ROUTES = (
    *inventory.ROUTES,
    *claims.ROUTES,
    *holders.ROUTES,
    *own.ROUTES,
    *models.ROUTES,
    *plans.ROUTES,
    *events.ROUTES,
    *cluster.ROUTES,
    *daemon.ROUTES,
)
