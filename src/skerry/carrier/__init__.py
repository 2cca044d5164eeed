"""Both ends of the carrier API: the app that hub and relay serve, and the link that agent and relay dial with."""
