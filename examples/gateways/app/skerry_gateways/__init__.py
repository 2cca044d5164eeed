"""Gateways between what is at a site and its message bus: OPC UA servers, Modbus units and cameras."""
