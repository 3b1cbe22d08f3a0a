"""The resources of the local API, one module each, with their routes."""

from aimd.adapters.http.resources import daemon, events, inventory, plans

ROUTES = (*inventory.ROUTES, *plans.ROUTES, *events.ROUTES, *daemon.ROUTES)
